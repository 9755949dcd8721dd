"""Prints what `emotion-edge outbox` finds and does: tables for people, JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from edge.commands.tables import print_table
from edge.delivery.messages import outbox_counts
from edge.delivery.outbox.dead_letters import PARTS, Contents, DeadLetters, Part
from edge.delivery.outbox.queue import Refused
from edge.errors import EXIT_FAILURE, EXIT_OK, EdgeError

SHOWN = 20


def contents(what: Contents, letters: list[Refused]) -> dict[str, Any]:
    """Return what `outbox --json` prints."""
    return {
        **outbox_counts(what.counts),
        "kept_dead_letters": what.dead_letters,
        "dead_letters": [
            {"sequence": row.sequence, "id": row.id, "reason": row.reason, "time": row.time}
            for row in letters
        ],
    }


def action(name: str, *, waiting: int = 0, refused: int = 0, is_done: bool = True) -> dict[str, Any]:
    """Return what `outbox retry --json` and `outbox purge --json` print."""
    return {"action": name, "waiting": waiting, "refused": refused, "done": is_done}


def show(outbox: DeadLetters, *, as_json: bool) -> int:
    """Print the totals and the newest dead letters."""
    what, letters = outbox.contents(), outbox.refused(SHOWN)
    result = contents(what, letters)
    if as_json:
        print(json.dumps(result, indent=2))
        return EXIT_OK
    print_table(("what", "count"), [(name, str(n)) for name, n in result.items() if isinstance(n, int)])
    if letters:
        rows = [(str(row.sequence), row.reason, row.time) for row in letters]
        print_table(("sequence", "reason", "time"), rows)
    return EXIT_OK


def retry(outbox: DeadLetters, *, as_json: bool) -> int:
    """Put the dead letters back, and say how many."""
    moved = outbox.retry()
    if as_json:
        print(json.dumps(action("retry", refused=moved)))
    else:
        print(f"{moved} dead letters wait again; a running daemon sends them now")
    return EXIT_OK


def purge(outbox: DeadLetters, parts: tuple[Part, ...], *, is_sure: bool, as_json: bool) -> int:
    """Delete for good, or without `is_sure` say what would go, and return 1."""
    what = outbox.contents()
    there: dict[Part, int] = {"waiting": what.counts.waiting, "refused": what.dead_letters}
    gone = outbox.purge(*parts) if is_sure else there
    counts = {str(part): gone[part] for part in parts}
    if as_json:
        print(json.dumps(action("purge", **counts, is_done=is_sure)))
    else:
        words = {"waiting": "events that were never sent", "refused": "dead letters"}
        list_of = " and ".join(f"{number} {words[part]}" for part, number in counts.items())
        print(f"deleted {list_of}" if is_sure else f"would delete {list_of}; to do it, add --yes")
    return EXIT_OK if is_sure else EXIT_FAILURE


def export(outbox: DeadLetters, parts: tuple[Part, ...], *, output: Path | None) -> int:
    """Write one JSON line an event to `output`, which must be new, or to standard output."""
    if output is None:
        for entry in outbox.export(*parts):
            print(json.dumps(entry, ensure_ascii=False))
        return EXIT_OK
    count = 0
    try:
        # Private, since it says what people felt; and nothing that exists is overwritten.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for entry in outbox.export(*parts):
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        if isinstance(error, EdgeError):
            raise
        raise EdgeError(f"{output}: {error.strerror}; name a new file on a disk with room") from error
    print(f"{count} events written to {output}", file=sys.stderr)
    return EXIT_OK


def chosen(*, waiting: bool, refused: bool) -> tuple[Part, ...]:
    """Return the parts that were named on the command line; both, where none was."""
    named = tuple(part for part, is_named in zip(PARTS, (waiting, refused), strict=True) if is_named)
    return named or PARTS
