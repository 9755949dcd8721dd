"""Opens a TFLite file on a backend in this process."""

from __future__ import annotations

from pathlib import Path

from edge.inference.delegates import open_delegate, open_edge_tpu
from edge.inference.gpu import open_gpu
from edge.inference.interpreter import open_cpu
from edge.inference.tensors import Model


def open_here(path: Path, backend: str, *, threads: int) -> Model:
    """Open `path` on `backend` without a trial: a driver that crashes ends this process."""
    if backend == "gpu":
        return open_gpu(path, threads=threads)
    if backend == "edgetpu":
        return open_edge_tpu(path, threads=threads)
    if backend.startswith("delegate:"):
        return open_delegate(path, backend, threads=threads)
    return open_cpu(path, threads=threads)
