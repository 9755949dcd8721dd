"""Runs one camera or microphone: opened, read, opened again when it fails, closed while it is off."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from edge.backoff import backoff_s
from edge.errors import DeviceError
from edge.health import Health
from edge.sources.driver_threads import TRIES, FailureCounter
from edge.values import Source

log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker(Generic[T]):
    """One device on a thread of its own; faults go to `Health`, never to a caller.

    `when_off` is called on that thread, once what was read is handled and the device is closed;
    `when_stuck` when its driver hangs for good, so that only a new process can open the device.
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[], Source[T]],
        handle: Callable[[T], None],
        health: Health,
        *,
        is_on: bool = True,
        when_off: Callable[[], None] = lambda: None,
        when_stuck: Callable[[DeviceError], None] = lambda _error: None,
    ) -> None:
        self._name = name
        self._opener = opener
        self._handle = handle
        self._health = health
        self._when_off = when_off
        self._when_stuck = when_stuck
        self._strikes = FailureCounter(name)
        self._is_on = is_on
        self._stop = threading.Event()
        self._changed = threading.Event()  # switched or stopped: ends every pause
        self._source: Source[T] | None = None
        self._had_items = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with the device closed where it is off."""
        self._health.progress(self._name)
        self._thread.start()

    def switch(self, is_on: bool) -> None:
        """Close the device and leave it alone, or open it again; from any thread but the worker's own."""
        if is_on == self._is_on:
            return
        self._is_on = is_on
        self._changed.set()
        if not is_on:
            self._close_source()

    def close(self) -> None:
        """Close the device and wait a little; a driver that hangs is left behind."""
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
                # What is off on purpose is not degraded.
                self._health.clear(self._name)
                self._when_off()
                self._pause(float("inf"))
                attempt = 0
                continue
            self._had_items = False
            reason, detail = self._attempt()
            if not self._may_read():
                continue
            if reason == "ended":
                log.info("%s", detail)
                self._health.fault(self._name, reason, detail)
                self._pause(float("inf"))
                continue
            if reason == "absent":
                log.debug("%s", detail)  # `auto` without any device; what was there and is gone stays a fault
            else:
                log.log(logging.DEBUG if self._is_known(reason) else logging.WARNING, "%s", detail)
                self._health.fault(self._name, reason, detail)
            if self._strikes.failed():
                self._when_stuck(DeviceError(f"{detail}; its driver hangs, given up after {TRIES} tries"))
            # A muted microphone is listened to again at once, or the first sentence would be lost.
            attempt = 0 if self._had_items or reason == "silent" else attempt + 1
            self._pause(backoff_s(attempt))

    def _attempt(self) -> tuple[str, str]:
        """Read until the device ends or fails; return why, as a code and as a sentence."""
        try:
            self._read()
        except DeviceError as error:
            return error.reason, str(error)
        except Exception as error:  # outermost loop: one bad frame must not end a modality for good
            log.exception("%s: failed on an error of our own", self._name)
            return "internal", f"{self._name}: {type(error).__name__}"
        return "ended", f"{self._name}: the recording is over"

    def _read(self) -> None:
        self._source = source = self._opener()
        try:
            if not self._may_read():  # switched off while it was being opened
                return
            for item in source:
                if not self._may_read():
                    break
                self._handle(item)
                self._had_items = True
                self._health.progress(self._name)
                self._health.clear(self._name)
        finally:
            source.close()
            self._source = None

    def _is_known(self, reason: str) -> bool:
        return f"{self._name}:{reason}" in self._health.reasons

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt, or until switched or stopped, still making progress."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._health.progress(self._name)
            if self._changed.wait(min(1.0, left_s)):
                break
        self._changed.clear()
