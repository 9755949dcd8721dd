"""`emotion-edge outbox`: shows, retries, exports and deletes the events of the outbox."""

from __future__ import annotations

import json
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from edge.commands.console import print_table
from edge.config import outbox_path
from edge.delivery.messages import outbox_counts
from edge.delivery.outbox.dead_letters import PARTS, Contents, DeadLetters, Part
from edge.delivery.outbox.rows import Refused
from edge.errors import EXIT_FAILURE, EXIT_OK, EdgeError
from edge.settings import Config

SHOWN = 20  # dead letters in the table


def run_outbox(
    config: Config,
    action: Literal["show", "retry", "export", "purge"],
    parts: tuple[Part, ...],
    *,
    output: Path | None,
    is_sure: bool,
    as_json: bool,
) -> int:
    """Run `action` on the outbox of `config`; return the exit code."""
    with closing(DeadLetters(outbox_path(config))) as outbox:
        if action == "retry":
            return retry(outbox, as_json=as_json)
        if action == "export":
            return export(outbox, parts, output=output)
        if action == "purge":
            return purge(outbox, parts, is_sure=is_sure, as_json=as_json)
        return show(outbox, as_json=as_json)


def show_result(contents: Contents, dead_letters: list[Refused]) -> dict[str, Any]:
    """Return what `outbox --json` prints."""
    return {
        **outbox_counts(contents.counts),
        "kept_dead_letters": contents.dead_letters,
        "dead_letters": [
            {"sequence": row.sequence, "id": row.id, "reason": row.reason, "time": row.time}
            for row in dead_letters
        ],
    }


def action_result(name: str, *, waiting: int = 0, refused: int = 0, is_done: bool = True) -> dict[str, Any]:
    """Return what `outbox retry --json` and `outbox purge --json` print."""
    return {"action": name, "waiting": waiting, "refused": refused, "done": is_done}


def show(outbox: DeadLetters, *, as_json: bool) -> int:
    """Print the totals and the newest dead letters."""
    dead_letters = outbox.refused(SHOWN)
    result = show_result(outbox.contents(), dead_letters)
    if as_json:
        print(json.dumps(result, indent=2))
        return EXIT_OK
    print_table(("events", "count"), [(name, str(n)) for name, n in result.items() if isinstance(n, int)])
    if dead_letters:
        rows = [(str(row.sequence), row.reason, row.time) for row in dead_letters]
        print_table(("sequence", "reason", "time"), rows)
    return EXIT_OK


def retry(outbox: DeadLetters, *, as_json: bool) -> int:
    """Put the dead letters back into the queue and print their number."""
    moved = outbox.retry()
    if as_json:
        print(json.dumps(action_result("retry", refused=moved)))
    else:
        print(f"{moved} dead letters are waiting again; a running daemon sends them now")
    return EXIT_OK


def purge(outbox: DeadLetters, parts: tuple[Part, ...], *, is_sure: bool, as_json: bool) -> int:
    """Delete the events of `parts` for good; without `is_sure`, print their numbers and return 1."""
    contents = outbox.contents()
    present: dict[Part, int] = {"waiting": contents.counts.waiting, "refused": contents.dead_letters}
    deleted = outbox.purge(*parts) if is_sure else present
    counts = {str(part): deleted[part] for part in parts}
    if as_json:
        print(json.dumps(action_result("purge", **counts, is_done=is_sure)))
    else:
        words = {"waiting": "events that were never sent", "refused": "dead letters"}
        list_of = " and ".join(f"{number} {words[part]}" for part, number in counts.items())
        print(f"deleted {list_of}" if is_sure else f"would delete {list_of}; add --yes to delete them")
    return EXIT_OK if is_sure else EXIT_FAILURE


def export(outbox: DeadLetters, parts: tuple[Part, ...], *, output: Path | None) -> int:
    """Write one JSON line for each event to standard output, or to `output`, which must not exist yet."""
    if output is None:
        for entry in outbox.export(*parts):
            print(json.dumps(entry, ensure_ascii=False))
        return EXIT_OK
    count = 0
    try:
        # Mode 600, because events hold people's emotions; O_EXCL, so that no file is overwritten.
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for entry in outbox.export(*parts):
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                count += 1
    except OSError as error:
        if isinstance(error, EdgeError):
            raise
        raise EdgeError(f"{output}: {error.strerror}; name a new file on a disk with free space") from error
    print(f"{count} events written to {output}", file=sys.stderr)
    return EXIT_OK


def select_parts(*, waiting: bool, refused: bool) -> tuple[Part, ...]:
    """Return the parts selected on the command line, or both if none is."""
    named = tuple(part for part, is_named in zip(PARTS, (waiting, refused), strict=True) if is_named)
    return named or PARTS
