"""Runs a TFLite file: floats in, floats out, on the CPU or on an accelerator."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.errors import ModelError
from edge.inference.backend_selection import best_ms
from edge.inference.delegates import check_edge_tpu, check_library, open_delegate, open_edge_tpu
from edge.inference.gpu import open_gpu
from edge.inference.interpreter import open_cpu
from edge.inference.tensors import Model, TensorInfo
from edge.inference.trial import probe
from edge.sources.devices import list_accelerators

__all__ = [
    "BACKENDS",
    "Model",
    "TensorInfo",
    "candidate_backends",
    "check_backend",
    "load_model",
    "open_here",
    "time_model",
]

BACKENDS = ("cpu", "gpu", "edgetpu")  # besides delegate:/path.so?key=value


def load_model(path: Path, *, backend: str = "cpu", threads: int = 1) -> Model:
    """Open `path` on `backend`: cpu, gpu, edgetpu or delegate:/path.so?key=value&key=value.

    An accelerator is tried in a child process first: its driver may crash or hang. Raises `ModelError`
    when the file is not a model, `DeviceError` (reason no_device, no_permission, abi_mismatch or
    op_unsupported) when the accelerator cannot be used.
    """
    check_backend(backend)
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; reinstall emotion-edge, or check models.directory")
    if backend != "cpu":
        probe(path, backend, threads=threads)
    return open_here(path, backend, threads=threads)


def time_model(path: Path, *, backend: str, threads: int = 1) -> float:
    """Return how long a run takes in ms; an accelerator stays in a child, so that nothing of it remains.

    Raises as `load_model` does.
    """
    if backend != "cpu":
        check_backend(backend)
        return probe(path, backend, threads=threads)
    model = open_cpu(path, threads=threads)
    zeros = [np.zeros(info.shape, np.float32) for info in model.inputs]
    return best_ms(lambda: model.run(*zeros))


def check_backend(backend: str) -> None:
    """Raise at once what needs no trial: no such backend, no such device or library, not permitted."""
    if backend.startswith("delegate:"):
        check_library(backend)
    elif backend == "edgetpu":
        check_edge_tpu()
    elif backend not in BACKENDS:
        known = ", ".join((*BACKENDS, "delegate:/path.so?key=value"))
        raise ModelError(f"backend {backend!r}: unknown; use auto or one of {known}")


def open_here(path: Path, backend: str, *, threads: int) -> Model:
    """Do what `load_model` does without trying first: a crash of the driver is a crash of this process."""
    if backend == "gpu":
        return open_gpu(path, threads=threads)
    if backend == "edgetpu":
        return open_edge_tpu(path, threads=threads)
    if backend.startswith("delegate:"):
        return open_delegate(path, backend, threads=threads)
    return open_cpu(path, threads=threads)


def candidate_backends() -> tuple[str, ...]:
    """Return the backends worth trying on this device, the most promising first and `cpu` last.

    An accelerator that is here but cannot be used (a library, a permission) is among them: opening it
    says why.
    """
    present = {device.token for device in list_accelerators()}
    return tuple(name for name in ("edgetpu", "gpu", "cpu") if name in present)
