"""Copies what can be read of a damaged database and its log into a new database."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from edge.delivery.outbox.rows import (
    LARGEST,
    SCHEMA,
    checksum,
    decode_text,
    fits_its_payload,
    is_count,
    is_intact,
)
from edge.delivery.outbox.write_ahead_log import PAGE_BYTES, Frame, committed_frames
from edge.values import rfc3339

log = logging.getLogger(__name__)

MAX_PROBES = 200_000  # numbers tried behind a damaged page
MODE_OFFSET = 18  # in the header of the database: two bytes, 1 for no log


def salvage(damaged: Path, target: Path, *, largest: int) -> None:
    """Write a new database to `target` with all intact rows of `damaged`; raise `OSError`, `sqlite3.Error`.

    Damaged rows become dead letters, `corrupt`. No number above `largest` was ever given. The files of
    `damaged` are only read.
    """
    image, part = target.with_name(f"{target.name}.image"), target.with_name(f"{target.name}.part")
    frames = committed_frames(damaged)
    valid = [frame for frame in frames if frame.is_valid]
    # The newest pages; without the damaged ones, which have older copies; as far as SQLite reads the log.
    selections = [frames, valid, list(takewhile(lambda frame: frame.is_valid, frames))]
    rows = Rows()
    try:
        content = damaged.read_bytes()
        for selection in selections[: 1 if len(valid) == len(frames) else 3]:
            image.unlink(missing_ok=True)
            image.touch(mode=0o600)
            image.write_bytes(_with_log(content, selection))
            with closing(_connect(image)) as old:
                rows.collect(old, largest=largest)
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        with closing(_connect(part)) as new:
            new.executescript(SCHEMA)
            new.execute("BEGIN")
            rows.write(new)
            new.execute("COMMIT")
        part.replace(target)
    finally:
        for scratch in (image, part):
            Path(f"{scratch}-journal").unlink(missing_ok=True)
            scratch.unlink(missing_ok=True)


class Rows:
    """The rows of several images of one database; those of an earlier image count."""

    def __init__(self) -> None:
        self._events: dict[int, tuple[str, bytes]] = {}
        self._refused: dict[int, tuple[str, bytes, str, str, int | None]] = {}
        self._damaged: dict[int, tuple[str, bytes]] = {}
        self._done: set[int] = set()  # delivered: an older page may still have them
        self._totals: dict[str, int] = {}
        self._last = 0
        self._newest_time: str | None = None

    def collect(self, old: sqlite3.Connection, *, largest: int) -> None:
        """Add the rows that can be read of one image."""
        self._last = max(self._last, _newest(old, largest))
        probed = largest if largest < LARGEST else self._last
        self._done.update(row[0] for row in _rows(old, "done", "sequence", probed))
        for sequence, event_id, payload, stored in _rows(old, "events", "sequence, id, payload", probed):
            if _is_intact(sequence, event_id, payload, stored):
                self._events.setdefault(sequence, (event_id, payload))
            else:
                self._damaged.setdefault(sequence, (str(event_id), _as_bytes(payload)))
        columns = "sequence, id, payload, reason, time"
        for sequence, event_id, payload, reason, time, stored in _rows(old, "refused", columns, probed):
            is_whole = _is_intact(sequence, event_id, payload, stored)
            letter = (
                str(event_id),
                _as_bytes(payload),
                str(reason) if is_whole else "corrupt",
                str(time),
                checksum(sequence, event_id, payload) if is_whole else None,
            )
            self._refused.setdefault(sequence, letter)
        with suppress(sqlite3.Error):
            for name, value in old.execute("SELECT name, value FROM totals").fetchall():
                if is_count(value):
                    self._totals.setdefault(name, value)
        with suppress(sqlite3.Error):
            for (time,) in old.execute("SELECT time FROM newest").fetchall():
                self._newest_time = self._newest_time or str(time)

    def write(self, new: sqlite3.Connection) -> None:
        """Fill the tables of an empty database."""
        now = rfc3339(datetime.now(UTC))
        corrupt = 0
        for sequence, (event_id, payload) in sorted(self._events.items()):
            if sequence not in self._done and sequence not in self._refused:
                event = (sequence, event_id, payload, checksum(sequence, event_id, payload))
                new.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", event)
        for sequence, (event_id, payload) in self._damaged.items():
            if not any(sequence in known for known in (self._events, self._done, self._refused)):
                self._refused[sequence] = (event_id, payload, "corrupt", now, None)
                corrupt += 1
        for sequence, letter in self._refused.items():
            new.execute("INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?)", (sequence, *letter))
        last = max([self._last, *self._events, *self._refused, *self._done])
        new.execute("DELETE FROM sqlite_sequence")
        new.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (last,))
        if self._newest_time is not None:
            new.execute("INSERT INTO newest VALUES (1, ?)", (self._newest_time,))
        refused = max(self._totals.get("refused", 0) + corrupt, len(self._refused))
        _set_totals(new, refused=refused, dropped=min(self._totals.get("dropped", 0), last))
        (kept,) = new.execute("SELECT count(*) FROM events").fetchone()
        log.warning("outbox: %d waiting events kept, %d damaged ones are now dead letters", kept, corrupt)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = decode_text
    return connection


def _with_log(database: bytes, frames: Sequence[Frame]) -> bytes:
    """Return the database with these pages of its log."""
    content = bytearray(database)
    limit = len(content) // PAGE_BYTES + len(frames)
    for frame in frames:
        if 0 < frame.page <= limit:
            start = (frame.page - 1) * PAGE_BYTES
            content.extend(bytes(max(0, start + PAGE_BYTES - len(content))))
            content[start : start + PAGE_BYTES] = frame.content
    content[MODE_OFFSET : MODE_OFFSET + 2] = b"\1\1"
    content[28:32] = (len(content) // PAGE_BYTES).to_bytes(4, "big")  # the size in pages
    return bytes(content)


def _is_intact(sequence: int, event_id: object, payload: object, stored: object) -> bool:
    if stored is NO_COLUMN:
        return fits_its_payload(sequence, event_id, payload)
    return is_intact(sequence, event_id, payload, stored)


NO_COLUMN = object()  # in the place of the checksum, in a file of the version before


def _rows(connection: sqlite3.Connection, table: str, columns: str, probed: int) -> Iterator[tuple[Any, ...]]:
    """Yield the readable rows in order, each with its checksum; skip damaged pages."""
    after, probes = 0, 0
    with suppress(sqlite3.Error):
        names = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        has_checksum = "checksum" in names
        select = f"SELECT {columns}{', checksum' if has_checksum else ''} FROM {table} NOT INDEXED"
        while True:
            try:
                for row in connection.execute(f"{select} WHERE sequence > ? ORDER BY sequence", (after,)):
                    if row[0] <= after:
                        break  # a loop in the tree
                    after = row[0]
                    yield row if has_checksum else (*row, NO_COLUMN)
            except sqlite3.Error:
                after, probes = after + 1, probes + 1
                if after <= probed and probes < MAX_PROBES:
                    continue
            return


def _newest(connection: sqlite3.Connection, largest: int) -> int:
    """Return the largest number that any readable table has."""
    newest = 0
    for table, column in (("sqlite_sequence", "seq"), ("events", "sequence"), ("done", "sequence")):
        with suppress(sqlite3.Error):
            (found,) = connection.execute(f"SELECT max({column}) FROM {table}").fetchone()
            newest = max(newest, found) if is_count(found) and found <= largest else newest
    return newest


def _as_bytes(payload: object) -> bytes:
    return payload if isinstance(payload, bytes) else str(payload).encode(errors="replace")


def _set_totals(new: sqlite3.Connection, *, refused: int, dropped: int) -> None:
    waiting, size = new.execute("SELECT count(*), coalesce(sum(length(payload)), 0) FROM events").fetchone()
    values = {"waiting": waiting, "waiting_bytes": size, "refused": refused, "dropped": dropped}
    for name, value in values.items():
        new.execute("UPDATE totals SET value = ? WHERE name = ?", (value, name))
