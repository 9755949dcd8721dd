"""What a person does with an outbox by hand, beside a daemon that runs or not: look, retry, export, purge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge.delivery.outbox.file import OutboxFile
from edge.delivery.outbox.queue import Counts, Refused
from edge.errors import EdgeError

Part = Literal["waiting", "refused"]
PARTS: tuple[Part, ...] = ("waiting", "refused")
PAGE = 500  # rows read at a time, so that the daemon never waits


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything that is in the outbox, in numbers; `dead_letters` are those still kept."""

    counts: Counts
    dead_letters: int


class DeadLetters:
    """The outbox at `path` from a second process; safe while the daemon runs, which notices within a second.

    Never makes an outbox and never renames one: raises `EdgeError` where there is none, and `OutboxError`
    where it is locked, corrupt or not permitted.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise EdgeError(f"{path}: no outbox there; start the daemon once, or check device.id")
        self._store = OutboxFile(path, may_create=False)

    def contents(self) -> Contents:
        """Count what is there."""

        def read() -> Contents:
            totals = dict(self._store.execute("SELECT name, value FROM totals").fetchall())
            last = self._store.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            (letters,) = self._store.execute("SELECT count(*) FROM refused").fetchone()
            return Contents(Counts(**totals, last_sequence=int(last[0]) if last else 0), int(letters))

        return self._store.run(read)

    def refused(self, limit: int) -> list[Refused]:
        """Return the newest dead letters, newest first."""
        query = "SELECT * FROM refused ORDER BY sequence DESC LIMIT ?"
        return self._store.run(lambda: [Refused(*row) for row in self._store.execute(query, limit)])

    def retry(self) -> int:
        """Put all dead letters back into the queue, each with its id and sequence; return how many."""

        def move() -> int:
            with self._store.transaction():
                moved = self._store.execute(
                    "INSERT INTO events SELECT sequence, id, payload FROM refused ORDER BY sequence"
                ).rowcount
                self._store.execute("DELETE FROM refused")
                self._count_anew()
            return moved

        return self._store.run(move)

    def purge(self, *parts: Part) -> dict[Part, int]:
        """Delete what waits, or the dead letters, or both, for good; return how many of each."""

        def delete() -> dict[Part, int]:
            with self._store.transaction():
                gone = {
                    part: self._store.execute(
                        "DELETE FROM events" if part == "waiting" else "DELETE FROM refused"
                    ).rowcount
                    for part in parts
                }
                self._count_anew()
            return gone

        return self._store.run(delete)

    def export(self, *parts: Part) -> Iterator[dict[str, Any]]:
        """Yield every event of these parts, oldest first, with `reason` and `time` of a refusal."""
        for part in parts:
            columns = "payload, NULL, NULL" if part == "waiting" else "payload, reason, time"
            table = "events" if part == "waiting" else "refused"
            query = f"SELECT sequence, {columns} FROM {table} WHERE sequence > ? ORDER BY sequence LIMIT ?"
            after = 0
            while rows := self._read(query, after):
                for sequence, payload, reason, time in rows:
                    after = sequence
                    yield {"state": part, "reason": reason, "time": time, "event": json.loads(payload)}

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _read(self, query: str, after: int) -> list[tuple[Any, ...]]:
        return self._store.run(lambda: self._store.execute(query, after, PAGE).fetchall())

    def _count_anew(self) -> None:
        self._store.execute("UPDATE totals SET value = (SELECT count(*) FROM events) WHERE name = 'waiting'")
        self._store.execute(
            "UPDATE totals SET value = (SELECT coalesce(sum(length(payload)), 0) FROM events) "
            "WHERE name = 'waiting_bytes'"
        )
