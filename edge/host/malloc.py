"""Keeps malloc from holding on to what the daemon has freed, which over weeks looks like a leak and is none.

glibc gives every thread an arena of its own, up to eight for each processor, and an arena shrinks only at
its end. FFmpeg makes and frees megabytes on new threads at each opening of a file or stream, drivers are
opened on threads of their own, and what little outlives them keeps each arena at its largest size: seen as
20 MB that were free and resident, and grew by 27 MB an hour while devices failed (`make soak`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

ARENAS = 2  # one more than a thread that holds the interpreter's lock needs; FFmpeg's threads share both
_M_ARENA_MAX = -8  # malloc.h

_libc = ctypes.CDLL(None)  # glibc; another C library may lack the two functions, and the trouble with them


def limit_arenas() -> bool:
    """Let all threads to come share `ARENAS` arenas, for the rest of the process; False where malloc cannot.

    Call it before threads are made: an arena that is there is used on. The same as `MALLOC_ARENA_MAX`
    (mallopt(3)), which only a unit file could set, and a daemon is started in other ways, too.
    """
    mallopt: Callable[[int, int], int] | None = getattr(_libc, "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, ARENAS) == 1


def release_free() -> bool:
    """Give free memory inside the arenas back to the system (malloc_trim(3)); tell whether there was any.

    Takes 1 to 3 ms here, during which other threads may have to wait for memory.
    """
    malloc_trim: Callable[[int], int] | None = getattr(_libc, "malloc_trim", None)
    return malloc_trim is not None and malloc_trim(0) == 1


def rss_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, of this one where none is named."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
