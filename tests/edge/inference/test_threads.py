"""The commands of the device keep numpy's matrix products on one thread."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COUNT_THREADS = """
import os
from edge.__main__ import main
main(["config", "schema"])
import numpy
numpy.ones((300, 257)) @ numpy.ones((257, 40))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor, so numpy makes no thread anyway")
@pytest.mark.parametrize(("wish", "threads"), [(None, 1), ("2", 2)])
def test_matrix_products_make_no_threads(wish: str | None, threads: int) -> None:
    """OpenBLAS creates no threads unless the environment sets a number."""
    settings = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    if wish is not None:
        environment["OPENBLAS_NUM_THREADS"] = wish
    done = subprocess.run(
        [sys.executable, "-c", COUNT_THREADS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert int(done.stdout.splitlines()[-1]) == threads
