"""The queue on disk between what the device noticed and the broker: nothing in it is lost to a crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from edge.delivery.outbox.file import OutboxFile, reason_of
from edge.errors import OutboxError
from edge.settings import OutboxSettings
from edge.values import EmotionEvent, encode, rfc3339

MAX_REFUSED = 1000  # rows kept for reading; the count of refusals goes on
MAX_DONE = 1000  # ids of delivered events that are still recognised when they are appended again
MARK_S = 300.0  # how exactly the age of an event is known
PAGE_BYTES = 4096  # SQLite's default
RESERVE_BYTES = 256 << 10  # below this the queue grows no more: the log needs room to delete anything
SPARE_BYTES = 64 << 10  # which a queue may have even then


@dataclass(frozen=True, slots=True)
class Row:
    """One event that waits: `payload` is its CloudEvents JSON, which contains the same `sequence`."""

    sequence: int
    id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """One event that the broker would not take, why, and when (RFC 3339 UTC)."""

    sequence: int
    id: str
    payload: bytes
    reason: str
    time: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What waits now, and what was refused, dropped and numbered since the file was made."""

    waiting: int
    waiting_bytes: int
    refused: int
    dropped: int
    last_sequence: int


P = ParamSpec("P")
R = TypeVar("R")


def _guarded(method: Callable[Concatenate[Outbox, P], R]) -> Callable[Concatenate[Outbox, P], R]:
    """Run `method` under the lock, on an open connection, with a corrupt file replaced once."""

    def run(self: Outbox, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._store.run(lambda: method(self, *args, **kwargs))

    return run


class Outbox:
    """Events in the order in which they happened, each with a gapless `sequence`, until acknowledged.

    An `append` that returned survives kill -9 and power loss (WAL, synchronous=FULL). The number of an
    event is AUTOINCREMENT's own counter plus one, read and written in the transaction of the insert, so
    neither a rollback nor a deleted row leaves a hole or gives a number twice.

    Bounded by `max_events`, by `max_bytes` (of payloads), by a disk that is almost full, and by `max_age_s`:
    the oldest are dropped and counted in one transaction with what took their place. Age is the time that a
    daemon ran since the event, by the monotonic clock: a device without a battery behind its clock boots in
    the past and jumps years ahead when the network comes, and neither may cost an event. Time switched off
    does not count.

    All methods may be called from any thread. They raise `OutboxError`, whose `reason` is `disk_full`,
    `read_only`, `locked`, `not_permitted` or `not_writable`, after a quarter of a second at most, and work
    again when the disk does. A corrupt file is renamed to `<name>.corrupt-<UTC time>`, a new one is started,
    and `set_aside` names the old one. `sequence` goes on where this process left it, and starts again at 1
    where the file was corrupt before the process began.
    """

    def __init__(
        self, path: Path, *, device: str, max_events: int, max_bytes: int, max_age_s: float = 0.0
    ) -> None:
        self.path = path
        self._device = device
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._mark_s = min(MARK_S, max_age_s / 10)
        self._last = 0  # the newest sequence that this process gave or saw
        self._clock_s: float | None = None  # what the daemons of this file ran, at `_clock_at_s`
        self._clock_at_s = 0.0
        self._store = OutboxFile(path, may_create=True, on_open=self._resume)
        # A disk that is full at boot must not stop the daemon: the first append tells.
        with suppress(OutboxError):
            self.counts()

    @property
    def set_aside(self) -> Path | None:
        """The corrupt file that this process put aside last."""
        return self._store.set_aside

    def append(self, event: EmotionEvent) -> int:
        """Store one event durably and return its sequence; the same id again returns the first one."""
        return self.append_many([event])[0]

    @_guarded
    def append_many(self, events: Sequence[EmotionEvent]) -> list[int]:
        """Store events in one transaction, all or none; return their sequences."""
        try:
            sequences = self._insert(events)
        except sqlite3.OperationalError as error:
            if reason_of(error) != "disk_full":
                raise
            self._store.checkpoint()
            with self._store.transaction(durable=False):
                totals = self._totals()
                self._trim(totals, max_bytes=totals["waiting_bytes"] * 9 // 10)
                self._save(totals)
            sequences = self._insert(events)
        self._last = max([self._last, *sequences])
        return sequences

    @_guarded
    def waiting(self, limit: int, after: int = 0) -> list[Row]:
        """Return up to `limit` events with a sequence above `after`, oldest first."""
        rows = self._store.execute(
            "SELECT sequence, id, payload FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
            after,
            limit,
        )
        return [Row(*row) for row in rows]

    @_guarded
    def was_changed_by_others(self) -> bool:
        """Tell whether another process wrote since this was last asked: it may have put events back."""
        return self._store.was_changed_by_others()

    @_guarded
    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Forget events that the broker has; unknown sequences are ignored.

        Not synced to the disk: what a power loss brings back is sent twice, which at-least-once allows.
        """
        with self._store.transaction(durable=False):
            totals = self._totals()
            for sequence in sequences:
                self._store.execute(
                    "INSERT OR REPLACE INTO done SELECT sequence, id FROM events WHERE sequence = ?", sequence
                )
                self._delete(sequence, totals)
            self._save(totals)
            self._store.execute(
                "DELETE FROM done WHERE sequence <= (SELECT max(sequence) FROM done) - ?", MAX_DONE
            )

    def refuse(self, sequence: int, reason: str) -> None:
        """Move one event to the dead letters, of which the last `MAX_REFUSED` are kept."""
        self.refuse_many([sequence], reason)

    @_guarded
    def refuse_many(self, sequences: Iterable[int], reason: str) -> None:
        """Move events to the dead letters in one transaction."""
        with self._store.transaction():
            totals = self._totals()
            for sequence in sequences:
                moved = self._store.execute(
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
            # By number and not by time, since a clock may jump back.
            self._store.execute(
                "DELETE FROM refused WHERE sequence NOT IN "
                "(SELECT sequence FROM refused ORDER BY sequence DESC LIMIT ?)",
                MAX_REFUSED,
            )

    @_guarded
    def refused(self, limit: int = MAX_REFUSED) -> list[Refused]:
        """Return the newest dead letters, newest first."""
        rows = self._store.execute("SELECT * FROM refused ORDER BY sequence DESC LIMIT ?", limit)
        return [Refused(*row) for row in rows]

    @_guarded
    def counts(self) -> Counts:
        """Return the totals, which survive restarts."""
        return Counts(**self._totals(), last_sequence=self._last_sequence())

    @_guarded
    def check(self) -> None:
        """Write something that changes nothing; raise `OutboxError` while the disk does not take it."""
        with self._store.transaction(durable=False):
            self._store.execute("UPDATE totals SET value = value")

    def has_room(self, counts: Counts) -> bool:
        """Tell whether a tenth of the queue is free, so that nothing is about to be dropped."""
        return counts.waiting <= 0.9 * self._max_events and counts.waiting_bytes <= 0.9 * self._max_bytes

    @_guarded
    def expire(self, now_s: float) -> None:
        """Drop what is older than `max_age_s`; `now_s` is monotonic. To be called every few seconds.

        A mark now and then remembers which number was the newest when; once a mark is too old, so is every
        event up to its number.
        """
        if self._clock_s is None:
            newest = self._store.execute("SELECT max(clock_s) FROM marks").fetchone()[0]
            self._clock_s, self._clock_at_s = float(newest or 0.0), now_s
        clock_s = self._clock_s + now_s - self._clock_at_s
        newest = self._store.execute("SELECT max(clock_s) FROM marks").fetchone()[0]
        if not self._max_age_s or (newest is not None and clock_s - newest < self._mark_s):
            return
        totals = self._totals()
        if not totals["waiting"] and newest is None:
            return
        with self._store.transaction(durable=False):
            (oldest,) = self._store.execute(
                "SELECT max(sequence) FROM marks WHERE clock_s <= ?", clock_s - self._max_age_s
            ).fetchone()
            expired = self._store.execute(
                "SELECT sequence FROM events WHERE sequence <= ? ORDER BY sequence", oldest or 0
            )
            for (sequence,) in expired.fetchall():
                self._delete(sequence, totals)
                totals["dropped"] += 1
            self._save(totals)
            self._store.execute("DELETE FROM marks WHERE clock_s <= ?", clock_s - self._max_age_s)
            self._store.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", clock_s, self._last_sequence())

    def close(self) -> None:
        """Move the log into the file and close it; a later call opens it again."""
        self._store.close()

    def _insert(self, events: Sequence[EmotionEvent]) -> list[int]:
        max_bytes = self._max_bytes
        if self._store.free_bytes() < RESERVE_BYTES:
            (free_pages,) = self._store.execute("PRAGMA freelist_count").fetchone()
            # What the file holds beyond its events is used again, save for as much as the log may need.
            unused = max(0, free_pages * PAGE_BYTES - RESERVE_BYTES)
            space = self._totals()["waiting_bytes"] + unused // 2
            max_bytes = min(max_bytes, max(space, SPARE_BYTES))
        with self._store.transaction():
            totals = self._totals()
            last = self._last_sequence()
            sequences = []
            for event in events:
                sequence = self._find(event.id)
                if sequence is None:
                    last = sequence = last + 1
                    self._add(event, sequence, totals)
                sequences.append(sequence)
            self._trim(totals, max_bytes=max_bytes)
            self._save(totals)
        return sequences

    def _find(self, event_id: str) -> int | None:
        known = self._store.execute(
            "SELECT sequence FROM events WHERE id = ?1 UNION ALL SELECT sequence FROM done WHERE id = ?1 "
            "UNION ALL SELECT sequence FROM refused WHERE id = ?1",
            event_id,
        ).fetchone()
        return int(known[0]) if known else None

    def _add(self, event: EmotionEvent, sequence: int, totals: dict[str, int]) -> None:
        message = event.to_cloudevent(device=self._device, sequence=sequence)
        payload = encode(message)
        self._store.execute("INSERT INTO events VALUES (?, ?, ?)", sequence, event.id, payload)
        totals["waiting"] += 1
        totals["waiting_bytes"] += len(payload)
        if len(payload) > self._max_bytes:  # dropping all the others would not make it fit
            self._delete(sequence, totals)
            totals["dropped"] += 1

    def _trim(self, totals: dict[str, int], *, max_bytes: int) -> None:
        while totals["waiting"] > self._max_events or totals["waiting_bytes"] > max_bytes:
            (oldest,) = self._store.execute("SELECT min(sequence) FROM events").fetchone()
            if oldest is None:
                return
            self._delete(oldest, totals)
            totals["dropped"] += 1

    def _delete(self, sequence: int, totals: dict[str, int]) -> None:
        row = self._store.execute(
            "DELETE FROM events WHERE sequence = ? RETURNING length(payload)", sequence
        ).fetchone()
        if row:
            totals["waiting"] -= 1
            totals["waiting_bytes"] -= row[0]

    def _totals(self) -> dict[str, int]:
        return dict(self._store.execute("SELECT name, value FROM totals").fetchall())

    def _save(self, totals: dict[str, int]) -> None:
        for name, value in totals.items():
            self._store.execute("UPDATE totals SET value = ?1 WHERE name = ?2 AND value <> ?1", value, name)

    def _last_sequence(self) -> int:
        row = self._store.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def _resume(self) -> None:
        """Go on with this process's numbers in a new file that stands in the place of one that went bad."""
        if self._last_sequence() < self._last:
            self._store.execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
            self._store.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", self._last)
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
