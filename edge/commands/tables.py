"""Prints a table: drawn on a terminal, tab-separated lines into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on a terminal and tab-separated lines into a pipe."""
    if not sys.stdout.isatty():
        print("\t".join(head))
        for row in rows:
            print("\t".join(row))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
