"""The counts of a target: one row of the table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Column, Table

from tests.fuzz.worker import Result

COLUMNS: dict[Result, str] = {
    "refused": "refused in one sentence",
    "accepted": "accepted",
    "traceback": "tracebacks",
    "hang": "hangs",
    "canary": "leaked canaries",
    "crash": "crashes",
}
FINDINGS: tuple[Result, ...] = ("traceback", "hang", "canary", "crash")


@dataclass(slots=True)
class Tally:
    """How many inputs of a target had each result; `peak_mb` is the most memory of its reader."""

    target: str
    seed: int
    counts: dict[Result, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    peak_mb: float = 0.0

    @property
    def tries(self) -> int:
        return sum(self.counts.values())

    @property
    def findings(self) -> int:
        return sum(self.counts[result] for result in FINDINGS)


def make_table(tallies: Sequence[Tally]) -> Table:
    """Return a row a target."""
    target = Column("target", no_wrap=True)
    table = Table(target, "tries", *COLUMNS.values(), "peak memory", box=box.SIMPLE, padding=0)
    for tally in tallies:
        counts = [str(tally.counts[result]) for result in COLUMNS]
        table.add_row(tally.target, str(tally.tries), *counts, f"{tally.peak_mb:.0f} MB")
    return table


def save_tallies(tallies: Sequence[Tally], path: Path) -> None:
    """Write the rows as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(tally) | {"tries": tally.tries} for tally in tallies]
    path.write_text(json.dumps(rows, indent=2) + "\n")
