"""Counts yawns and nods of one person from the opening of the mouth and the pitch of the head.

Pure: time is an argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from edge.people.eyelids import ENOUGH_S, GAP_S, NS

REMEMBER_S = 300.0  # yawns and nods are rare: those of the last five minutes count
# A yawn keeps the mouth wide for about 6 s (Provine 1986, "Yawning as a stereotyped action pattern"), speech
# and laughter for a syllable. In the mesh, a yawn opens the mouth by 0.35 to 0.5 of its width.
WIDE = 0.35
SURELY_WIDE = 0.5  # for any output of the network
YAWN_S = 1.5
LONGEST_YAWN_S = 8.0  # a mouth that is open for longer is that of a sleeping person
FLICKER_S = 0.35  # a shorter interruption does not end a yawn
# The head of a person who falls asleep sinks and jerks back. A nod in conversation is smaller and quicker;
# reading takes longer.
NOD_DEG = 15.0
SHORTEST_NOD_S, LONGEST_NOD_S = 0.4, 4.0


@dataclass(slots=True)
class Yawns:
    """Counts yawns from the opening of the mouth and the probability of a yawn."""

    _times_ns: deque[int] = field(default_factory=deque)
    _t_ns: int | None = None
    _since_ns: int | None = None  # when the present opening of the mouth began
    _wide_ns: int = 0  # when the mouth was last wide
    _is_counted: bool = False

    def add(self, t_ns: int, mouth: float | None, yawning: float | None) -> None:
        """Add the opening of the mouth over its width and the probability of a yawn; None is unknown.

        A yawn counts once, as soon as it has lasted `YAWN_S`.
        """
        if (mouth is None and yawning is None) or (self._t_ns is not None and t_ns <= self._t_ns):
            return
        before_ns, self._t_ns = self._t_ns, t_ns
        wide = is_wide(mouth, yawning)
        is_continuous = before_ns is not None and t_ns - before_ns <= GAP_S * NS
        if not is_continuous or (not wide and t_ns - self._wide_ns > FLICKER_S * NS):
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
        """Return the number in the last `REMEMBER_S`."""
        return _recent(self._times_ns, now_ns)


@dataclass(slots=True)
class Nods:
    """Counts how often the head sank and came up again, relative to its usual pitch."""

    baseline_s: float
    usual_deg: float | None = None
    _times_ns: deque[int] = field(default_factory=deque)
    _t_ns: int | None = None
    _since_ns: int | None = None  # when the head sank, while it is down
    _pitches_deg: list[float] = field(default_factory=list)  # for `usual_deg`
    _pitches_ns: int = 0  # measured time of these

    def add(self, t_ns: int, pitch_deg: float) -> None:
        """Add the pitch of the head; nothing is counted before `ENOUGH_S` of measured time."""
        if self._t_ns is not None and t_ns <= self._t_ns:
            return
        before_ns, self._t_ns = self._t_ns, t_ns
        if before_ns is None or t_ns - before_ns > GAP_S * NS:
            self._since_ns = None
            return
        self._learn_usual(pitch_deg, t_ns - before_ns)
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
        """Return the number in the last `REMEMBER_S`."""
        return _recent(self._times_ns, now_ns)

    def _learn_usual(self, pitch_deg: float, measured_ns: int) -> None:
        """Set the usual pitch to the median of the first `baseline_s`."""
        whole_s = self._pitches_ns // NS
        if whole_s >= self.baseline_s:
            return
        self._pitches_deg.append(pitch_deg)
        self._pitches_ns += measured_ns
        if self._pitches_ns // NS > whole_s and self._pitches_ns >= ENOUGH_S * NS:
            self.usual_deg = median(self._pitches_deg)
        if self._pitches_ns >= self.baseline_s * NS:
            self._pitches_deg.clear()


def is_wide(mouth: float | None, yawning: float | None) -> bool:
    """Return whether a mouth is as wide as in a yawn.

    If both are known, they must agree, unless the mouth is wider than `SURELY_WIDE`.
    """
    likely = yawning is None or yawning >= 0.5
    if mouth is None:
        return yawning is not None and likely
    return mouth >= SURELY_WIDE or (mouth >= WIDE and likely)


def _recent(times_ns: deque[int], now_ns: int) -> int:
    while times_ns and times_ns[0] <= now_ns - REMEMBER_S * NS:
        times_ns.popleft()
    return len(times_ns)
