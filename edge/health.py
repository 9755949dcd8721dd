"""Keeps the faults, the progress of the threads, the counters of the daemon, and the time of its messages."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

STUCK_S = 15.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEP_NS = 1_000_000  # the precision of times in messages
TOLERANCE_NS = 1_000_000_000  # a smaller step back is not reported
# A clock that was ahead by more had no valid time: following it is better than waiting for years.
MAX_AHEAD_NS = 30 * 86_400 * 1_000_000_000
UNSET_NS = 1_767_225_600 * 1_000_000_000  # 2026-01-01: before, a clock was not set since the boot
REPORT_NS = 60 * 1_000_000_000  # how long such a jump is reported
SPARE_NS = 60 * 1_000_000_000  # for states of an earlier process, whose times are in no file


class StreamTime:
    """Returns UTC times of states and of events; each of the two series never goes back.

    A clock that is set forward is followed at once. While a clock that was set back is behind the newest
    time, each message gets that time plus a millisecond, until the clock has caught up. Only a clock that was
    ahead by more than 30 days is followed back at once, unless it now shows a year before 2026: that is a
    device without a battery clock, which waits for the time from the network.
    Safe for several threads. `wall_ns` is the system clock.
    """

    def __init__(self, wall_ns: Callable[[], int] = time.time_ns) -> None:
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._state_ns = 0  # the newest time of a state
        self._event_ns = 0  # the newest time of an event
        self._jump_ns = 0  # how far the clock was set back, when it was followed
        self._jump_at_ns = 0  # the time by the clock after that jump

    def resume(self, newest: datetime | None) -> None:
        """Continue after `newest`, the newest time that an earlier process stored."""
        if newest is not None:
            with self._lock:
                newest_ns = (newest - EPOCH) // timedelta(microseconds=1) * 1000
                if newest_ns > self._wall_ns():
                    newest_ns += SPARE_NS
                self._state_ns = max(self._state_ns, newest_ns)
                self._event_ns = max(self._event_ns, newest_ns)

    def now(self) -> datetime:
        """Return the time of a state."""
        with self._lock:
            self._state_ns = max(self._read(), self._state_ns + STEP_NS)
            return _utc(self._state_ns)

    def of_event(self, age_ns: int) -> datetime:
        """Return the time of an event that was captured `age_ns` ago."""
        with self._lock:
            wall_ns = self._read()
            if self._state_ns - wall_ns > TOLERANCE_NS:  # the stored event then bounds the states too
                self._event_ns = max(self._event_ns, self._state_ns)
            self._event_ns = max(wall_ns - age_ns, self._event_ns + STEP_NS)
            return _utc(self._event_ns)

    def set_back_s(self) -> float:
        """Return by how many seconds the clock is behind the newest time, or was set back lately; else 0."""
        with self._lock:
            wall_ns = self._read()
            if self._jump_ns and 0 <= wall_ns - self._jump_at_ns < REPORT_NS:
                return self._jump_ns / 1e9
            self._jump_ns = 0
            ahead_ns = max(self._state_ns, self._event_ns) - wall_ns
            return ahead_ns / 1e9 if ahead_ns > TOLERANCE_NS else 0.0

    def _read(self) -> int:
        """Return the clock; forget the newest times where they were ahead of it without sense."""
        wall_ns = self._wall_ns()
        ahead_ns = max(self._state_ns, self._event_ns) - wall_ns
        if ahead_ns > MAX_AHEAD_NS and wall_ns >= UNSET_NS:
            self._jump_ns, self._jump_at_ns = ahead_ns, wall_ns
            self._state_ns = self._event_ns = 0
        return wall_ns


class Health:
    """Faults by component (`camera`, `microphone`, `accelerator`, `outbox`, `disk`), progress and counters.

    `time` gives the times of all messages. May be used from any thread.
    """

    def __init__(self, stream_time: StreamTime | None = None) -> None:
        self.counters: Counter[str] = Counter()
        self.time = stream_time or StreamTime()
        self.since = self.time.now()
        self._listeners: list[Callable[[str, str, str], None]] = []
        self._faults: dict[str, frozenset[str]] = {}  # the reasons of each component
        self._deadlines_ns: dict[str, int] = {}
        self._lock = threading.RLock()

    def subscribe(self, listener: Callable[[str, str, str], None]) -> None:
        """Call `listener(component, reason, detail)` when the reasons of a component change.

        There is one call for each new reason, or for one that is left. When the last fault of the component
        ends, `reason` and `detail` are empty.
        """
        self._listeners.append(listener)

    def fault(self, component: str, reason: str, detail: str) -> None:
        """Record the only fault of a component; the same reason again is only counted."""
        self.set_faults(component, {reason: detail})

    def clear(self, component: str) -> None:
        """Record that a component works."""
        self.set_faults(component, {})

    def set_faults(self, component: str, faults: Mapping[str, str]) -> None:
        """Replace the faults of a component, each with its reason and a detail."""
        with self._lock:
            if faults:
                self.counters[f"{component}_faults"] += 1
            before, after = self._faults.get(component, frozenset()), frozenset(faults)
            if before == after:
                return
            self._faults[component] = after
            self.touch()
        begun = sorted(after - before)
        for reason in begun or sorted(after)[:1] or [""]:
            self._notify(component, reason, faults.get(reason, ""))

    def touch(self) -> None:
        """Set `since` to the present: the status changes."""
        self.since = self.time.now()

    def resume(self, newest: datetime | None) -> None:
        """Continue the times of an earlier process, whose newest event has the time `newest`."""
        self.time.resume(newest)
        self.touch()

    def check_time(self) -> None:
        """Report a system clock that was set back; call it every few seconds."""
        if back_s := self.time.set_back_s():
            detail = f"the system clock was set back by {back_s:.0f} s; check the time source"
            self.fault("time", "set_back", detail)
        else:
            self.clear("time")

    def _notify(self, component: str, reason: str, detail: str) -> None:
        for listener in self._listeners:
            listener(component, reason, detail)

    def progress(self, worker: str, *, limit_s: float = STUCK_S) -> None:
        """Record that a worker makes progress; waiting for a missing device is progress, too.

        The worker counts as stuck unless it calls this again within `limit_s`.
        """
        self._deadlines_ns[worker] = time.monotonic_ns() + int(limit_s * 1e9)

    def stuck(self) -> list[str]:
        """Return the names of the workers without progress within their limit, sorted."""
        now_ns = time.monotonic_ns()
        return sorted(name for name, t_ns in list(self._deadlines_ns.items()) if now_ns > t_ns)

    @property
    def reasons(self) -> list[str]:
        """The current faults as `component:reason`, sorted."""
        with self._lock:
            return sorted(f"{part}:{reason}" for part, reasons in self._faults.items() for reason in reasons)


def _utc(unix_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=unix_ns // 1000)
