"""The effect of a fault on the events: one row of the table, and the loads of both forms."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

IS_FULL = os.environ.get("CHAOS") == "full"

ORDER = ["daemon", "broker", "both, at once", "network", "cluster", "fleet", "disk", "damage", "page"]

T = TypeVar("T")


def pick(short: T, full: T) -> T:
    """Return the load of `make chaos`, or the short one of `make test`."""
    return full if IS_FULL else short


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario: `lost`, `duplicated` and `out_of_order` count events; `recover_s` is the longest time.

    Lost is what was stored and never arrived, save what the outbox itself counts as dropped. Out of order
    are first deliveries with a sequence below one of the same device that came before.
    """

    test: str
    load: str
    fault: str
    lost: int
    duplicated: int
    out_of_order: int
    recover_s: float
    note: str = ""
    dead_letters: int = 0


def format_outcomes(outcomes: Sequence[Outcome], *, is_terminal: bool) -> str:
    """Return the table for a terminal, or tab-separated lines for a pipe."""
    outcomes = sorted(outcomes, key=lambda outcome: ORDER.index(outcome.test))
    head = [field.name.replace("_", " ") for field in dataclasses.fields(Outcome)]
    rows = [
        [f"{value:.1f}" if isinstance(value, float) else str(value) for value in dataclasses.astuple(outcome)]
        for outcome in outcomes
    ]
    if not is_terminal:
        return "\n".join("\t".join(row) for row in [head, *rows])
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    # pytest holds stdout, so rich cannot see the terminal by itself.
    console = Console(force_terminal=True, width=shutil.get_terminal_size().columns)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def save_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write the rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2) + "\n")
