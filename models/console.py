"""Shared by the commands `emotion-models` and `emotion-convert`: notes on stderr, errors as exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from edge.errors import EXIT_FAILURE, EdgeError

# Progress and notes go to stderr, so that a pipe receives the JSON alone.
screen = Console(stderr=True, highlight=False)


def print_note(text: str) -> None:
    """Print a line to stderr, without wrapping it."""
    screen.print(text, markup=False, soft_wrap=True)


def positive(text: str) -> int:
    """Parse the value of an option as an integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None, *, stopped: str) -> int:
    """Parse `argv`, run the command and return its exit code; print `stopped` after Ctrl-C."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    args = parser.parse_args(argv)
    try:
        code: int = args.command(args)
    except EdgeError as error:
        print_note(f"{parser.prog}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        print_note(f"{parser.prog}: {stopped}")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has closed the pipe; the flush of stdout at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return code
