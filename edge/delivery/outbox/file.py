"""The SQLite database of the outbox: opens it, replaces a damaged one, explains errors."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from edge.delivery.outbox.high_water_mark import HighWaterMark
from edge.delivery.outbox.rows import LARGEST, SCHEMA, TABLES, add_checksums, corrupt, decode_text
from edge.delivery.outbox.salvage import salvage
from edge.delivery.outbox.write_ahead_log import PAGE_BYTES, has_log, is_damaged
from edge.errors import OutboxError

log = logging.getLogger(__name__)

BUSY_S = 0.25  # how long a call waits for the lock of another process, and blocks other threads
LOW_SPACE_BYTES = 16 << 20  # free space below which the log is kept short

REMEDIES = {
    "disk_full": "free some space",
    "read_only": "make the file system writable",
    "locked": "another process holds it; end that process",
    "not_permitted": "check owner and permissions",
    "corrupt": "start the daemon, which sets it aside and begins a new one",
    "not_writable": "check that it is a file on a working disk",
}

R = TypeVar("R")


class OutboxFile:
    """One connection to the database, opened when first needed and again after it failed; used under `lock`.

    With a `mark`, as in the daemon, a missing file is created. A damaged file and its log are renamed to
    `<name>.corrupt-<UTC time>`, never deleted; `set_aside` names it, and the rows that can be read are in the
    new file. Without a mark, a missing or corrupt file is an error and stays as it is: for a second process
    that reads the outbox of a daemon.
    """

    def __init__(
        self, path: Path, *, mark: HighWaterMark | None = None, on_open: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self.had_file = self.had_log = False  # at the last open
        self.lock = threading.RLock()
        self._mark = mark
        self._on_open = on_open
        self._connection: sqlite3.Connection | None = None
        self._is_durable: bool | None = None
        self._version = -1

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    def run(self, work: Callable[[], R]) -> R:
        """Return `work()`, called under the lock on an open database; raise `OutboxError`."""
        with self.lock:
            try:
                self._open()
                return work()
            except (sqlite3.Error, OSError) as error:
                if reason_of(error) != "corrupt" or self._mark is None:
                    raise self._explained(error) from error
            try:
                self._replace()
                self._open()
                return work()
            except (sqlite3.Error, OSError) as error:
                raise self._explained(error) from error

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        """Execute one SQL statement; only within `run`."""
        assert self._connection is not None, "only called within `run`"
        return self._connection.execute(statement, values)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Commit at the end of the block, or roll back; a `durable` commit waits for the disk (fsync)."""
        if durable != self._is_durable:
            self.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable = durable
        if self.free_bytes() < LOW_SPACE_BYTES:
            self.checkpoint()
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have rolled back already
                self.execute("ROLLBACK")
            raise

    def checkpoint(self) -> None:
        """Move the log into the file, so that the space of the log can be used again."""
        with suppress(sqlite3.Error):
            self.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def free_bytes(self) -> int:
        """Return the free space of the disk for this user."""
        status = os.statvfs(self.path.parent)
        return status.f_bavail * status.f_frsize

    def was_changed_by_others(self) -> bool:
        """Return whether another process wrote since the last call."""
        before, self._version = self._version, int(self.execute("PRAGMA data_version").fetchone()[0])
        return before != self._version

    def close(self) -> None:
        """Move the log into the file and close it; a later call opens it again."""
        with self.lock:
            if self._connection is not None:
                # On a full disk the log stays beside the file; the next start reads it.
                with suppress(sqlite3.Error):
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._disconnect()

    def _open(self) -> None:
        if self._connection is not None:
            return
        if self._mark is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._recovered.exists():  # a crash interrupted `_replace`
                self._rename()
            if is_damaged(self.path, same_boot=self._mark.is_of_this_boot):
                raise corrupt("the log is damaged")
        self.had_file, self.had_log = self.path.exists(), has_log(self.path)
        # Created here, since SQLite would make it readable for every user; its log gets the same mode.
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if self._mark is not None else 0)
        os.close(os.open(self.path, flags, 0o600))
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        connection.text_factory = decode_text
        try:
            self._prepare(connection)
            self._connection, self._is_durable, self._version = connection, None, -1
            self._on_open()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check the database, and create or complete its tables."""
        connection.execute("PRAGMA journal_mode = WAL")
        with closing(connection.execute("PRAGMA quick_check(1)")) as check:
            if (verdict := check.fetchone()[0]) != "ok":
                raise corrupt(verdict)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not names.issuperset(TABLES):  # checked first: writing would need room on the disk
            if self.had_file and self._mark is not None and self._mark.exists:
                raise corrupt("tables are missing")
            connection.executescript(SCHEMA)
        columns = {row[1] for row in connection.execute("PRAGMA table_info(events)")}
        if "checksum" not in columns:
            connection.execute("BEGIN IMMEDIATE")  # closing the connection rolls it back
            add_checksums(lambda statement, *values: connection.execute(statement, values))
            connection.execute("COMMIT")

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _explained(self, error: Exception) -> OutboxError:
        reason = reason_of(error)
        if reason == "not_writable" and self._is_full():
            reason = "disk_full"
        if reason not in ("locked", "disk_full", "read_only"):  # with these, reading goes on
            self._disconnect()  # the next call starts from a fresh connection
        return OutboxError(f"outbox.path {self.path}: {error}; {REMEDIES[reason]}", reason=reason)

    def _is_full(self) -> bool:
        """Return whether the disk has no page left: SQLite then reports other errors for its log, too."""
        try:
            return self.free_bytes() < PAGE_BYTES
        except OSError:
            return False

    @property
    def _recovered(self) -> Path:
        """The complete new database, while the damaged files are moved out of its way."""
        return self.path.with_name(f"{self.path.name}.recovered")

    def _replace(self) -> None:
        """Set the damaged files aside, and continue with a new database of all rows that can be read."""
        self._disconnect()
        assert self._mark is not None, "only the daemon replaces a file"
        try:
            salvage(self.path, self._recovered, largest=self._mark.reserved or LARGEST)
        except (sqlite3.Error, OSError) as error:
            log.error("outbox.path %s: nothing of it can be read: %s", self.path, error)
        self._rename()

    def _rename(self) -> None:
        """Move the damaged files aside and the recovered one, if there is one, to their place."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name, number = f"{self.path.name}.corrupt-{stamp}", 1
        while (target := self.path.with_name(name)).exists():  # a clock that does not run must not overwrite
            name, number = f"{self.path.name}.corrupt-{stamp}-{number}", number + 1
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{target}{suffix}")
        with suppress(FileNotFoundError):
            self._recovered.rename(self.path)
        target.touch(mode=0o600)  # its name is the report, also where only a log was left
        self.set_aside = target
        log.error("outbox.path %s: corrupt; kept as %s, a new one is started", self.path, target)


def reason_of(error: Exception) -> str:
    """Return the stable code of an error: a key of `REMEDIES`."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        return {
            sqlite3.SQLITE_CORRUPT: "corrupt",
            sqlite3.SQLITE_NOTADB: "corrupt",
            sqlite3.SQLITE_FULL: "disk_full",
            sqlite3.SQLITE_BUSY: "locked",
            sqlite3.SQLITE_LOCKED: "locked",
            sqlite3.SQLITE_READONLY: "read_only",
            sqlite3.SQLITE_PERM: "not_permitted",
        }.get(code, "not_writable")
    number = error.errno if isinstance(error, OSError) else None
    return {
        errno.ENOSPC: "disk_full",
        errno.EDQUOT: "disk_full",
        errno.EROFS: "read_only",
        errno.EACCES: "not_permitted",
        errno.EPERM: "not_permitted",
    }.get(number or 0, "not_writable")
