"""The sender's place in the outbox: which events go next, and what became of those that went."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge.delivery.outbox.queue import Outbox, Row
from edge.errors import OutboxError

log = logging.getLogger(__name__)

MAX_LOSSES = 5  # connections that one event may end before it counts as refused
# mosquitto acknowledges first and writes to its disk right after, even with `autosave_on_changes`: killed in
# between, it has forgotten what it acknowledged. What it survived by so much is safe.
CONFIRM_S = 1.0
MAX_RECORDED = 64  # acknowledgements in one transaction
WITHHELD_PAGE = 1000  # rows of a former context looked through at a time: a slow card has 100 000 to go
NOT_ITS_FAULT = ("no_ack", "keep_alive_timeout")  # a silent broker says nothing about the event


class SendQueue:
    """Hands out the outbox in order, and after `restart` again what was not acknowledged, or only just.

    An acknowledgement counts once the connection has lasted `CONFIRM_S` longer, or was ended by us.

    An event on which connections end is sent alone the next time, so that it can be told from its
    neighbours, and becomes a dead letter after `MAX_LOSSES`: it must not stand at the head for ever.
    One whose payload `permits` denies is never handed out, but becomes a dead letter, `withheld`.
    Used by one thread.
    """

    def __init__(self, outbox: Outbox, *, permits: Callable[[bytes], bool] = lambda _payload: True) -> None:
        self._outbox = outbox
        self._permits = permits
        self._cursor = 0  # the last sequence handed out
        self._in_flight: set[int] = set()
        self._fresh: dict[int, float] = {}  # acknowledged less than CONFIRM_S ago, and when
        self._unrecorded: set[int] = set()  # acknowledged for good, but the disk did not take it yet
        self._suspect = 0
        self._losses = 0
        self._told = ""  # the reason of the last refusal, which the log has

    @property
    def is_idle(self) -> bool:
        """Tell whether nothing is in flight and nothing waits."""
        return not self._in_flight and not self._rows(1)

    @property
    def is_unsettled(self) -> bool:
        """Tell whether an answer is awaited, or one has not been written to the outbox yet."""
        return bool(self._in_flight or self._fresh or self._unrecorded)

    def restart(self) -> None:
        """Begin with the oldest event again, for a new connection."""
        self._cursor = 0
        self._in_flight.clear()
        self._fresh.clear()

    def take(self, limit: int, *, max_bytes: int) -> list[Row]:
        """Return the next events, `limit` at most; refuse those whose payload is above `max_bytes`."""
        if self._suspect:
            limit = min(limit, 0 if self._in_flight else 1)
        found, rows = self._permitted_rows(limit), []
        if not found and limit > 0 and self._was_changed():
            self._cursor = 0  # `emotion-edge outbox retry` puts old numbers back
            found = self._permitted_rows(limit)
        for row in found:
            self._cursor = row.sequence
            if any(row.sequence in known for known in (self._unrecorded, self._fresh, self._in_flight)):
                continue
            if len(row.payload) > max_bytes:
                self._refuse([row.sequence], "packet_too_large")
                continue
            self._in_flight.add(row.sequence)
            rows.append(row)
        return rows

    def settle(self, sequence: int, refusal: str | None, *, now_s: float) -> None:
        """Note the broker's answer to one event: None, or why it was refused."""
        self._in_flight.discard(sequence)
        if sequence >= self._suspect:
            self._suspect = self._losses = 0
        if refusal:
            self._refuse([sequence], refusal)
        else:
            self._fresh[sequence] = now_s

    def record(self, now_s: float) -> None:
        """Write what was acknowledged for good to the outbox; keep it in mind where that fails.

        `now_s` is infinite where the connection was ended by us.
        """
        due = [sequence for sequence, acked_s in self._fresh.items() if now_s - acked_s >= CONFIRM_S]
        for sequence in due:
            del self._fresh[sequence]
        self._unrecorded.update(due)
        if not self._unrecorded:
            return
        sequences = sorted(self._unrecorded)
        try:
            # A few at a time: each transaction needs room in the log, of which a full disk has little.
            for start in range(0, len(sequences), MAX_RECORDED):
                some = sequences[start : start + MAX_RECORDED]
                self._outbox.acknowledge(some)
                self._unrecorded.difference_update(some)
        except OutboxError as error:
            log.debug("%d acknowledgements wait for the disk: %s", len(self._unrecorded), error)

    def lose(self, reason: str) -> None:
        """Note that the connection ended, for `reason`, with what is in flight unanswered."""
        if not self._in_flight or reason in NOT_ITS_FAULT:
            return
        head = min(self._in_flight)
        self._losses = self._losses + 1 if head == self._suspect else 1
        self._suspect = head
        if self._losses >= MAX_LOSSES:
            self._refuse([head], f"connection_lost:{reason}")
            self._suspect = self._losses = 0

    def _rows(self, limit: int) -> list[Row]:
        try:
            return self._outbox.waiting(limit, after=self._cursor) if limit > 0 else []
        except OutboxError:  # whoever appends next hears of it
            return []

    def _permitted_rows(self, limit: int) -> list[Row]:
        """Return up to `limit` next rows that may leave, none only where there is none; put others aside."""
        page = limit
        while found := self._rows(page):
            permitted = [row for row in found if self._permits(row.payload)]
            if len(permitted) < len(found):
                self._refuse([row.sequence for row in found if not self._permits(row.payload)], "withheld")
            if permitted:
                return permitted[:limit]
            self._cursor = found[-1].sequence
            page = WITHHELD_PAGE
        return []

    def _was_changed(self) -> bool:
        try:
            return self._outbox.was_changed_by_others()
        except OutboxError:
            return False

    def _refuse(self, sequences: list[int], reason: str) -> None:
        if reason != self._told:
            log.warning(
                "event %d refused (%s); `emotion-edge outbox` lists all refused", sequences[0], reason
            )
        self._told = reason
        try:
            self._outbox.refuse_many(sequences, reason)
        except OutboxError as error:
            log.debug("event %d stays in the outbox: %s", sequences[0], error)
