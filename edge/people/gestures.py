"""Finds yawns and nods, slow movements of one person's mouth and head; pure: time comes with the values."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from edge.people.eyelids import ENOUGH_S, GAP_S, NS

REMEMBER_S = 300.0  # yawns and nods are rare: those of the last five minutes count
# A yawn keeps the mouth wide for about 6 s (Provine 1986, "Yawning as a stereotyped action pattern"), speech
# and laughter open it for a syllable. The mesh puts a yawn at 0.35 to 0.5 of the mouth's width.
WIDE = 0.35
SURELY_WIDE = 0.5  # whatever the network says
YAWN_S = 1.5
LONGEST_YAWN_S = 8.0  # a mouth that stays open for longer is that of a sleeper
FLICKER_S = 0.35  # less wide for so short a time does not end a yawn
# Falling asleep the head sinks and is jerked back; a nod in talk is smaller and quicker, reading is longer.
NOD_DEG = 15.0
SHORTEST_NOD_S, LONGEST_NOD_S = 0.4, 4.0


@dataclass(slots=True)
class Yawns:
    """Counts yawns from the opening of the mouth and what the network says of it."""

    _times_ns: deque[int] = field(default_factory=deque)
    _t_ns: int | None = None
    _since_ns: int | None = None  # when the mouth opened that is open now
    _wide_ns: int = 0  # when it was last wide
    _is_counted: bool = False

    def add(self, t_ns: int, mouth: float | None, yawning: float | None) -> None:
        """Take one look: `mouth` over its own width, `yawning` a probability; None where it cannot be told.

        A yawn counts once, as soon as it has lasted `YAWN_S`.
        """
        if (mouth is None and yawning is None) or (self._t_ns is not None and t_ns <= self._t_ns):
            return
        before_ns, self._t_ns = self._t_ns, t_ns
        wide = is_wide(mouth, yawning)
        is_film = before_ns is not None and t_ns - before_ns <= GAP_S * NS
        if not is_film or (not wide and t_ns - self._wide_ns > FLICKER_S * NS):
            self._since_ns = None
        if not wide:
            return
        if self._since_ns is None:
            self._since_ns, self._is_counted = t_ns, False
        self._wide_ns = t_ns
        if not self._is_counted and t_ns - self._since_ns >= YAWN_S * NS:
            self._is_counted = True
            self._times_ns.append(t_ns)

    @property
    def is_going_on(self) -> bool:
        """Whether the mouth is wide now, and not for longer than a yawn lasts."""
        return self._since_ns is not None and self._wide_ns - self._since_ns <= LONGEST_YAWN_S * NS

    def recent(self, now_ns: int) -> int:
        """Return how many there were in the last `REMEMBER_S`."""
        return _recent(self._times_ns, now_ns)


@dataclass(slots=True)
class Nods:
    """Counts how often the head sank and came up again, against how it is usually held."""

    baseline_s: float
    usual_deg: float | None = None
    _times_ns: deque[int] = field(default_factory=deque)
    _t_ns: int | None = None
    _since_ns: int | None = None  # when the head sank that is down now
    _learnt: list[float] = field(default_factory=list)
    _learnt_ns: int = 0

    def add(self, t_ns: int, pitch_deg: float) -> None:
        """Take one look; nothing is counted before the head was seen for `ENOUGH_S`."""
        if self._t_ns is not None and t_ns <= self._t_ns:
            return
        before_ns, self._t_ns = self._t_ns, t_ns
        if before_ns is None or t_ns - before_ns > GAP_S * NS:
            self._since_ns = None
            return
        self._learn(pitch_deg, t_ns - before_ns)
        if self.usual_deg is None:
            return
        drop_deg = pitch_deg - self.usual_deg
        if self._since_ns is None:
            self._since_ns = t_ns if drop_deg >= NOD_DEG else None
        elif drop_deg <= NOD_DEG / 2:
            lasted_s = (t_ns - self._since_ns) / NS
            self._since_ns = None
            if SHORTEST_NOD_S <= lasted_s <= LONGEST_NOD_S:
                self._times_ns.append(t_ns)

    def recent(self, now_ns: int) -> int:
        """Return how many there were in the last `REMEMBER_S`."""
        return _recent(self._times_ns, now_ns)

    def _learn(self, pitch_deg: float, seen_ns: int) -> None:
        whole_s = self._learnt_ns // NS
        if whole_s >= self.baseline_s:
            return
        self._learnt.append(pitch_deg)
        self._learnt_ns += seen_ns
        if self._learnt_ns // NS > whole_s and self._learnt_ns >= ENOUGH_S * NS:
            self.usual_deg = median(self._learnt)
        if self._learnt_ns >= self.baseline_s * NS:
            self._learnt.clear()


def is_wide(mouth: float | None, yawning: float | None) -> bool:
    """Tell whether a mouth is open as in a yawn; where both are known, both must say so or one loudly."""
    likely = yawning is None or yawning >= 0.5
    if mouth is None:
        return yawning is not None and likely
    return mouth >= SURELY_WIDE or (mouth >= WIDE and likely)


def _recent(times_ns: deque[int], now_ns: int) -> int:
    while times_ns and times_ns[0] <= now_ns - REMEMBER_S * NS:
        times_ns.popleft()
    return len(times_ns)
