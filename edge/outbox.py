"""The queue on disk between what the device noticed and the broker: nothing in it is lost to a crash."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from edge.errors import OutboxError
from edge.values import EmotionEvent, rfc3339

log = logging.getLogger(__name__)

MAX_REFUSED = 1000  # rows kept for reading; the count of refusals goes on
MAX_DONE = 1000  # ids of delivered events that are still recognised when they are appended again

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS done (sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, payload BLOB NOT NULL,
    reason TEXT NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO totals VALUES ('waiting', 0), ('waiting_bytes', 0), ('refused', 0), ('dropped', 0);
"""


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
        with self._lock:
            try:
                self._open()
                return method(self, *args, **kwargs)
            except sqlite3.DatabaseError as error:
                if not _is_corrupt(error):
                    raise self._unusable(error) from error
            except OSError as error:
                raise self._unusable(error) from error
            try:
                self._set_aside()
                self._open()
                return method(self, *args, **kwargs)
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from error

    return run


class Outbox:
    """Events in the order in which they happened, each with a gapless `sequence`, until acknowledged.

    An `append` that returned survives kill -9 and power loss (WAL, synchronous=FULL). The number of an
    event is AUTOINCREMENT's own counter plus one, read and written in the transaction of the insert, so
    neither a rollback nor a deleted row leaves a hole or gives a number twice. Bounded by `max_events`
    and `max_bytes` (of payloads): the oldest are dropped and counted in that same transaction.

    All methods may be called from any thread. They raise `OutboxError` while the disk is full, read-only
    or gone, and work again when it does. A corrupt file is renamed to `<name>.corrupt-<UTC time>`, a new
    one is started, and `set_aside` names the old one. `sequence` goes on where this process left it, and
    starts again at 1 where the file was corrupt before the process began.
    """

    def __init__(self, path: Path, *, device: str, max_events: int, max_bytes: int) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self._device = device
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._last = 0  # the newest sequence that this process gave or saw
        # A disk that is full at boot must not stop the daemon: the first append tells.
        with suppress(OutboxError):
            self.counts()

    @_guarded
    def append(self, event: EmotionEvent) -> int:
        """Store one event durably and return its sequence; the same id again returns the first one."""
        return self._append([event])[0]

    @_guarded
    def append_many(self, events: Sequence[EmotionEvent]) -> list[int]:
        """Store events in one transaction, all or none; return their sequences."""
        return self._append(events)

    @_guarded
    def waiting(self, limit: int, after: int = 0) -> list[Row]:
        """Return up to `limit` events with a sequence above `after`, oldest first."""
        rows = self._execute(
            "SELECT sequence, id, payload FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?",
            after,
            limit,
        )
        return [Row(*row) for row in rows]

    @_guarded
    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Forget events that the broker has; unknown sequences are ignored.

        Not synced to the disk: what a power loss brings back is sent twice, which at-least-once allows.
        """
        with self._transaction(durable=False):
            for sequence in sequences:
                self._execute(
                    "INSERT OR REPLACE INTO done SELECT sequence, id FROM events WHERE sequence = ?", sequence
                )
                self._delete(sequence)
            self._execute("DELETE FROM done WHERE sequence <= (SELECT max(sequence) FROM done) - ?", MAX_DONE)

    @_guarded
    def refuse(self, sequence: int, reason: str) -> None:
        """Move one event to the dead letters, of which the last `MAX_REFUSED` are kept."""
        with self._transaction():
            moved = self._execute(
                "INSERT OR REPLACE INTO refused "
                "SELECT sequence, id, payload, ?, ? FROM events WHERE sequence = ?",
                reason,
                rfc3339(datetime.now(UTC)),
                sequence,
            ).rowcount
            if moved:
                self._delete(sequence)
                self._add("refused", 1)
            self._execute(
                "DELETE FROM refused WHERE sequence NOT IN "
                "(SELECT sequence FROM refused ORDER BY time DESC, sequence DESC LIMIT ?)",
                MAX_REFUSED,
            )

    @_guarded
    def refused(self, limit: int = MAX_REFUSED) -> list[Refused]:
        """Return the newest dead letters, newest first."""
        rows = self._execute("SELECT * FROM refused ORDER BY time DESC, sequence DESC LIMIT ?", limit)
        return [Refused(*row) for row in rows]

    @_guarded
    def counts(self) -> Counts:
        """Return the totals, which survive restarts."""
        totals = dict(self._execute("SELECT name, value FROM totals"))
        return Counts(**totals, last_sequence=self._last_sequence())

    def close(self) -> None:
        """Move the log into the file and close it; a later call opens it again."""
        with self._lock:
            if self._connection is not None:
                # On a full disk the log stays beside the file and is read next time.
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._disconnect()

    def _append(self, events: Sequence[EmotionEvent]) -> list[int]:
        with self._transaction():
            sequences = [self._insert(event) for event in events]
        self._last = max([self._last, *sequences])
        return sequences

    def _insert(self, event: EmotionEvent) -> int:
        known = self._execute(
            "SELECT sequence FROM events WHERE id = ?1 UNION ALL SELECT sequence FROM done WHERE id = ?1 "
            "UNION ALL SELECT sequence FROM refused WHERE id = ?1",
            event.id,
        ).fetchone()
        if known:
            return int(known[0])
        sequence = self._last_sequence() + 1
        message = event.to_cloudevent(device=self._device, sequence=sequence)
        payload = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        self._execute("INSERT INTO events VALUES (?, ?, ?)", sequence, event.id, payload)
        self._add("waiting", 1)
        self._add("waiting_bytes", len(payload))
        if len(payload) > self._max_bytes:  # dropping all the others would not make it fit
            self._drop(sequence)
        while self._is_over() and (oldest := self._execute("SELECT min(sequence) FROM events").fetchone()[0]):
            self._drop(oldest)
        return sequence

    def _is_over(self) -> bool:
        totals = dict(self._execute("SELECT name, value FROM totals"))
        return bool(totals["waiting"] > self._max_events or totals["waiting_bytes"] > self._max_bytes)

    def _drop(self, sequence: int) -> None:
        self._delete(sequence)
        self._add("dropped", 1)

    def _delete(self, sequence: int) -> None:
        row = self._execute("SELECT length(payload) FROM events WHERE sequence = ?", sequence).fetchone()
        if row:
            self._execute("DELETE FROM events WHERE sequence = ?", sequence)
            self._add("waiting", -1)
            self._add("waiting_bytes", -row[0])

    def _add(self, name: str, amount: int) -> None:
        self._execute("UPDATE totals SET value = value + ? WHERE name = ?", amount, name)

    def _last_sequence(self) -> int:
        row = self._execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def _execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        assert self._connection is not None, "only called by guarded methods"
        return self._connection.execute(statement, values)

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        self._execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have rolled back already
                self._execute("ROLLBACK")
            raise

    def _open(self) -> None:
        if self._connection is not None:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made here, since SQLite would make it readable to everybody; its log gets the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            with closing(connection.execute("PRAGMA quick_check(1)")) as check:
                if (verdict := check.fetchone()[0]) != "ok":
                    raise _corrupt(verdict)
            connection.executescript(SCHEMA)
            self._connection = connection
            if self._last_sequence() < self._last:  # a new file in the place of one that went bad
                self._execute("DELETE FROM sqlite_sequence WHERE name = 'events'")
                self._execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", self._last)
            self._last = self._last_sequence()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _unusable(self, error: Exception) -> OutboxError:
        self._disconnect()  # the next call starts from a fresh connection
        return OutboxError(f"outbox.path {self.path}: {error}; free some space or check its permissions")

    def _set_aside(self) -> None:
        self._disconnect()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        target = self.path.with_name(f"{self.path.name}.corrupt-{stamp}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{target}{suffix}")
        self.set_aside = target
        log.error("outbox.path %s: corrupt; kept as %s, a new one is started", self.path, target)


def _corrupt(verdict: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _is_corrupt(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
