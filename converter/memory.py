"""Limits the memory of the process while it works with a model file, which may declare layers of any size."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import ModelError

MAX_FILE_BYTES = (1 << 31) - 1  # of a TFLite file, whose offsets have 31 bits
BASE_BYTES = 2 << 30  # measured: 0.8 GB for TensorFlow and a model of 5 MB
PER_BYTE = 40  # for each byte of the file: copies of the weights, graphs, calibration


@contextmanager
def limited_memory(file: Path) -> Iterator[None]:
    """Limit the data of this process, and of its children, while the block lasts.

    Raises `ModelError` for a file that is larger than a TFLite file can be, and when the block needs more
    memory. TensorFlow may also end the process.
    """
    size = (
        file.stat().st_size
        if file.is_file()
        else sum(path.stat().st_size for path in file.rglob("*") if path.is_file())
    )
    if size > MAX_FILE_BYTES:
        raise ModelError(f"{file}: has {size} bytes, above {MAX_FILE_BYTES}, the limit of TFLite")
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = _data_bytes() + BASE_BYTES + PER_BYTE * size
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (_smaller(allowed, limits[0]), limits[1]))
        yield
    except MemoryError:
        raise ModelError(
            f"{file}: needs more than {allowed >> 20} MB of memory; give a smaller model"
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def _smaller(limit: int, other: int) -> int:
    return limit if other == resource.RLIM_INFINITY else min(limit, other)


def _data_bytes() -> int:
    """Return the size of what the limit counts: private memory that can be written."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))
