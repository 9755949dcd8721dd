"""Runs a TFLite file: floats in, floats out, on the CPU or on an accelerator.

`ai-edge-litert` is tried first, then `tflite-runtime`, the last one that the Coral libraries match.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge.errors import DeviceError, ModelError
from edge.values import Float32

# One of them at a time: the silencing below swaps the process's stderr for a moment.
_creating = threading.Lock()


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output: shape, dtype, and how its integers map to numbers (scale 0 = floats)."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    def quantize(self, values: Float32) -> NDArray[Any]:
        """Map floats to this tensor's integers: q = clip(rint(x / scale) + zero_point, qmin, qmax)."""
        if not self.scale:
            return values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        q = np.rint(values / np.float32(self.scale)) + self.zero_point
        return cast(NDArray[Any], np.clip(q, limits.min, limits.max).astype(self.dtype))

    def dequantize(self, q: NDArray[Any]) -> Float32:
        """Map this tensor's integers back: x = (q - zero_point) * scale."""
        if not self.scale:
            return q.astype(np.float32, copy=False)
        return cast(Float32, (q.astype(np.float32) - self.zero_point) * np.float32(self.scale))


class Model:
    """An opened TFLite file; `run` may be called from one thread at a time."""

    def __init__(self, interpreter: Any, *, backend: str) -> None:
        self._interpreter = interpreter
        self.backend = backend
        self.inputs = tuple(_tensor_info(detail) for detail in interpreter.get_input_details())
        self.outputs = tuple(_tensor_info(detail) for detail in interpreter.get_output_details())

    def run(self, *arrays: Float32) -> tuple[Float32, ...]:
        """Feed one float32 array an input, in order, and return one float32 array an output.

        Raises `ModelError` when the shapes are not the model's.
        """
        if len(arrays) != len(self.inputs):
            raise ModelError(f"{len(arrays)} arrays given to a model with {len(self.inputs)} inputs")
        for info, values in zip(self.inputs, arrays, strict=True):
            if values.shape != info.shape:
                raise ModelError(f"input of shape {values.shape} given to a model that takes {info.shape}")
            self._interpreter.set_tensor(info.index, info.quantize(values))
        # A fused LSTM keeps its state from one call to the next: every call here is a window of its own.
        self._interpreter.reset_all_variables()
        self._interpreter.invoke()
        return tuple(info.dequantize(self._interpreter.get_tensor(info.index)) for info in self.outputs)


def load_model(path: Path, *, backend: str = "cpu", threads: int = 1) -> Model:
    """Open `path` on `backend`: cpu, auto, gpu, edgetpu or delegate:/path.so.

    Raises `ModelError` when the file is not a model, `DeviceError` (reason no_device, no_permission,
    abi_mismatch or op_unsupported) when the accelerator cannot be used. `auto` is the CPU where no
    Edge TPU answers.
    """
    name = backend.partition(":")[0]
    try:
        opener = _BACKENDS[name]
    except KeyError:
        raise ModelError(f"backend {backend!r}: unknown; use one of {', '.join(_BACKENDS)}") from None
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; reinstall emotion-edge, or check models.directory")
    return opener(path, backend, threads)


def _open_cpu(path: Path, _backend: str, threads: int) -> Model:
    try:
        return Model(_interpreter(path, threads, []), backend="cpu")
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a TFLite model that runs here ({_first_line(error)})") from error


def _open_auto(path: Path, backend: str, threads: int) -> Model:
    if path.name.endswith("_edgetpu.tflite"):
        with contextlib.suppress(DeviceError):
            return _open_edgetpu(path, backend, threads)
    return _open_cpu(path, backend, threads)


def _open_edgetpu(path: Path, _backend: str, threads: int) -> Model:
    return _open_delegate(path, "delegate:libedgetpu.so.1", threads, name="edgetpu")


def _open_delegate(path: Path, backend: str, threads: int, name: str = "delegate") -> Model:
    library = backend.partition(":")[2]
    if library.startswith("/"):
        if not Path(library).exists():
            raise DeviceError(f"inference.backend {backend}: no such library; install it or use cpu")
        if not os.access(library, os.R_OK):
            raise DeviceError(
                f"inference.backend {backend}: not readable; check its permissions", reason="no_permission"
            )
    try:
        delegate = _runtime().load_delegate(library)
    except (OSError, ValueError) as error:
        reason = "abi_mismatch" if "symbol" in str(error) or "ELF" in str(error) else "no_device"
        raise DeviceError(
            f"inference.backend {name}: {library} cannot be used ({_first_line(error)}); "
            "check the device and its library, or use cpu",
            reason=reason,
        ) from error
    try:
        return Model(_interpreter(path, threads, [delegate]), backend=name)
    except (ValueError, RuntimeError) as error:
        raise DeviceError(
            f"inference.backend {name}: cannot run {path.name} ({_first_line(error)}); use cpu",
            reason="op_unsupported",
        ) from error


def _open_gpu(path: Path, _backend: str, _threads: int) -> Model:
    raise DeviceError(f"inference.backend gpu: {path.name} has no GPU path in this release; use cpu")


_BACKENDS: dict[str, Callable[[Path, str, int], Model]] = {
    "cpu": _open_cpu,
    "auto": _open_auto,
    "gpu": _open_gpu,
    "edgetpu": _open_edgetpu,
    "delegate": _open_delegate,
}


@cache
def _runtime() -> ModuleType:
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        try:
            from tflite_runtime import interpreter
        except ImportError:
            raise ModelError("no TFLite runtime is installed; `pip install ai-edge-litert`") from None
    return cast(ModuleType, interpreter)


def _interpreter(path: Path, threads: int, delegates: list[Any]) -> Any:
    with _creating, _without_notices():
        interpreter = _runtime().Interpreter(
            model_path=str(path), num_threads=threads, experimental_delegates=delegates or None
        )
        interpreter.allocate_tensors()
    return interpreter


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Hold back what the C++ side writes to stderr; pass on all but INFO lines, which no setting stops."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if not line.startswith(b"INFO:"):
                    os.write(2, line)


def _tensor_info(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        index=detail["index"],
        shape=tuple(int(side) for side in detail["shape"]),
        dtype=np.dtype(detail["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
