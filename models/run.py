"""What a user asks of a training run, and how it reports progress."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # takes (done, total)
# Opens a progress bar with a title.
Bar = Callable[[str], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True)
class Run:
    """Options of one training run: data sets in `data`, artifacts into `out`.

    `epochs` replaces the recipe's number; `resume` continues after the last finished epoch.
    """

    data: Path
    out: Path
    epochs: int | None
    resume: bool
    report: Report
    bar: Bar


def available_cores() -> int:
    """Return `OMP_NUM_THREADS` if it is set, otherwise the number of cores that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))
