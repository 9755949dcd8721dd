"""Keeps the current faults, the progress of the threads, and the counters of the daemon."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

STUCK_S = 15.0


class Health:
    """Faults by component (`camera`, `microphone`, `accelerator`, `outbox`, `disk`), progress and counters.

    May be used from any thread.
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self.since = datetime.now(UTC)
        self._listeners: list[Callable[[str, str, str], None]] = []
        self._faults: dict[str, str] = {}
        self._deadlines_ns: dict[str, int] = {}
        self._lock = threading.RLock()

    def subscribe(self, listener: Callable[[str, str, str], None]) -> None:
        """Call `listener(component, reason, detail)` when a fault begins or its reason changes.

        When the fault ends, `reason` and `detail` are empty.
        """
        self._listeners.append(listener)

    def fault(self, component: str, reason: str, detail: str) -> None:
        """Record that a component does not work; the same reason again is only counted."""
        with self._lock:
            self.counters[f"{component}_faults"] += 1
            if self._faults.get(component) == reason:
                return
            self._faults[component] = reason
            self.since = datetime.now(UTC)
        self._notify(component, reason, detail)

    def clear(self, component: str) -> None:
        """Record that a component works."""
        with self._lock:
            if self._faults.pop(component, None) is None:
                return
            self.since = datetime.now(UTC)
        self._notify(component, "", "")

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
            return sorted(f"{component}:{reason}" for component, reason in self._faults.items())
