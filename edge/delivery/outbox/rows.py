"""The tables of the outbox, their rows as values, and the checks that find damaged ones."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import dataclass

TABLES = ("events", "done", "refused", "totals", "marks", "newest")
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, payload BLOB NOT NULL,
    checksum INTEGER);
CREATE TABLE IF NOT EXISTS done (sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS refused (
    sequence INTEGER PRIMARY KEY, id TEXT NOT NULL, payload BLOB NOT NULL,
    reason TEXT NOT NULL, time TEXT NOT NULL, checksum INTEGER);
CREATE TABLE IF NOT EXISTS totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (clock_s REAL PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS newest (id INTEGER PRIMARY KEY CHECK (id = 1), time TEXT NOT NULL);
INSERT OR IGNORE INTO totals VALUES ('waiting', 0), ('waiting_bytes', 0), ('refused', 0), ('dropped', 0);
"""
TOTALS = ("waiting", "waiting_bytes", "refused", "dropped")
LARGEST = 1 << 53  # of a number in the file; above it, it is damaged

Execute = Callable[..., sqlite3.Cursor]


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


def decode_text(raw: bytes) -> str:
    """Decode a text column; damaged bytes are replaced, so that the row can be read."""
    return raw.decode("utf-8", "replace")


def checksum(sequence: int, event_id: str, payload: bytes) -> int:
    """Return the CRC-32 of a row."""
    return zlib.crc32(payload, zlib.crc32(f"{sequence} {event_id}\n".encode(errors="replace")))


def is_intact(sequence: int, event_id: object, payload: object, stored: object) -> bool:
    """Return whether a row has the content that was written."""
    return (
        isinstance(event_id, str)
        and isinstance(payload, bytes)
        and stored == checksum(sequence, event_id, payload)
    )


def fits_its_payload(sequence: int, event_id: object, payload: object) -> bool:
    """Return whether a row of the version before, which has no checksum, agrees with its CloudEvent."""
    try:
        event = json.loads(payload) if isinstance(payload, bytes) else None
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and (event.get("id"), event.get("sequence")) == (event_id, sequence)


def add_checksums(execute: Execute) -> None:
    """Add the column `checksum` to the tables of the version before; call it in a transaction.

    A row that does not agree with its payload gets none, and counts as damaged.
    """
    for table in ("events", "refused"):
        execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")
        for (sequence,) in execute(f"SELECT sequence FROM {table}").fetchall():
            event_id, payload = execute(
                f"SELECT id, payload FROM {table} WHERE sequence = ?", sequence
            ).fetchone()
            if fits_its_payload(sequence, event_id, payload):
                stored = checksum(sequence, event_id, payload)
                execute(f"UPDATE {table} SET checksum = ? WHERE sequence = ?", stored, sequence)


def read_totals(execute: Execute) -> dict[str, int]:
    """Return the table `totals`; raise an error of SQLite, `corrupt`, if it is damaged."""
    totals = dict(execute("SELECT name, value FROM totals").fetchall())
    if set(totals) != set(TOTALS) or not all(is_count(value) for value in totals.values()):
        raise corrupt("the totals are damaged")
    return totals


def read_last_sequence(execute: Execute) -> int:
    """Return the newest number given; raise an error of SQLite, `corrupt`, if it is damaged."""
    row = execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    if row is not None and not is_count(row[0]):
        raise corrupt("the counter of the sequence is damaged")
    return row[0] if row else 0


def check_consistency(execute: Execute) -> None:
    """Compare the totals with the rows; raise an error of SQLite, `corrupt`, if they differ."""
    totals, last = read_totals(execute), read_last_sequence(execute)
    waiting = execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM events").fetchone()
    if waiting != (totals["waiting"], totals["waiting_bytes"]):
        raise corrupt("the totals do not fit the events")
    (refused,) = execute("SELECT count(*) FROM refused").fetchone()
    if totals["dropped"] > last or totals["refused"] < refused:
        raise corrupt("the totals do not fit the sequence")
    for table in ("events", "done", "refused"):
        (newest,) = execute(f"SELECT coalesce(max(sequence), 0) FROM {table}").fetchone()
        if newest > last:
            raise corrupt(f"the counter of the sequence is below a number in {table}")
    (bad_marks,) = execute(
        "SELECT count(*) FROM marks WHERE typeof(clock_s) <> 'real' OR typeof(sequence) <> 'integer'"
        " OR clock_s < 0 OR clock_s > 1e12 OR sequence NOT BETWEEN 0 AND ?",
        last,
    ).fetchone()
    if bad_marks:
        raise corrupt("the marks of age are damaged")


def is_count(value: object) -> bool:
    """Return whether a value can be a count or a sequence number."""
    return isinstance(value, int) and 0 <= value <= LARGEST


def corrupt(verdict: str) -> sqlite3.DatabaseError:
    """Return the error that SQLite raises for a damaged file."""
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
