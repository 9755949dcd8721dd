"""The queue on disk between the daemon and the broker: no crash loses an event that is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from edge.delivery.outbox.ages import AgeMarks
from edge.delivery.outbox.file import OutboxFile, reason_of
from edge.errors import OutboxError
from edge.settings import OutboxSettings
from edge.values import EmotionEvent, encode, rfc3339

MAX_REFUSED = 1000  # dead letters kept; the count of refusals goes on
MAX_DONE = 1000  # ids of delivered events that are recognised when they are appended again
PAGE_BYTES = 4096  # SQLite's default
RESERVE_BYTES = 256 << 10  # free space below which the queue stops growing: deleting needs room in the log
SPARE_BYTES = 64 << 10  # size that the queue may have even then


@dataclass(frozen=True, slots=True)
class Row:
    """One waiting event: `payload` is its CloudEvents JSON, which contains the same `sequence`."""

    sequence: int
    id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A dead letter: an event that the broker refused, why, and when (RFC 3339 UTC)."""

    sequence: int
    id: str
    payload: bytes
    reason: str
    time: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Events that wait now, and those refused, dropped and numbered since the file was created."""

    waiting: int
    waiting_bytes: int
    refused: int
    dropped: int
    last_sequence: int


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
    again when the disk does. A corrupt file is renamed to `<name>.corrupt-<UTC time>`, a new one is started,
    and `set_aside` names the old one. `sequence` then continues after the newest one of this process; it
    starts again at 1 where the file was corrupt before the process began.
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
        self._file = OutboxFile(path, may_create=True, on_open=self._resume)
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
            return datetime.fromisoformat(self._newest())
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

    @_guarded
    def waiting(self, limit: int, after: int = 0) -> list[Row]:
        """Return up to `limit` events with a sequence above `after`, oldest first."""
        rows = self._file.execute(
            "SELECT sequence, id, payload FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
            after,
            limit,
        )
        return [Row(*row) for row in rows]

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
                moved = self._file.execute(
                    "INSERT OR REPLACE INTO refused "
                    "SELECT sequence, id, payload, ?, ? FROM events WHERE sequence = ?",
                    reason,
                    rfc3339(datetime.now(UTC)),
                    sequence,
                ).rowcount
                if moved:
                    self._delete(sequence, totals)
                    totals["refused"] += 1
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
        rows = self._file.execute("SELECT * FROM refused ORDER BY sequence DESC LIMIT ?", limit)
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
        self._file.execute("INSERT INTO events VALUES (?, ?, ?)", sequence, event.id, payload)
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
            "DELETE FROM events WHERE sequence = ? RETURNING length(payload)", sequence
        ).fetchone()
        if row:
            totals["waiting"] -= 1
            totals["waiting_bytes"] -= row[0]

    def _totals(self) -> dict[str, int]:
        return dict(self._file.execute("SELECT name, value FROM totals").fetchall())

    def _save(self, totals: dict[str, int]) -> None:
        for name, value in totals.items():
            self._file.execute("UPDATE totals SET value = ?1 WHERE name = ?2 AND value <> ?1", value, name)

    def _last_sequence(self) -> int:
        row = self._file.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def _resume(self) -> None:
        """Continue the sequence of this process in a new file that replaces a corrupt one."""
        if self._last_sequence() < self._last:
            self._file.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            self._file.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", self._last)
        self._last = self._last_sequence()


def open_outbox(path: Path, settings: OutboxSettings, *, device: str) -> Outbox:
    """Return the outbox of a device, with the bounds of the configuration."""
    return Outbox(
        path,
        device=device,
        max_events=settings.max_events,
        max_bytes=settings.max_bytes,
        max_age_s=settings.max_age_s,
    )
