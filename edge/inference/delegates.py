"""Accelerators with a delegate library: the Edge TPU, and `delegate:/path.so?key=value&key=value`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from edge.errors import DeviceError
from edge.inference.interpreter import InterpreterEngine, runtime
from edge.inference.tensors import Model, first_line
from edge.sources.devices import edge_tpu_nodes

EDGE_TPU_LIBRARY = "libedgetpu.so.1"


def parse_delegate(backend: str) -> tuple[str, dict[str, str]]:
    """Return the library and the options of a `delegate:` token."""
    library, _, query = backend.removeprefix("delegate:").partition("?")
    return library, dict(parse_qsl(query, keep_blank_values=True))


def check_library(backend: str) -> None:
    """Raise `DeviceError` for a library that is missing or not readable."""
    library, _ = parse_delegate(backend)
    try:
        Path(library).open("rb").close()
    except PermissionError:
        raise DeviceError(
            f"inference.backend {backend}: not permitted; `chmod a+r {library}`, and its directories too",
            reason="no_permission",
        ) from None
    except OSError:
        raise DeviceError(f"inference.backend {backend}: no such library; install it, or use cpu") from None


def check_edge_tpu() -> None:
    """Raise `DeviceError` when no Edge TPU is plugged in or this user may not open it."""
    nodes = edge_tpu_nodes()
    if not nodes:
        raise DeviceError("inference.backend edgetpu: no Coral Edge TPU is connected; connect it, or use cpu")
    if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        raise DeviceError(
            f"inference.backend edgetpu: {nodes[0]} is not permitted; "
            "`sudo usermod -aG plugdev,apex $USER` and log in again",
            reason="no_permission",
        )


def open_edge_tpu(path: Path, *, threads: int) -> Model:
    """Open an `_edgetpu.tflite` file on the Coral Edge TPU; raise `DeviceError` where that fails."""
    return _open(path, "edgetpu", EDGE_TPU_LIBRARY, {}, threads)


def open_delegate(path: Path, backend: str, *, threads: int) -> Model:
    """Open a file with the delegate that `backend` names; raise `DeviceError` where that fails."""
    library, options = parse_delegate(backend)
    return _open(path, backend, library, options, threads)


def _open(path: Path, backend: str, library: str, options: dict[str, str], threads: int) -> Model:
    delegate = _load(backend, library, options)
    try:
        engine = InterpreterEngine(path, threads=threads, delegates=[delegate])
    except (ValueError, RuntimeError) as error:
        raise DeviceError(
            f"inference.backend {backend}: cannot run {path.name} ({first_line(error)}); use cpu",
            reason="op_unsupported",
        ) from error
    return Model(engine, backend=backend)


def _load(backend: str, library: str, options: dict[str, str]) -> Any:
    try:
        return runtime().load_delegate(library, options)
    except AttributeError as error:
        raise DeviceError(
            f"inference.backend {backend}: {library} is not a TFLite delegate ({first_line(error)}); "
            "name another library, or use cpu",
            reason="abi_mismatch",
        ) from error
    except OSError as error:
        raise DeviceError(
            f"inference.backend {backend}: {library} does not load ({first_line(error)}); "
            "install the build for this machine, or use cpu",
            reason=_reason_of(str(error), library),
        ) from error
    except ValueError as error:  # the library found no device; its own message follows in the second line
        detail = " ".join(str(error).splitlines()[1:]) or "no details"
        raise DeviceError(
            f"inference.backend {backend}: {library} found no device ({detail}); check the device, or use cpu"
        ) from error


def _reason_of(text: str, library: str) -> str:
    if "Permission denied" in text:
        return "no_permission"
    # glibc reports "No such file" for a library of another architecture too. A library with a path exists:
    # `check_library` has opened it.
    missing = text.startswith(f"{library}: cannot open shared object file: No such file")
    return "no_device" if missing and "/" not in library else "abi_mismatch"
