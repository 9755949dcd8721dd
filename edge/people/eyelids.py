"""Counts blinks and closures of one person and measures the share of time with closed eyes (PERCLOS).

PERCLOS is the share of a minute in which the lids cover 80 % of the pupil or more (P80: Wierwille et al.
1994, "Research on vehicle-based driver status/performance monitoring"; Dinges and Grace 1998, "PERCLOS: a
valid psychophysiological measure of alertness"). A network that is trained on open and closed eyes switches
at about half, so a closure is measured longer than by P80 and is shortened by `LID_S`. Time without a
measurement, because of a covered eye or a lost frame, counts neither as closed nor as open. Pure: time is an
argument.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import fmean, median

from edge.settings import FatigueSettings

GAP_S = 0.75  # a longer time between two measurements is a gap; 3 frames a second have none
HALF_BAND = 0.05  # hysteresis around the threshold between open and closed
# A lid closes in about 0.1 s and opens in 0.15 s (VanderWerf et al. 2003, "Eyelid movements"). Three tenths
# of that lie between half way, where it is measured, and 80 %, where PERCLOS begins and ends.
LID_S = 0.07
SHORTEST_BLINK_S = 0.05  # a shorter closure is one wrong frame at 30 frames a second
OPEN_AT_MOST = 0.4  # limit of the open level: a person asleep in the first minute must not set it
BLINK_HZ = 5.0  # blinks last 0.1 to 0.4 s (Schiffman 2001): fewer frames a second miss most of them
ENOUGH_S = 5.0  # measured time that every figure needs
NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Baseline:
    """The rested eyes of a person, measured in the first minute and fixed after it.

    `open_level` is the output of the network for the open eyes; `blinks_per_min` and `blink_s` are None if
    there were too few frames or blinks.
    """

    open_level: float
    blinks_per_min: float | None
    blink_s: float | None


@dataclass(slots=True)
class _MeasuredTime:
    """The measured time of the window and how much of it the eyes were closed."""

    measured_ns: int = 0
    closed_ns: int = 0
    _spans: deque[tuple[int, int, int]] = field(default_factory=deque)  # end, measured, closed

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, t_ns: int, measured_ns: int, closed_ns: int) -> None:
        """Add the time between two measurements, which ends at `t_ns`."""
        self._spans.append((t_ns, measured_ns, closed_ns))
        self.measured_ns += measured_ns
        self.closed_ns += closed_ns

    def shorten(self, ns: int) -> None:
        """Subtract the part of an ended closure in which the lids covered less than 80 %."""
        end_ns, measured_ns, closed_ns = self._spans[-1]
        self._spans[-1] = (end_ns, measured_ns, closed_ns - ns)
        self.closed_ns -= ns

    def expire(self, oldest_ns: int) -> None:
        """Drop what ended at `oldest_ns` or before."""
        while self._spans and self._spans[0][0] <= oldest_ns:
            _, measured_ns, closed_ns = self._spans.popleft()
            self.measured_ns -= measured_ns
            self.closed_ns -= closed_ns


@dataclass(slots=True)
class _OpenLevel:
    """The output of the network for the open eyes: the median, since eyes are open most of the time."""

    value: float = 0.0
    measured_s: float = 0.0
    _levels: list[float] = field(default_factory=list)

    def add(self, closed: float, seconds: float) -> None:
        """Add an output that stands for some measured time; the median is updated once a second."""
        whole_s = int(self.measured_s)
        self._levels.append(closed)
        self.measured_s += seconds
        if int(self.measured_s) > whole_s and self.measured_s >= ENOUGH_S:
            self.value = min(median(self._levels), OPEN_AT_MOST)

    def finish(self) -> None:
        """Keep the value only."""
        self._levels.clear()


@dataclass(slots=True)
class _Closure:
    """The present closure of the eyes."""

    since_ns: int
    is_whole: bool  # whether its beginning was measured
    is_microsleep: bool = False  # whether it is counted as one already
    lasted_ns: int = 0  # 0 during a gap


@dataclass(slots=True)
class Eyelids:
    """Follows the eyes of one person; all figures are about the last `window_s`."""

    settings: FatigueSettings
    baseline: Baseline | None = None
    _open_level: _OpenLevel = field(default_factory=_OpenLevel)
    _t_ns: int | None = None
    _closure: _Closure | None = None  # while the eyes are closed
    _open_ns: int | None = None  # since when the eyes are open, without a gap
    _still_ns: int = 0  # measured time since the last closure
    _has_closed: bool = False
    _time: _MeasuredTime = field(default_factory=_MeasuredTime)
    _blinks: deque[tuple[int, float]] = field(default_factory=deque)  # end, seconds
    _microsleeps: deque[int] = field(default_factory=deque)

    def add(self, t_ns: int, closed: float) -> None:
        """Add the probability 0..1 that the eyes are closed at `t_ns`; ignore it unless it is the newest."""
        before_ns, was_shut = self._t_ns, self._closure is not None
        if before_ns is not None and t_ns <= before_ns:
            return
        self._t_ns = t_ns
        if before_ns is None or t_ns - before_ns > GAP_S * NS:
            self._restart(t_ns, self._is_shut(closed, None))
            return
        shut = self._is_shut(closed, was_shut)
        measured_ns = t_ns - before_ns
        self._time.add(t_ns, measured_ns, measured_ns * (was_shut + shut) // 2)
        self._learn_baseline(closed, measured_ns / NS)
        middle_ns = before_ns + measured_ns // 2  # when the lid moved, to half the time between two frames
        if shut:
            if self._closure is None:
                self._closure, self._open_ns = _Closure(middle_ns, is_whole=True), None
            self._extend(self._closure, t_ns)
            self._has_closed, self._still_ns = True, 0
        elif self._closure is not None:
            self._end(self._closure, middle_ns)
        else:
            self._still_ns += measured_ns

    def expire(self, now_ns: int) -> None:
        """Drop what is older than the window, and a closure that ends in a gap."""
        if self._closure is not None and self._t_ns is not None and now_ns - self._t_ns > GAP_S * NS:
            self._closure.lasted_ns = 0
        oldest_ns = now_ns - int(self.settings.window_s * NS)
        self._time.expire(oldest_ns)
        while self._blinks and self._blinks[0][0] <= oldest_ns:
            self._blinks.popleft()
        while self._microsleeps and self._microsleeps[0] <= oldest_ns:
            self._microsleeps.popleft()

    @property
    def measured_ns(self) -> int | None:
        """The time of the newest measurement."""
        return self._t_ns

    @property
    def seen_s(self) -> float:
        """Measured time in the window, on which the figures rest."""
        return self._time.measured_ns / NS

    @property
    def rate_hz(self) -> float:
        """Measurements a second of measured time."""
        return len(self._time) / self.seen_s if len(self._time) else 0.0

    @property
    def perclos(self) -> float | None:
        """Share 0..1 of the measured time with closed eyes; None after less than `ENOUGH_S` of it."""
        time = self._time
        return max(0, time.closed_ns) / time.measured_ns if self.seen_s >= ENOUGH_S else None

    @property
    def blinks_per_min(self) -> float | None:
        """Blinks a minute of measured time; None below `BLINK_HZ` or after less than `ENOUGH_S`."""
        return 60 * len(self._blinks) / self.seen_s if self._can_count else None

    @property
    def blink_s(self) -> float | None:
        """Mean duration of a blink; None without any."""
        return fmean(seconds for _, seconds in self._blinks) if self._blinks and self._can_count else None

    @property
    def closed_s(self) -> float:
        """How long the eyes are closed, at the newest measurement; 0 while open."""
        return 0.0 if self._closure is None else self._closure.lasted_ns / NS

    @property
    def open_s(self) -> float:
        """How long the eyes are open, at the newest measurement; 0 while closed."""
        return 0.0 if self._t_ns is None or self._open_ns is None else (self._t_ns - self._open_ns) / NS

    @property
    def microsleeps(self) -> int:
        """Closures of `microsleep_s` or longer in the window."""
        return len(self._microsleeps)

    @property
    def is_lifelike(self) -> bool:
        """Whether the eyes have closed within the last `no_blink_s` of measured time."""
        return self._has_closed and self._still_ns < self.settings.no_blink_s * NS

    @property
    def _can_count(self) -> bool:
        return self.seen_s >= ENOUGH_S and self.rate_hz >= BLINK_HZ

    def _is_shut(self, closed: float, was_shut: bool | None) -> bool:
        """Return whether the eyes are closed: above half way from the open level to 1, with hysteresis.

        `was_shut` is None after a gap.
        """
        middle = (1 + self._open_level.value) / 2
        band = 0.0 if was_shut is None else -HALF_BAND if was_shut else HALF_BAND
        return closed >= middle + band

    def _restart(self, t_ns: int, shut: bool) -> None:
        """Begin again after a gap: the closure or opening before it ended at an unknown time."""
        self._closure = _Closure(t_ns, is_whole=False) if shut else None
        self._open_ns = None if shut else t_ns

    def _extend(self, closure: _Closure, t_ns: int) -> None:
        """Let a closure last until `t_ns`; count it once it is long enough for a microsleep."""
        closure.lasted_ns = t_ns - closure.since_ns
        if not closure.is_microsleep and closure.lasted_ns >= self.settings.microsleep_s * NS:
            closure.is_microsleep = True
            self._microsleeps.append(t_ns)

    def _end(self, closure: _Closure, t_ns: int) -> None:
        """End a closure at `t_ns`; count it as a blink unless it is too long or too short for one."""
        self._extend(closure, t_ns)
        self._time.shorten(min(closure.lasted_ns, int(LID_S * NS)))
        seconds = closure.lasted_ns / NS
        if closure.is_whole and not closure.is_microsleep and seconds >= SHORTEST_BLINK_S:
            self._blinks.append((t_ns, seconds))
        self._closure, self._open_ns = None, t_ns

    def _learn_baseline(self, closed: float, seconds: float) -> None:
        """Measure the open level and the blinks until `baseline_s` of measured time."""
        if self.baseline is not None:
            return
        self._open_level.add(closed, seconds)
        if self._open_level.measured_s >= self.settings.baseline_s:
            self.baseline = Baseline(self._open_level.value, self.blinks_per_min, self.blink_s)
            self._open_level.finish()
