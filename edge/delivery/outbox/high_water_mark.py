"""Keeps, beside the database, a bound of the sequence numbers that were ever given."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from edge.files import ROOT, write_json

log = logging.getLogger(__name__)

BLOCK = 256  # numbers reserved by one write, which costs about two commits
SPARE = 64  # numbers left when the next block is reserved, so that a full disk has time to get room
BOOT_ID = ROOT / "proc/sys/kernel/random/boot_id"


class HighWaterMark:
    """A small JSON file beside the outbox: no event has a number above `reserved`.

    The mark is written before the numbers are given. After damage to the database the numbers continue above
    it: up to `BLOCK` of them are skipped, but none is given twice. A clean close gives the unused ones back.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}.mark")
        self._written: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a mark, readable or not: the database has had its tables then."""
        return self._path.exists()

    @property
    def reserved(self) -> int | None:
        """The largest number that may have been given; None if the file is missing or damaged."""
        reserved = self._read().get("reserved")
        return reserved if isinstance(reserved, int) and 0 <= reserved < 1 << 53 else None

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the system has run without a pause since the daemon wrote the mark."""
        boot = _boot_id()
        return bool(boot) and self._read().get("boot") == boot

    def reserve(self, last: int) -> None:
        """Permit the numbers up to `last`; raise `OSError` if that cannot be written."""
        if self._written is None and self.is_of_this_boot:
            self._written = self.reserved
        if self._written is not None and last <= self._written - SPARE:
            return
        try:
            self._write(last + BLOCK)
        except OSError:
            if self._written is None or last > self._written:
                raise

    def release(self, last: int) -> None:
        """Give back the numbers above `last`, the newest one in the database; raise `OSError`."""
        if self._written is not None and self._written > last:
            self._write(last)

    def _write(self, reserved: int) -> None:
        write_json(self._path, {"reserved": reserved, "boot": _boot_id()}, mode=0o600)
        self._written = reserved

    def _read(self) -> dict[str, object]:
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning("%s: cannot be read (%s); it is written again", self._path, error)
            return {}
        return content if isinstance(content, dict) else {}


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
