"""Calls into drivers on threads of their own: one that does not return is left behind and counted.

Nothing can stop a thread that waits in a driver. It is abandoned, the device is tried again, and after
`TRIES` failures while such a thread hangs only a new process helps: the daemon leaves with exit code 5.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

from edge.errors import DeviceError

CALL_S = 10.0  # to open a device; a Pi camera or PortAudio on a slow card takes up to four
CLOSE_S = 0.4  # what closing may wait; the daemon has two seconds to stop
LATE_S = 2.0  # until then an abandoned call is only slow
TRIES = 3

T = TypeVar("T")


class DriverThread(threading.Thread):
    """A thread that talks to the driver of a `kind` of device, `camera` or `microphone`."""

    def __init__(self, kind: str, work: Callable[[], None]) -> None:
        super().__init__(target=work, name=f"{kind}-driver", daemon=True)
        self.kind = kind
        self.abandoned_s: float | None = None

    def leave(self, wait_s: float = CLOSE_S) -> None:
        """Wait a little for its end; what then still runs is abandoned."""
        if threading.current_thread() is not self:
            self.join(wait_s)
            self.abandoned_s = time.monotonic()


def is_hanging(kind: str | None = None, *, for_s: float = 0.0) -> bool:
    """Tell whether a call that was abandoned `for_s` ago has not come back, of one kind of device or any."""
    limit_s = time.monotonic() - for_s
    return any(
        isinstance(thread, DriverThread)
        and kind in (None, thread.kind)
        and thread.abandoned_s is not None
        and thread.abandoned_s <= limit_s
        for thread in threading.enumerate()
    )


def call_with_timeout(kind: str, name: str, work: Callable[[], T], *, limit_s: float | None = None) -> T:
    """Return what `work` returns on a thread of its own, or raise what it raises.

    After `limit_s` (else `CALL_S`) it is abandoned: `DeviceError` with the reason `stuck`. A source that
    it opens too late is closed, or it would hold the device for ever.
    """
    limit_s = CALL_S if limit_s is None else limit_s
    answer: Future[T] = Future()

    def run() -> None:
        result: Any = None
        error = None
        try:
            result = work()
        except Exception as raised:  # handed to the caller
            error = raised
        if answer.set_running_or_notify_cancel():
            answer.set_exception(error) if error else answer.set_result(result)
        elif hasattr(result, "close"):
            result.close()

    thread = DriverThread(kind, run)
    thread.start()
    try:
        return answer.result(limit_s)
    except NotYet:
        if not answer.cancel():
            return answer.result()
    thread.leave(0)
    raise DeviceError(
        f"{name}: its driver has not answered for {limit_s:g} s; connect it again", reason="stuck"
    )


class FailureCounter:
    """Counts the failures of one device while a call to its driver hangs."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._count = 0

    def add(self) -> bool:
        """Note a failure; True when it was the last one that was worth a try."""
        # The failure that the call began with counts, too.
        self._count = max(1, self._count) + 1 if is_hanging(self._kind, for_s=LATE_S) else 0
        return self._count >= TRIES
