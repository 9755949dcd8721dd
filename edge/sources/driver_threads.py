"""Calls drivers on threads of their own, so that a call that never returns can be abandoned.

A thread that waits in a driver cannot be stopped. It is abandoned and the device is opened again. After
`TRIES` failures while such a thread hangs, only a new process helps: the daemon exits with code 5.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from edge.errors import DeviceError

CALL_S = 10.0  # to open a device; a Pi camera, or PortAudio on a slow card, takes up to 4 s
CLOSE_S = 0.4  # to close a device; the daemon has 2 s to stop
LATE_S = 2.0  # after which an abandoned call counts as hanging; before, it is only slow
TRIES = 3

T = TypeVar("T")


class DriverThread(threading.Thread):
    """A thread that calls the driver of a `kind` of device, `camera` or `microphone`."""

    def __init__(self, kind: str, work: Callable[[], None]) -> None:
        super().__init__(target=work, name=f"{kind}-driver", daemon=True)
        self.kind = kind
        self.abandoned_s: float | None = None

    def leave(self, wait_s: float = CLOSE_S) -> None:
        """Wait up to `wait_s` for its end, then abandon it."""
        if threading.current_thread() is not self:
            self.join(wait_s)
            self.abandoned_s = time.monotonic()


def is_hanging(kind: str | None = None, *, for_s: float = 0.0) -> bool:
    """Return whether a call abandoned at least `for_s` ago still runs, for one kind of device or any."""
    limit_s = time.monotonic() - for_s
    return any(
        isinstance(thread, DriverThread)
        and kind in (None, thread.kind)
        and thread.abandoned_s is not None
        and thread.abandoned_s <= limit_s
        for thread in threading.enumerate()
    )


def call_with_timeout(kind: str, name: str, work: Callable[[], T], *, limit_s: float | None = None) -> T:
    """Run `work` on a thread of its own; return its result or raise its error.

    After `limit_s` (default `CALL_S`) the call is abandoned and `DeviceError` with the reason `stuck` is
    raised. A source that the call still opens later is closed, so that it does not hold the device.
    """
    limit_s = CALL_S if limit_s is None else limit_s
    future: Future[T] = Future()

    def run() -> None:
        result: Any = None
        error = None
        try:
            result = work()
        except Exception as raised:  # handed to the caller
            error = raised
        if future.set_running_or_notify_cancel():
            future.set_exception(error) if error else future.set_result(result)
        elif hasattr(result, "close"):
            result.close()

    thread = DriverThread(kind, run)
    thread.start()
    try:
        return future.result(limit_s)
    except FutureTimeoutError:
        if not future.cancel():
            return future.result()
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
        """Count a failure; return whether it was the last try."""
        # The failure that abandoned the call counts, too.
        self._count = max(1, self._count) + 1 if is_hanging(self._kind, for_s=LATE_S) else 0
        return self._count >= TRIES
