"""Writes events into the outbox on a thread of its own, so that a slow disk never holds up a camera."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.errors import OutboxError
from edge.health import Health
from edge.values import EmotionEvent

log = logging.getLogger(__name__)

GATHER_S = 0.005  # what comes within this is one commit: cards wear out by commits, not by bytes
MAX_QUEUED = 1000  # events that wait for a disk which hangs
LOCKED_S = 3.0  # how long events wait for another process to let go of the outbox
CHECK_S = 2.0


class OutboxWriter:
    """Takes events from any thread at once; stores them together, and only then has them sent.

    An event exists from its commit on, 5 ms and one write of the disk after it was noticed: what a crash
    takes before that had no number yet and leaves no gap. While the disk does not take them, events are
    published from memory, without `sequence`, and the health says why: `outbox:` `disk_full`, `read_only`,
    `locked`, `not_permitted`, `not_writable` or `stalled`. `dropping` means that the oldest events had to
    go since there was no room, until a tenth of the queue is free again; `corrupt` that a damaged file was
    set aside, until it is no longer beside the outbox.
    """

    def __init__(self, outbox: Outbox, publisher: Publisher, health: Health) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._health = health
        self._queue: list[EmotionEvent] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._fault: tuple[str, str] | None = None  # of the disk: reason and sentence
        self._dropped: int | None = None  # as the counts said last
        self._is_dropping = False
        self._told = ""
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

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
            self._show("stalled", f"outbox.path {self._outbox.path}: a write does not end; check the disk")
        return permitted

    def close(self, timeout_s: float = 0.5) -> None:
        """Write what was taken; a disk that hangs is left behind."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._check()
        next_check_s = time.monotonic() + CHECK_S
        while True:
            with self._changed:
                if not self._queue and not self._is_closing:
                    self._changed.wait(CHECK_S)
                if self._is_closing and not self._queue:
                    return
                is_closing = self._is_closing
            try:
                if self._queue:
                    if not is_closing:
                        time.sleep(GATHER_S)
                    self._store()
                if time.monotonic() >= next_check_s:
                    next_check_s = time.monotonic() + CHECK_S
                    self._check()
            except Exception:  # outermost loop: one bad event must not end all recording
                log.exception("outbox: an event is lost to an error of our own")

    def _store(self) -> None:
        """Store all that is queued, or publish it from memory where that does not work."""
        with self._changed:
            events = list(self._queue)
        deadline_s = time.monotonic() + LOCKED_S
        while True:
            try:
                self._outbox.append_many(events)
                self._fault = None
                self._publisher.event_added()
                break
            except OutboxError as error:
                self._fault = (error.reason, str(error))
                if error.reason != "locked" or self._is_closing or time.monotonic() > deadline_s:
                    self._publish_unsaved(events)
                    break
                self._tell()
                time.sleep(GATHER_S)  # lets the sender have the outbox in between
            except Exception:
                if len(events) > 1:
                    events = events[:1]  # finds the one that is wrong; the others stay queued
                    continue
                self._take(1)  # it must not come again
                raise
        self._take(len(events))
        self._tell()

    def _take(self, count: int) -> None:
        with self._changed:
            del self._queue[:count]

    def _publish_unsaved(self, events: Sequence[EmotionEvent]) -> None:
        for event in events:
            self._publisher.publish_unsaved(event)

    def _check(self) -> None:
        """See whether a broken disk works again, let old events go, and notice what was dropped."""
        try:
            self._outbox.expire(time.monotonic())
            if self._fault is not None:
                self._outbox.check()
                self._fault = None
            counts = self._outbox.counts()
        except OutboxError as error:
            self._fault = (error.reason, str(error))
        else:
            if self._dropped is not None and counts.dropped > self._dropped:
                if not self._is_dropping:
                    log.warning(
                        "outbox.path %s: the oldest events are dropped, for want of room or for their "
                        "age; is the broker away? `emotion-edge outbox` counts them",
                        self._outbox.path,
                    )
                self._is_dropping = True
            elif self._is_dropping and self._outbox.has_room(counts):
                self._is_dropping = False
                log.info("outbox.path %s: has room again", self._outbox.path)
            self._dropped = counts.dropped
        self._tell()

    def _tell(self) -> None:
        """Show the worst of what is wrong."""
        aside = self._outbox.set_aside
        if self._fault is not None:
            self._show(*self._fault)
        elif self._is_dropping:
            self._show(
                "dropping", "the oldest events are dropped, since there is no room or they are too old"
            )
        elif aside is not None and aside.exists():
            self._show("corrupt", f"{aside}: a damaged outbox was set aside; move it away to end this")
        else:
            self._show("", "")

    def _show(self, reason: str, sentence: str) -> None:
        before, self._told = self._told, reason
        if reason and reason != before:
            self._health.fault("outbox", reason, sentence)
        elif before and not reason:
            self._health.clear("outbox")
