"""Filters what native libraries write to stdout and stderr, where they have no setting for it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

# One block at a time, because the descriptors belong to the whole process.
_holding = threading.Lock()

NOTICES = re.compile(rb"INFO: ")
# Lines of LiteRT, of glog and of Dawn, and their continuation lines.
ALL_NATIVE = re.compile(
    rb"(INFO|VERBOSE|WARNING|ERROR): |[IWEF]\d{4} \d\d:|Warning: "
    rb"|=== Source|third_party/| - |    at |\xe2\x94\x94|\s*$"
)


@contextlib.contextmanager
def held_output(drop: re.Pattern[bytes]) -> Iterator[list[bytes]]:
    """Hold both streams during the block, then write the lines whose beginning does not match `drop`.

    The yielded list is empty inside the block and has all lines after it.
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
