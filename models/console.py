"""What `emotion-models` and `emotion-convert` share: messages on stderr, errors as exit codes."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from edge.errors import EXIT_FAILURE, EdgeError

# Progress and notes go to stderr, so that `--json` alone stands in a pipe.
screen = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print a line for people, unwrapped."""
    screen.print(text, markup=False, soft_wrap=True)


def positive(text: str) -> int:
    """Read an option that counts something; argparse reports the error."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def run_command(parser: argparse.ArgumentParser, argv: Sequence[str] | None, *, stopped: str) -> int:
    """Parse `argv`, run the chosen command, return its exit code; `stopped` is said after Ctrl-C."""
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    args = parser.parse_args(argv)
    try:
        code: int = args.command(args)
    except EdgeError as error:
        say(f"{parser.prog}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say(f"{parser.prog}: {stopped}")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has enough; stdout must not be flushed into it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return code
