"""The queue on disk between the daemon and the broker: no crash loses an event that is in it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from edge.delivery.outbox.ages import AgeMarks
from edge.delivery.outbox.file import OutboxFile, reason_of
from edge.delivery.outbox.high_water_mark import HighWaterMark
from edge.delivery.outbox.rows import (
    Counts,
    Refused,
    Row,
    check_consistency,
    checksum,
    corrupt,
    is_intact,
    read_last_sequence,
    read_totals,
)
from edge.delivery.outbox.write_ahead_log import PAGE_BYTES
from edge.errors import OutboxError
from edge.settings import OutboxSettings
from edge.values import EmotionEvent, encode, rfc3339

log = logging.getLogger(__name__)

MAX_REFUSED = 1000  # dead letters kept; the count of refusals goes on
MAX_DONE = 1000  # ids of delivered events that are recognised when they are appended again
RESERVE_BYTES = 256 << 10  # free space below which the queue stops growing: deleting needs room in the log
SPARE_BYTES = 64 << 10  # size that the queue may have even then


P = ParamSpec("P")
R = TypeVar("R")


def _guarded(method: Callable[Concatenate[Outbox, P], R]) -> Callable[Concatenate[Outbox, P], R]:
    """Run `method` under the lock, on an open database; replace a corrupt file once."""

    def run(self: Outbox, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._file.run(lambda: method(self, *args, **kwargs))

    return run


class Outbox:
    """Events in the order in which they happened, each with a gapless `sequence`, until acknowledged.

    An `append` that returned survives kill -9 and power loss (WAL, synchronous=FULL). The number of an
    event is AUTOINCREMENT's own counter plus one, read and written in the transaction of the insert, so
    neither a rollback nor a deleted row leaves a hole or gives a number twice.

    Bounded by `max_events`, by `max_bytes` (of payloads), by a disk that is almost full, and by `max_age_s`
    (see `AgeMarks`): the oldest events are dropped and counted, in one transaction with the events that
    replace them. Of the dead letters the newest `max_refused` are kept.

    All methods may be called from any thread. They raise `OutboxError`, whose `reason` is `disk_full`,
    `read_only`, `locked`, `not_permitted` or `not_writable`, after a quarter of a second at most, and work
    again when the disk does. A damaged row becomes a dead letter, `corrupt`; it is never returned by
    `waiting`. A damaged file is set aside as `<name>.corrupt-<UTC time>`, which `set_aside` names, and a new
    one continues with all rows that can be read. `sequence` then continues after the newest one of this
    process or, at its start, above the `HighWaterMark`.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str,
        max_events: int,
        max_bytes: int,
        max_age_s: float = 0.0,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        self.path = path
        self._device = device
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_refused = max_refused
        self._last = 0  # the newest sequence that this process gave or read
        self._mark = HighWaterMark(path)
        self._file = OutboxFile(path, mark=self._mark, on_open=self._resume)
        self._failed_read: tuple[int, int] | None = None  # limit and position of a read that failed
        self._ages = AgeMarks(self._file, max_age_s=max_age_s)
        # A disk that is full at boot must not stop the daemon: the first append reports it.
        with suppress(OutboxError):
            self.counts()

    @property
    def set_aside(self) -> Path | None:
        """The corrupt file that this process set aside last."""
        return self._file.set_aside

    @property
    def newest_time(self) -> datetime | None:
        """The time of the last event, or a later one that was stored; None if it is not known."""
        with suppress(OutboxError, ValueError):
            time = datetime.fromisoformat(self._newest())
            return time if time.tzinfo is not None else None  # without a zone it is damaged
        return None

    def append(self, event: EmotionEvent) -> int:
        """Write one event to disk and return its sequence; the same id again returns the first one."""
        return self.append_many([event])[0]

    @_guarded
    def append_many(self, events: Sequence[EmotionEvent]) -> list[int]:
        """Write events to disk in one transaction, all or none; return their sequences."""
        try:
            sequences = self._write_all(events)
        except sqlite3.OperationalError as error:
            if reason_of(error) != "disk_full":
                raise
            self._file.checkpoint()
            with self._file.transaction(durable=False):
                totals = self._totals()
                self._trim(totals, max_bytes=totals["waiting_bytes"] * 9 // 10)
                self._save(totals)
            sequences = self._write_all(events)
        self._last = max([self._last, *sequences])
        return sequences

    def waiting(self, limit: int, after: int = 0) -> list[Row]:
        """Return up to `limit` events with a sequence above `after`, oldest first."""
        try:
            rows = self._waiting(limit, after)
        except OutboxError:
            self._failed_read = limit, after
            raise
        self._failed_read = None
        return rows

    def check_reads(self) -> None:
        """Try a read again that failed; raise `OutboxError` while it fails."""
        if self._failed_read is not None:
            self.waiting(*self._failed_read)

    @_guarded
    def _waiting(self, limit: int, after: int) -> list[Row]:
        while True:
            rows = self._file.execute(
                "SELECT sequence, id, payload, checksum FROM events WHERE sequence > ? "
                "ORDER BY sequence LIMIT ?",
                after,
                limit,
            ).fetchall()
            damaged = [row[0] for row in rows if not is_intact(*row)]
            if not damaged:
                return [Row(*row[:3]) for row in rows]
            self._refuse_damaged(damaged)

    @_guarded
    def was_changed_by_others(self) -> bool:
        """Return whether another process wrote since the last call: it may have put events back."""
        return self._file.was_changed_by_others()

    @_guarded
    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Delete events that the broker acknowledged; unknown sequences are ignored.

        Not synced to the disk: events that reappear after a power loss are sent twice, which at-least-once
        allows.
        """
        with self._file.transaction(durable=False):
            totals = self._totals()
            for sequence in sequences:
                self._file.execute(
                    "INSERT OR REPLACE INTO done SELECT sequence, id FROM events WHERE sequence = ?", sequence
                )
                self._delete(sequence, totals)
            self._save(totals)
            self._file.execute(
                "DELETE FROM done WHERE sequence <= (SELECT max(sequence) FROM done) - ?", MAX_DONE
            )

    def refuse(self, sequence: int, reason: str) -> None:
        """Move one event to the dead letters."""
        self.refuse_many([sequence], reason)

    @_guarded
    def refuse_many(self, sequences: Iterable[int], reason: str) -> None:
        """Move events to the dead letters in one transaction."""
        with self._file.transaction():
            totals = self._totals()
            for sequence in sequences:
                self._refuse(sequence, reason, totals)
            self._save(totals)
            # By sequence and not by time, since a clock may jump back.
            self._file.execute(
                "DELETE FROM refused WHERE sequence NOT IN "
                "(SELECT sequence FROM refused ORDER BY sequence DESC LIMIT ?)",
                self._max_refused,
            )

    @_guarded
    def refused(self, limit: int = MAX_REFUSED) -> list[Refused]:
        """Return the newest dead letters, newest first."""
        rows = self._file.execute(
            "SELECT sequence, id, payload, reason, time FROM refused ORDER BY sequence DESC LIMIT ?", limit
        )
        return [Refused(*row) for row in rows]

    @_guarded
    def counts(self) -> Counts:
        """Return the totals, which survive restarts."""
        return Counts(**self._totals(), last_sequence=self._last_sequence())

    def store_time(self, newest: datetime) -> None:
        """Store the newest time of all messages, for the next process; do nothing if the disk fails."""
        with suppress(OutboxError):
            self._store_time(newest)

    @_guarded
    def _store_time(self, newest: datetime) -> None:
        with self._file.transaction(durable=False):
            self._write_time(newest)

    def _write_time(self, newest: datetime) -> None:
        self._file.execute("INSERT OR REPLACE INTO newest VALUES (1, ?)", rfc3339(newest))

    @_guarded
    def _newest(self) -> str:
        row = self._file.execute("SELECT time FROM newest").fetchone()
        return str(row[0]) if row else ""

    @_guarded
    def check(self) -> None:
        """Write without changing anything; raise `OutboxError` while the disk fails."""
        with self._file.transaction(durable=False):
            self._file.execute("UPDATE totals SET value = value")

    def has_room(self, counts: Counts) -> bool:
        """Return whether a tenth of the queue is free, so that no event is about to be dropped."""
        return counts.waiting <= 0.9 * self._max_events and counts.waiting_bytes <= 0.9 * self._max_bytes

    @_guarded
    def expire(self, now_s: float) -> None:
        """Drop events older than `max_age_s`; `now_s` is monotonic. Call it every few seconds."""
        running_s = self._ages.running_s(now_s)
        totals = self._totals()
        if not self._ages.is_due(running_s, is_empty=not totals["waiting"]):
            return
        with self._file.transaction(durable=False):
            expired = self._file.execute(
                "SELECT sequence FROM events WHERE sequence <= ? ORDER BY sequence",
                self._ages.last_expired(running_s),
            )
            for (sequence,) in expired.fetchall():
                self._delete(sequence, totals)
                totals["dropped"] += 1
            self._save(totals)
            self._ages.set(running_s, self._last_sequence())

    def close(self) -> None:
        """Move the log into the file and close it; a later call opens it again."""
        with self._file.lock, suppress(OSError):
            if self._file.is_open:
                self._mark.release(self._last)
            self._file.close()

    def _write_all(self, events: Sequence[EmotionEvent]) -> list[int]:
        max_bytes = self._max_bytes
        if self._file.free_bytes() < RESERVE_BYTES:
            (free_pages,) = self._file.execute("PRAGMA freelist_count").fetchone()
            # SQLite reuses the free pages of the file; a part of the space is left for the log.
            unused = max(0, free_pages * PAGE_BYTES - RESERVE_BYTES)
            space = self._totals()["waiting_bytes"] + unused // 2
            max_bytes = min(max_bytes, max(space, SPARE_BYTES))
        with self._file.transaction():
            totals = self._totals()
            last = self._last_sequence()
            sequences = []
            self._mark.reserve(last + len(events))
            for event in events:
                sequence = self._find(event.id)
                if sequence is None:
                    last = sequence = last + 1
                    self._write(event, sequence, totals)
                sequences.append(sequence)
            if events:
                self._write_time(events[-1].time)
            self._trim(totals, max_bytes=max_bytes)
            self._save(totals)
        return sequences

    def _refuse(self, sequence: int, reason: str, totals: dict[str, int]) -> None:
        moved = self._file.execute(
            "INSERT OR REPLACE INTO refused SELECT sequence, CAST(coalesce(id, '') AS TEXT), "
            "CAST(coalesce(payload, '') AS BLOB), ?, ?, checksum FROM events WHERE sequence = ?",
            reason,
            rfc3339(datetime.now(UTC)),
            sequence,
        ).rowcount
        if moved:
            self._delete(sequence, totals)
            totals["refused"] += 1

    def _refuse_damaged(self, sequences: Sequence[int]) -> None:
        """Move damaged events to the dead letters."""
        with suppress(sqlite3.IntegrityError):
            # An index that still has the undamaged id refuses the deletion of the row.
            self._file.execute("REINDEX events")
        self.refuse_many(sequences, "corrupt")
        log.error(
            "outbox.path %s: event %d is damaged on the disk and not sent (%d damaged now); "
            "`emotion-edge outbox` lists them",
            self.path,
            sequences[0],
            len(sequences),
        )

    def _find(self, event_id: str) -> int | None:
        known = self._file.execute(
            "SELECT sequence FROM events WHERE id = ?1 UNION ALL SELECT sequence FROM done WHERE id = ?1 "
            "UNION ALL SELECT sequence FROM refused WHERE id = ?1",
            event_id,
        ).fetchone()
        return int(known[0]) if known else None

    def _write(self, event: EmotionEvent, sequence: int, totals: dict[str, int]) -> None:
        """Insert one event into the table; the `COMMIT` of the transaction writes it to disk."""
        message = event.to_cloudevent(device=self._device, sequence=sequence)
        payload = encode(message)
        row = (sequence, event.id, payload, checksum(sequence, event.id, payload))
        self._file.execute("INSERT INTO events VALUES (?, ?, ?, ?)", *row)
        totals["waiting"] += 1
        totals["waiting_bytes"] += len(payload)
        if len(payload) > self._max_bytes:  # dropping all the others would not make it fit
            self._delete(sequence, totals)
            totals["dropped"] += 1

    def _trim(self, totals: dict[str, int], *, max_bytes: int) -> None:
        while totals["waiting"] > self._max_events or totals["waiting_bytes"] > max_bytes:
            (oldest,) = self._file.execute("SELECT min(sequence) FROM events").fetchone()
            if oldest is None:
                return
            self._delete(oldest, totals)
            totals["dropped"] += 1

    def _delete(self, sequence: int, totals: dict[str, int]) -> None:
        row = self._file.execute(
            "DELETE FROM events WHERE sequence = ? RETURNING coalesce(length(payload), 0)", sequence
        ).fetchone()
        if row:
            totals["waiting"] -= 1
            totals["waiting_bytes"] -= row[0]

    def _totals(self) -> dict[str, int]:
        return read_totals(self._file.execute)

    def _save(self, totals: dict[str, int]) -> None:
        for name, value in totals.items():
            self._file.execute("UPDATE totals SET value = ?1 WHERE name = ?2 AND value <> ?1", value, name)

    def _last_sequence(self) -> int:
        return read_last_sequence(self._file.execute)

    def _resume(self) -> None:
        """Check the file, and continue the sequence in one that replaces a lost or damaged one."""
        check_consistency(self._file.execute)
        last, reserved = self._last_sequence(), self._mark.reserved
        if reserved is not None and last > reserved and self._file.set_aside is None:
            raise corrupt(f"the sequence {last} is above the reserved numbers, {reserved}")
        # A clean close has left the mark at the last number. After a kill there is a log, or it was lost.
        is_whole = self._file.set_aside is None and self._file.had_file and self._file.had_log
        first = self._last or (0 if is_whole else reserved or 0)
        if last < first:
            is_new = self._file.set_aside is not None or not self._file.had_file
            log.warning(
                "outbox.path %s: %s; the numbering of events goes on at %d",
                self.path,
                "a new database" if is_new else "its log is missing, and with it the newest events",
                first + 1,
            )
            self._file.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            self._file.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", first)
        self._last = self._last_sequence()
        with suppress(OSError, sqlite3.Error):  # the first append reports what fails
            # The log gets content before the mark rises: from here on, no log means that it was lost.
            (opened,) = self._file.execute("PRAGMA user_version").fetchone()
            self._file.execute(f"PRAGMA user_version = {(opened + 1) % (1 << 31)}")
            self._mark.reserve(self._last)


def open_outbox(path: Path, settings: OutboxSettings, *, device: str) -> Outbox:
    """Return the outbox of a device, with the bounds of the configuration."""
    return Outbox(
        path,
        device=device,
        max_events=settings.max_events,
        max_bytes=settings.max_bytes,
        max_age_s=settings.max_age_s,
    )
