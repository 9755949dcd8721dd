"""Opens a TFLite file on a backend: the CPU, or an accelerator after a trial in a child process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.errors import ModelError
from edge.inference.backend_selection import best_ms
from edge.inference.delegates import check_edge_tpu, check_library
from edge.inference.engines import open_here
from edge.inference.tensors import Model
from edge.inference.trial import try_backend
from edge.sources.devices import list_accelerators

BACKENDS = ("cpu", "gpu", "edgetpu")  # and delegate:/path.so?key=value


def load_model(path: Path, *, backend: str = "cpu", threads: int = 1) -> Model:
    """Open `path` on `backend`: cpu, gpu, edgetpu or delegate:/path.so?key=value&key=value.

    An accelerator is tried in a child process first, because its driver may crash or hang. Raises
    `ModelError` for a file that is not a model, and `DeviceError` (reason no_device, no_permission,
    abi_mismatch or op_unsupported) for an accelerator that cannot be used.
    """
    check_backend(backend)
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; reinstall emotion-edge, or check models.directory")
    if backend != "cpu":
        try_backend(path, backend, threads=threads)
    return open_here(path, backend, threads=threads)


def time_model(path: Path, *, backend: str, threads: int = 1) -> float:
    """Return the time of a run in ms; an accelerator is timed in a child process, which frees it.

    Raises the errors of `load_model`.
    """
    if backend != "cpu":
        check_backend(backend)
        return try_backend(path, backend, threads=threads)
    model = open_here(path, "cpu", threads=threads)
    zeros = [np.zeros(info.shape, np.float32) for info in model.inputs]
    return best_ms(lambda: model.run(*zeros))


def check_backend(backend: str) -> None:
    """Raise the errors that need no trial: unknown backend, missing device or library, no permission."""
    if backend.startswith("delegate:"):
        check_library(backend)
    elif backend == "edgetpu":
        check_edge_tpu()
    elif backend not in BACKENDS:
        known = ", ".join((*BACKENDS, "delegate:/path.so?key=value"))
        raise ModelError(f"backend {backend!r}: unknown; use auto or one of {known}")


def candidate_backends() -> tuple[str, ...]:
    """Return the backends to try on this device, the fastest kind first and `cpu` last.

    An accelerator that lacks a library or a permission is included: opening it gives the reason.
    """
    present = {device.token for device in list_accelerators()}
    return tuple(name for name in ("edgetpu", "gpu", "cpu") if name in present)
