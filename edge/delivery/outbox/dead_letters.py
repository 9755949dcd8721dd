"""What `emotion-edge outbox` does, beside a running daemon or without one: count, retry, export, purge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.delivery.outbox.file import OutboxFile
from edge.delivery.outbox.rows import Counts, Refused, read_last_sequence, read_totals
from edge.errors import EdgeError

Part = Literal["waiting", "refused"]
PARTS: tuple[Part, ...] = ("waiting", "refused")
PAGE = 500  # rows read at a time, so that the daemon never waits


@dataclass(frozen=True, slots=True)
class Contents:
    """Numbers of an outbox; `dead_letters` counts those that are still kept."""

    counts: Counts
    dead_letters: int


class DeadLetters:
    """The outbox at `path` from a second process; safe while the daemon runs, which notices within a second.

    Never creates or renames a file: raises `EdgeError` where there is none, and `OutboxError` where it is
    locked, corrupt or not permitted.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise EdgeError(f"{path}: no outbox file; start the daemon once, or check device.id")
        self._file = OutboxFile(path)

    def contents(self) -> Contents:
        """Count everything."""

        def read() -> Contents:
            totals = read_totals(self._file.execute)
            last = read_last_sequence(self._file.execute)
            (dead_letters,) = self._file.execute("SELECT count(*) FROM refused").fetchone()
            return Contents(Counts(**totals, last_sequence=last), int(dead_letters))

        return self._file.run(read)

    def refused(self, limit: int) -> list[Refused]:
        """Return the newest dead letters, newest first."""
        query = "SELECT sequence, id, payload, reason, time FROM refused ORDER BY sequence DESC LIMIT ?"
        return self._file.run(lambda: [Refused(*row) for row in self._file.execute(query, limit)])

    def retry(self) -> int:
        """Put dead letters back into the queue, each with its id and sequence; return how many.

        Damaged ones (`corrupt`) stay: they would never be sent.
        """

        def move() -> int:
            with self._file.transaction():
                moved = self._file.execute(
                    "INSERT INTO events SELECT sequence, id, payload, checksum FROM refused "
                    "WHERE reason <> 'corrupt' ORDER BY sequence"
                ).rowcount
                self._file.execute("DELETE FROM refused WHERE reason <> 'corrupt'")
                self._recount()
            return moved

        return self._file.run(move)

    def purge(self, *parts: Part) -> dict[Part, int]:
        """Delete the waiting events, the dead letters, or both, for good; return how many of each."""

        def delete() -> dict[Part, int]:
            with self._file.transaction():
                gone = {
                    part: self._file.execute(
                        "DELETE FROM events" if part == "waiting" else "DELETE FROM refused"
                    ).rowcount
                    for part in parts
                }
                self._recount()
            return gone

        return self._file.run(delete)

    def export(self, *parts: Part) -> Iterator[dict[str, Any]]:
        """Yield every event of these parts, oldest first; dead letters with `reason` and `time`.

        `event` is the text of a payload that is damaged.
        """
        for part in parts:
            columns = "payload, NULL, NULL" if part == "waiting" else "payload, reason, time"
            table = "events" if part == "waiting" else "refused"
            query = f"SELECT sequence, {columns} FROM {table} WHERE sequence > ? ORDER BY sequence LIMIT ?"
            after = 0
            while rows := self._read(query, after):
                for sequence, payload, reason, time in rows:
                    after = sequence
                    yield {"state": part, "reason": reason, "time": time, "event": _event(payload)}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, query: str, after: int) -> list[tuple[Any, ...]]:
        return self._file.run(lambda: self._file.execute(query, after, PAGE).fetchall())

    def _recount(self) -> None:
        self._file.execute("UPDATE totals SET value = (SELECT count(*) FROM events) WHERE name = 'waiting'")
        self._file.execute(
            "UPDATE totals SET value = (SELECT coalesce(sum(length(payload)), 0) FROM events) "
            "WHERE name = 'waiting_bytes'"
        )


def _event(payload: bytes) -> dict[str, Any] | str:
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) else payload.decode(errors="replace")
