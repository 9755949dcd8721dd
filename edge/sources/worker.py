"""Runs one camera or microphone: opens it, reads it, reopens it after a fault, closes it while it is off."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from edge.backoff import backoff_s
from edge.errors import DeviceError
from edge.health import Health
from edge.sources.driver_threads import TRIES, FailureCounter
from edge.values import Source

log = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Handler(Protocol[T_contra]):
    """Processes the items of one device; both methods run on the worker's thread."""

    def handle(self, item: T_contra, /) -> None:
        """Process one frame or audio chunk."""

    def forget(self) -> None:
        """Drop everything that depends on earlier items: the device is switched off and closed."""


class Worker(Generic[T]):
    """One device on a thread of its own; its faults are recorded in `Health` and never raised.

    `on_stuck` is called when its driver hangs for good, so that only a new process can open the device.
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[], Source[T]],
        handler: Handler[T],
        health: Health,
        *,
        is_on: bool = True,
        on_stuck: Callable[[DeviceError], None] = lambda _error: None,
    ) -> None:
        self._name = name
        self._opener = opener
        self._handler = handler
        self._health = health
        self._on_stuck = on_stuck
        self._failures = FailureCounter(name)
        self._is_on = is_on
        self._stop = threading.Event()
        self._changed = threading.Event()  # switched or stopped: ends every pause
        self._source: Source[T] | None = None
        self._had_items = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; the device stays closed while it is switched off."""
        self._health.progress(self._name)
        self._thread.start()

    def switch(self, is_on: bool) -> None:
        """Close the device and keep it closed, or open it again; from any thread but the worker's own."""
        if is_on == self._is_on:
            return
        self._is_on = is_on
        self._changed.set()
        if not is_on:
            self._close_source()

    def close(self) -> None:
        """Close the device and wait up to 0.5 s for the thread; a driver that hangs is abandoned."""
        self._stop.set()
        self._changed.set()
        self._close_source()
        self._thread.join(0.5)

    def _close_source(self) -> None:
        if (source := self._source) is not None:
            source.close()

    def _may_read(self) -> bool:
        return self._is_on and not self._stop.is_set()

    def _run(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            if not self._is_on:
                # A device that is switched off is not degraded.
                self._health.clear(self._name)
                self._handler.forget()
                self._pause(float("inf"))
                attempt = 0
                continue
            self._had_items = False
            reason, detail = self._attempt()
            if not self._may_read():
                continue
            self._report(reason, detail)
            if reason == "ended":
                self._pause(float("inf"))
                continue
            if self._failures.add():
                self._on_stuck(DeviceError(f"{detail}; its driver hangs, given up after {TRIES} tries"))
            # Reopen a muted microphone at once: a pause would lose the first sentence after it.
            attempt = 0 if self._had_items or reason == "silent" else attempt + 1
            self._pause(backoff_s(attempt))

    def _attempt(self) -> tuple[str, str]:
        """Read until the device ends or fails; return the reason code and a sentence."""
        try:
            self._read()
        except DeviceError as error:
            return error.reason, str(error)
        except Exception as error:  # outermost loop: one bad item must not end the modality for good
            log.exception("%s: internal error", self._name)
            return "internal", f"{self._name}: {type(error).__name__}"
        return "ended", f"{self._name}: the recording is over"

    def _read(self) -> None:
        self._source = source = self._opener()
        try:
            if not self._may_read():  # switched off while the driver opened it
                return
            for item in source:
                if not self._may_read():
                    break
                self._handler.handle(item)
                self._had_items = True
                self._health.progress(self._name)
                self._health.clear(self._name)
        finally:
            source.close()
            self._source = None

    def _report(self, reason: str, detail: str) -> None:
        """Log why reading ended and record the fault; `auto` without any device is not a fault."""
        if reason == "absent":
            log.debug("%s", detail)
            return
        is_known = f"{self._name}:{reason}" in self._health.reasons
        level = logging.INFO if reason == "ended" else logging.DEBUG if is_known else logging.WARNING
        log.log(level, "%s", detail)
        self._health.fault(self._name, reason, detail)

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, or until switched or stopped, and report progress meanwhile."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._health.progress(self._name)
            if self._changed.wait(min(1.0, left_s)):
                break
        self._changed.clear()
