"""Wakes a thread that waits for the network."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class WakeUp:
    """An eventfd: `set`, from any thread, ends the poll of the thread that waits for `fileno()`."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the file descriptor, which is readable after `set`."""
        return self._fd

    def set(self) -> None:
        """Wake the waiting thread, now or at its next wait; does nothing after `close`."""
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Forget earlier calls of `set`; for the waiting thread."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def close(self) -> None:
        """Close the file descriptor, once no thread waits for it; may be called twice."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
