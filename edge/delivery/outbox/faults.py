"""Reports to the device's health what is wrong with the outbox."""

from __future__ import annotations

import logging

from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.rows import Counts
from edge.errors import OutboxError
from edge.health import Health

log = logging.getLogger(__name__)


class OutboxFaults:
    """Keeps the faults of the outbox and reports the worst one, as `outbox:<reason>`.

    In this order: a disk that fails (`disk_full`, `read_only`, `locked`, `not_permitted`, `not_writable`);
    `dropping`, from the first dropped event until a tenth of the queue is free again; `corrupt`, while a
    damaged file that was set aside is still beside the outbox. `stalled` is reported by `report_stalled`.
    """

    def __init__(self, outbox: Outbox, health: Health) -> None:
        self._outbox = outbox
        self._health = health
        self._error: OutboxError | None = None  # of the disk
        self._dropped: int | None = None  # as counted last
        self._is_dropping = False
        self._reported = ""

    def disk_failed(self, error: OutboxError) -> None:
        """Note that the disk does not accept events."""
        self._error = error

    def disk_works(self) -> None:
        """Note that the disk accepts events."""
        self._error = None

    def check(self, now_s: float) -> None:
        """Test a disk that failed, drop expired events, notice dropped ones, and report."""
        try:
            self._outbox.expire(now_s)
            if self._error is not None:
                self._outbox.check()
            self._outbox.check_reads()
            counts = self._outbox.counts()
        except OutboxError as error:
            self.disk_failed(error)
        else:
            self.disk_works()
            self._notice_drops(counts)
        self.report()

    def report(self) -> None:
        """Report the worst fault, or that there is none."""
        aside = self._outbox.set_aside
        if self._error is not None:
            self._set(self._error.reason, str(self._error))
        elif self._is_dropping:
            self._set("dropping", "the oldest events are dropped: there is no room, or they are too old")
        elif aside is not None and aside.exists():
            self._set("corrupt", f"{aside}: a damaged outbox was set aside; move it away to clear this fault")
        else:
            self._set("", "")

    def report_stalled(self) -> None:
        """Report that a write to the disk does not end."""
        self._set("stalled", f"outbox.path {self._outbox.path}: a write does not end; check the disk")

    def _notice_drops(self, counts: Counts) -> None:
        if self._dropped is not None and counts.dropped > self._dropped:
            if not self._is_dropping:
                log.warning(
                    "outbox.path %s: the oldest events are dropped: there is no room, or they are too old; "
                    "check the connection to the broker; `emotion-edge outbox` counts them",
                    self._outbox.path,
                )
            self._is_dropping = True
        elif self._is_dropping and self._outbox.has_room(counts):
            self._is_dropping = False
            log.info("outbox.path %s: has room again", self._outbox.path)
        self._dropped = counts.dropped

    def _set(self, reason: str, detail: str) -> None:
        before, self._reported = self._reported, reason
        if reason and reason != before:
            self._health.fault("outbox", reason, detail)
        elif before and not reason:
            self._health.clear("outbox")
