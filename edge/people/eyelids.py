"""Follows the lids of one person: blinks, closures and the share of time that the eyes are closed.

PERCLOS is the share of a minute in which the lids cover 80 % of the pupil or more (P80: Wierwille et al.
1994, "Research on vehicle-based driver status/performance monitoring"; Dinges and Grace 1998, "PERCLOS: a
valid psychophysiological measure of alertness"). A network that was taught open and closed eyes changes its
mind half way, so each closure is a little shorter than it looks. Pure: time comes in with the values, and
what was not seen, be it a covered eye or a lost frame, counts neither as closed nor as open.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median

from edge.settings import FatigueSettings

GAP_S = 0.75  # between looks further apart nothing was seen; 3 pictures a second are still one film
HALF_BAND = 0.05  # around the half-way mark an eye stays what it was
# A lid closes in about 0.1 s and opens in 0.15 (VanderWerf et al. 2003, "Eyelid movements"); of both the part
# between half way, where we see it, and 80 %, where PERCLOS begins and ends, is three tenths.
LID_S = 0.07
SHORTEST_BLINK_S = 0.05  # a lid takes longer; this is one wrong picture of thirty a second
OPEN_AT_MOST = 0.4  # who sleeps through the first minute must not teach us what open is
BLINK_HZ = 5.0  # blinks last 0.1 to 0.4 s (Schiffman 2001): fewer pictures a second miss most of them
ENOUGH_S = 5.0  # of seen eyes, before anything is said about them
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Baseline:
    """How the eyes of a person are when rested: of the first minute, and fixed after it.

    `open_level` is what the network says of them open; `blinks_per_min` and `blink_s` are None where there
    were too few pictures or blinks.
    """

    open_level: float
    blinks_per_min: float | None
    blink_s: float | None


@dataclass(slots=True)
class Eyelids:
    """Takes looks at the eyes in time order; all figures are about the last `window_s`."""

    settings: FatigueSettings
    baseline: Baseline | None = None
    _open_level: float = 0.0
    _learnt: list[float] = field(default_factory=list)
    _learnt_s: float = 0.0
    _t_ns: int | None = None
    _is_shut: bool = False
    _since_ns: int | None = None  # when the closure began that goes on
    _is_whole: bool = False  # whether its beginning was seen
    _is_microsleep: bool = False  # counted as one already
    _closed_ns: int = 0  # how long it has lasted
    _open_ns: int | None = None  # since when the eyes are open, as far as seen
    _still_ns: int = 0  # seen time since the last closure
    _has_closed: bool = False
    _spans: deque[tuple[int, int, int]] = field(default_factory=deque)  # end, seen, closed
    _seen_sum_ns: int = 0
    _closed_sum_ns: int = 0
    _blinks: deque[tuple[int, float]] = field(default_factory=deque)  # end, seconds
    _microsleeps: deque[int] = field(default_factory=deque)

    def add(self, t_ns: int, closed: float) -> None:
        """Take the probability 0..1 that the eyes are closed at `t_ns`; what is not newer is ignored."""
        before_ns, was_shut = self._t_ns, self._is_shut
        if before_ns is not None and t_ns <= before_ns:
            return
        is_film = before_ns is not None and t_ns - before_ns <= GAP_S * NS
        shut = self._judge(closed, was_shut if is_film else None)
        self._t_ns, self._is_shut = t_ns, shut
        if before_ns is None or not is_film:
            self._begin_anew(t_ns, shut)
            return
        seen_ns = t_ns - before_ns
        self._count(t_ns, seen_ns, seen_ns * (was_shut + shut) // 2)
        self._learn(closed, seen_ns / NS)
        middle_ns = before_ns + seen_ns // 2  # when the lid moved, give or take half a picture
        if shut and not was_shut:
            self._since_ns, self._is_whole, self._is_microsleep, self._open_ns = middle_ns, True, False, None
        if shut:
            self._lengthen(t_ns)
        elif was_shut:
            self._end(middle_ns)
        else:
            self._still_ns += seen_ns

    def expire(self, now_ns: int) -> None:
        """Forget what is older than the window, and a closure of which no more is seen."""
        if self._t_ns is not None and now_ns - self._t_ns > GAP_S * NS:
            self._closed_ns = 0
        oldest_ns = now_ns - int(self.settings.window_s * NS)
        while self._spans and self._spans[0][0] <= oldest_ns:
            _, seen_ns, closed_ns = self._spans.popleft()
            self._seen_sum_ns -= seen_ns
            self._closed_sum_ns -= closed_ns
        while self._blinks and self._blinks[0][0] <= oldest_ns:
            self._blinks.popleft()
        while self._microsleeps and self._microsleeps[0] <= oldest_ns:
            self._microsleeps.popleft()

    @property
    def seen_ns(self) -> int | None:
        """When the eyes were last seen."""
        return self._t_ns

    @property
    def seen_s(self) -> float:
        """How much of the window the figures rest on."""
        return self._seen_sum_ns / NS

    @property
    def rate_hz(self) -> float:
        """Looks a second, as far as there were any."""
        return len(self._spans) / self.seen_s if self._spans else 0.0

    @property
    def perclos(self) -> float | None:
        """Share 0..1 of the seen time with closed eyes; None after less than `ENOUGH_S` of it."""
        return max(0, self._closed_sum_ns) / self._seen_sum_ns if self.seen_s >= ENOUGH_S else None

    @property
    def blinks_per_min(self) -> float | None:
        """Blinks a minute of seen time; None below `BLINK_HZ` or after less than `ENOUGH_S`."""
        return 60 * len(self._blinks) / self.seen_s if self._can_count else None

    @property
    def blink_s(self) -> float | None:
        """How long a blink lasts, on average; None without any."""
        return fmean(seconds for _, seconds in self._blinks) if self._blinks and self._can_count else None

    @property
    def closed_s(self) -> float:
        """For how long the eyes are closed now, when last seen; 0 while open."""
        return self._closed_ns / NS

    @property
    def open_s(self) -> float:
        """For how long the eyes are seen open now; 0 while closed."""
        if self._t_ns is None or self._open_ns is None or self._is_shut:
            return 0.0
        return (self._t_ns - self._open_ns) / NS

    @property
    def microsleeps(self) -> int:
        """Closures of `microsleep_s` or longer in the window."""
        return len(self._microsleeps)

    @property
    def is_lifelike(self) -> bool:
        """Whether the eyes have closed at all, and within the last `no_blink_s` of seen time."""
        return self._has_closed and self._still_ns < self.settings.no_blink_s * NS

    @property
    def _can_count(self) -> bool:
        return self.seen_s >= ENOUGH_S and self.rate_hz >= BLINK_HZ

    def _judge(self, closed: float, was_shut: bool | None) -> bool:
        """Compare with half-way between this person's open eyes and 1; close to it nothing changes."""
        middle = (1 + self._open_level) / 2
        band = 0.0 if was_shut is None else -HALF_BAND if was_shut else HALF_BAND
        return closed >= middle + band

    def _begin_anew(self, t_ns: int, shut: bool) -> None:
        """After a gap: what was going on is over, and when it ended is not known."""
        self._since_ns, self._closed_ns = (t_ns, 0) if shut else (None, 0)
        self._open_ns = None if shut else t_ns
        self._is_whole = self._is_microsleep = False

    def _lengthen(self, t_ns: int) -> None:
        assert self._since_ns is not None, "a closure has a beginning"
        self._closed_ns = t_ns - self._since_ns
        self._has_closed, self._still_ns = True, 0
        self._note_microsleep(t_ns)

    def _end(self, t_ns: int) -> None:
        assert self._since_ns is not None, "a closure has a beginning"
        self._closed_ns = t_ns - self._since_ns
        self._note_microsleep(t_ns)
        self._shorten(min(self._closed_ns, int(LID_S * NS)))
        seconds = self._closed_ns / NS
        if self._is_whole and not self._is_microsleep and seconds >= SHORTEST_BLINK_S:
            self._blinks.append((t_ns, seconds))
        self._since_ns, self._closed_ns, self._open_ns = None, 0, t_ns

    def _note_microsleep(self, t_ns: int) -> None:
        if not self._is_microsleep and self._closed_ns >= self.settings.microsleep_s * NS:
            self._is_microsleep = True
            self._microsleeps.append(t_ns)

    def _count(self, t_ns: int, seen_ns: int, closed_ns: int) -> None:
        self._spans.append((t_ns, seen_ns, closed_ns))
        self._seen_sum_ns += seen_ns
        self._closed_sum_ns += closed_ns

    def _shorten(self, ns: int) -> None:
        """Take back what of a closure that ended was not yet or no longer one of 80 %."""
        end_ns, seen_ns, closed_ns = self._spans[-1]
        self._spans[-1] = (end_ns, seen_ns, closed_ns - ns)
        self._closed_sum_ns -= ns

    def _learn(self, closed: float, seconds: float) -> None:
        """During the first minute: the median is that of open eyes, which they are most of the time."""
        if self.baseline is not None:
            return
        whole_s = int(self._learnt_s)
        self._learnt.append(closed)
        self._learnt_s += seconds
        if int(self._learnt_s) > whole_s and self._learnt_s >= ENOUGH_S:
            self._open_level = min(median(self._learnt), OPEN_AT_MOST)
        if self._learnt_s >= self.settings.baseline_s:
            self.baseline = Baseline(self._open_level, self.blinks_per_min, self.blink_s)
            self._learnt.clear()
