"""Holds back what native libraries write to stdout and stderr: no setting of theirs stops it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

# One at a time: the descriptors belong to the whole process.
_holding = threading.Lock()

NOTICES = re.compile(rb"INFO: ")
# The forms of LiteRT, of glog, of Dawn's warnings and of the lines that continue them.
ALL_NATIVE = re.compile(
    rb"(INFO|VERBOSE|WARNING|ERROR): |[IWEF]\d{4} \d\d:|Warning: "
    rb"|=== Source|third_party/| - |    at |\xe2\x94\x94|\s*$"
)


@contextlib.contextmanager
def held_output(drop: re.Pattern[bytes]) -> Iterator[list[bytes]]:
    """Hold both streams while the block lasts, then pass on the lines that do not begin like `drop`.

    The list is empty inside the block and has every line after it.
    """
    lines: list[bytes] = []
    with _holding, contextlib.ExitStack() as stack:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor in (1, 2):
            stack.enter_context(_held(descriptor, drop, lines))
        yield lines


@contextlib.contextmanager
def _held(descriptor: int, drop: re.Pattern[bytes], lines: list[bytes]) -> Iterator[None]:
    saved = os.dup(descriptor)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), descriptor)
        try:
            yield
        finally:
            os.dup2(saved, descriptor)
            os.close(saved)
            held.seek(0)
            for line in held:
                lines.append(line)
                if not drop.match(line):
                    os.write(descriptor, line)
