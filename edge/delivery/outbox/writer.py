"""Collects events of all threads and appends them to the outbox: a slow disk never blocks a camera."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from edge.delivery.outbox.faults import OutboxFaults
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.errors import OutboxError
from edge.health import Health
from edge.values import EmotionEvent

log = logging.getLogger(__name__)

GATHER_S = 0.005  # events within this time are one commit: commits wear out a card, not bytes
MAX_QUEUED = 1000  # events in memory while a write does not end
LOCKED_S = 3.0  # how long events wait for another process to unlock the outbox
CHECK_S = 2.0


class OutboxWriter:
    """Takes events from any thread, appends them to the outbox in groups, and then wakes the publisher.

    `Outbox.append_many` writes to the disk; this class only decides when, on a thread of its own. An event
    counts from its commit on, about 5 ms after `record`: what a crash destroys before that has no sequence
    yet and leaves no gap. While the disk fails, events are published from memory, without `sequence`, and
    `OutboxFaults` reports the reason.
    """

    def __init__(
        self,
        outbox: Outbox,
        publisher: Publisher,
        health: Health,
        *,
        check_s: float = CHECK_S,
        locked_s: float = LOCKED_S,
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._faults = OutboxFaults(outbox, health)
        self._check_s = check_s
        self._locked_s = locked_s
        self._queue: list[EmotionEvent] = []
        self._changed = threading.Condition()  # guards `_queue` and `_is_closing`
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def record(self, events: Sequence[EmotionEvent]) -> list[EmotionEvent]:
        """Store and send the events that the publisher's policy permits, and return those; never blocks."""
        permitted = [event for event in events if self._publisher.permits_event(event.type)]
        with self._changed:
            space = max(0, MAX_QUEUED - len(self._queue))
            self._queue += permitted[:space]
            self._changed.notify()
        if space < len(permitted):
            self._publish_unsaved(permitted[space:])
            self._faults.report_stalled()
        return permitted

    @property
    def is_idle(self) -> bool:
        """Whether every recorded event was stored or published."""
        with self._changed:
            return not self._queue

    def close(self, timeout_s: float = 0.5) -> None:
        """Store what was recorded; give up after `timeout_s` if the disk hangs."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._faults.check(time.monotonic())
        next_check_s = time.monotonic() + self._check_s
        while True:
            with self._changed:
                if not self._queue and not self._is_closing:
                    self._changed.wait(self._check_s)
                if self._is_closing and not self._queue:
                    return
                is_closing = self._is_closing
            try:
                if self._queue:
                    if not is_closing:
                        time.sleep(GATHER_S)
                    self._append_queued()
                if time.monotonic() >= next_check_s:
                    next_check_s = time.monotonic() + self._check_s
                    self._faults.check(time.monotonic())
            except Exception:  # the outermost loop of the thread: one bad event must not end it
                log.exception("outbox: an event is lost to an internal error")

    def _append_queued(self) -> None:
        """Append all queued events to the outbox, or publish them from memory where that fails."""
        with self._changed:
            events = list(self._queue)
        deadline_s = time.monotonic() + self._locked_s
        while True:
            try:
                self._outbox.append_many(events)
                self._faults.disk_works()
                self._publisher.event_added()
                break
            except OutboxError as error:
                self._faults.disk_failed(error)
                if error.reason != "locked" or self._is_closing or time.monotonic() > deadline_s:
                    self._publish_unsaved(events)
                    break
                self._faults.report()
                time.sleep(GATHER_S)  # lets the sender use the outbox in between
            except Exception:
                if len(events) > 1:
                    events = events[:1]  # finds the bad event; the others stay queued
                    continue
                self._remove(1)  # it must not be tried again
                raise
        self._remove(len(events))
        self._faults.report()

    def _remove(self, count: int) -> None:
        with self._changed:
            del self._queue[:count]

    def _publish_unsaved(self, events: Sequence[EmotionEvent]) -> None:
        for event in events:
            self._publisher.publish_unsaved(event)
