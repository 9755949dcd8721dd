"""The sender's position in the outbox: which events to send next, and what the broker answered."""

from __future__ import annotations

import logging

from edge.delivery.mqtt.tuning import TUNING, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.rows import Row
from edge.errors import OutboxError
from edge.log_once import LogOnce
from edge.policy import OPEN, Policy

log = logging.getLogger(__name__)

MAX_RECORDED = 64  # acknowledgements in one transaction
WITHHELD_PAGE = 1000  # rows of an earlier context checked at a time; the outbox may have 100 000


class SendQueue:
    """Returns the events of the outbox in order; `restart` starts again with the oldest one left.

    An acknowledged event leaves the outbox when the connection has lasted `confirm_s` longer, or when the
    device closes the connection.

    Events in flight when a connection ends are sent again on the next one, however often that happens: only a
    reason code of the broker for this event, or its size, makes it a dead letter. An event that `policy` does
    not permit is never returned: it becomes a dead letter, `withheld`.
    After that the events go one at a time until one is accepted: mosquitto 2.0.11 closes the connection after
    a refused message, and what it has not read by then makes the network drop its reason code.
    Used by one thread.
    """

    def __init__(self, outbox: Outbox, *, policy: Policy = OPEN, tuning: Tuning = TUNING) -> None:
        self._outbox = outbox
        self._policy = policy
        self._confirm_s = tuning.confirm_s
        self._cursor = 0  # the last sequence handed out
        self._in_flight: set[int] = set()
        self._is_careful = False  # one event at a time, until one is accepted
        self._unconfirmed: dict[int, float] = {}  # acknowledged less than `confirm_s` ago, and when
        self._unrecorded: set[int] = set()  # acknowledged, but not yet written to the outbox
        self._log_once = LogOnce(log)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return not self._in_flight and not self._rows(1)

    @property
    def is_unsettled(self) -> bool:
        """Whether an answer is due, or one is not yet written to the outbox."""
        return bool(self._in_flight or self._unconfirmed or self._unrecorded)

    def restart(self) -> None:
        """Begin with the oldest event again, for a new connection."""
        self._cursor = 0
        self._is_careful = self._is_careful or bool(self._in_flight)
        self._in_flight.clear()
        self._unconfirmed.clear()

    def take(self, limit: int) -> list[Row]:
        """Return the next events, `limit` at most."""
        if self._is_careful:
            limit = min(limit, 1 - len(self._in_flight))
        found, rows = self._permitted_rows(limit), []
        if not found and limit > 0 and self._was_changed():
            self._cursor = 0  # `emotion-edge outbox retry` puts old numbers back
            found = self._permitted_rows(limit)
        for row in found:
            self._cursor = row.sequence
            if any(row.sequence in known for known in (self._unrecorded, self._unconfirmed, self._in_flight)):
                continue
            self._in_flight.add(row.sequence)
            rows.append(row)
        return rows

    def give_back(self, rows: list[Row]) -> None:
        """Return rows that `take` returned last, unsent: the next `take` begins with them."""
        if rows:
            self._cursor = rows[0].sequence - 1
            self._in_flight.difference_update(row.sequence for row in rows)

    def settle(self, sequence: int, refusal: str | None, *, now_s: float) -> None:
        """Note the broker's answer to one event: None, or why it was refused."""
        self._in_flight.discard(sequence)
        if refusal:
            self._refuse([sequence], refusal)
        else:
            self._is_careful = False
            self._unconfirmed[sequence] = now_s

    def record(self, now_s: float) -> None:
        """Write confirmed acknowledgements to the outbox, or keep them in memory if the disk fails.

        `now_s` is infinite where the device closed the connection.
        """
        acked = self._unconfirmed.items()
        due = [sequence for sequence, acked_s in acked if now_s - acked_s >= self._confirm_s]
        for sequence in due:
            del self._unconfirmed[sequence]
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

    def _rows(self, limit: int) -> list[Row]:
        try:
            return self._outbox.waiting(limit, after=self._cursor) if limit > 0 else []
        except OutboxError:  # `OutboxWriter` reports a disk that fails
            return []

    def _permitted_rows(self, limit: int) -> list[Row]:
        """Return up to `limit` of the next permitted rows; the others on the way become dead letters.

        An empty list means that no permitted row is left.
        """
        page = limit
        while found := self._rows(page):
            permitted = [row for row in found if self._policy.permits_stored(row.payload)]
            if len(permitted) < len(found):
                kept = {row.sequence for row in permitted}
                self._refuse([row.sequence for row in found if row.sequence not in kept], "withheld")
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
        sentence = "event %d refused (%s); `emotion-edge outbox` lists all refused events"
        self._log_once.report("refusal", reason, sentence, sequences[0], reason)
        try:
            self._outbox.refuse_many(sequences, reason)
        except OutboxError as error:
            log.debug("event %d stays in the outbox: %s", sequences[0], error)
