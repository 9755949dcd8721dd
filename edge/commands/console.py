"""Output that all commands share: tables, and a sign of life during long work.

A terminal gets drawn tables, a pipe gets tab-separated lines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on a terminal, or tab-separated lines into a pipe."""
    if not sys.stdout.isatty():
        print("\t".join(head))
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


@contextmanager
def show_working(text: str) -> Iterator[None]:
    """Show a spinner with `text` on a terminal while the block runs; print nothing into a pipe."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
