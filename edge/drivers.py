"""Calls into drivers on threads of their own: one that does not return is left behind and counted.

Nothing can stop a thread that waits in a driver. It is abandoned, the device is tried again, and after
`TRIES` failures while such a thread hangs only a new process helps: the daemon leaves with exit code 5.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

from edge.errors import DeviceError
from edge.values import Source

CALL_S = 10.0  # to open a device; a Pi camera or PortAudio on a slow card takes up to four
CLOSE_S = 0.4  # what closing may wait; the daemon has two seconds to stop
TRIES = 3

T = TypeVar("T")


class DriverThread(threading.Thread):
    """A thread that talks to the driver of a `kind` of device, `camera` or `microphone`."""

    def __init__(self, kind: str, work: Callable[[], None]) -> None:
        super().__init__(target=work, name=f"{kind}-driver", daemon=True)
        self.kind = kind
        self.is_abandoned = False

    def leave(self, wait_s: float = CLOSE_S) -> None:
        """Wait a little for its end; what then still runs is abandoned."""
        if threading.current_thread() is not self:
            self.join(wait_s)
            self.is_abandoned = True


def is_hanging(kind: str | None = None) -> bool:
    """Tell whether an abandoned call has not come back yet, of one kind of device or of any."""
    return any(
        isinstance(thread, DriverThread) and thread.is_abandoned and kind in (None, thread.kind)
        for thread in threading.enumerate()
    )


def within(kind: str, name: str, work: Callable[[], T], *, limit_s: float | None = None) -> T:
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


class Strikes:
    """Counts the failures of one device while a call to its driver hangs."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._count = 0

    def failed(self) -> bool:
        """Note a failure; True when it is the last one that is worth a new try."""
        self._count = self._count + 1 if is_hanging(self._kind) else 0
        return self._count >= TRIES


def opened(kind: str, name: str, opener: Callable[[], Source[T]]) -> Source[T]:
    """Return the source that `opener` opens, as `within`."""
    return within(kind, name, opener)
