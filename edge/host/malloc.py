"""Makes malloc return freed memory to the system; held for weeks, it looks like a leak but is not.

glibc gives each thread its own arena, up to eight for each processor, and an arena shrinks only at its end.
FFmpeg allocates and frees megabytes on new threads whenever a file or stream is opened, and drivers open on
threads of their own. The few blocks that outlive these threads keep every arena at its largest size: 20 MB
of free but resident memory, growing by 27 MB an hour while devices failed (`make soak`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

ARENAS = 2  # one for the thread that holds the interpreter lock, one more for FFmpeg's threads
_M_ARENA_MAX = -8  # malloc.h

_libc = ctypes.CDLL(None)  # other C libraries may lack the two functions, and do not need them


def limit_arenas() -> bool:
    """Make all later threads of this process share `ARENAS` arenas; False where malloc cannot do it.

    Call it before threads start, because existing arenas stay in use. The variable `MALLOC_ARENA_MAX`
    (mallopt(3)) does the same, but is only set where a unit file starts the daemon.
    """
    mallopt: Callable[[int, int], int] | None = getattr(_libc, "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, ARENAS) == 1


def release_free() -> bool:
    """Return free memory of the arenas to the system (malloc_trim(3)); return whether there was any.

    Takes 1 to 3 ms, during which other threads may wait for memory.
    """
    malloc_trim: Callable[[int], int] | None = getattr(_libc, "malloc_trim", None)
    return malloc_trim is not None and malloc_trim(0) == 1


def rss_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, by default of this one."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
