"""The TFLite interpreter: the CPU (XNNPACK), with delegates for some of the operations.

The runtime is `ai-edge-litert`, or else `tflite-runtime`, the last one that works with the Coral libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference.tensors import Model, TensorInfo, first_line
from edge.native_output import NOTICES, held_output


class InterpreterEngine:
    """A file in an interpreter; each of `delegates` in turn takes the operations that it supports."""

    def __init__(self, path: Path, *, threads: int, delegates: Sequence[Any] = ()) -> None:
        with held_output(NOTICES):
            self._interpreter = runtime().Interpreter(
                model_path=str(path), num_threads=threads, experimental_delegates=list(delegates) or None
            )
            self._interpreter.allocate_tensors()
        self.inputs = tuple(_tensor_info(detail) for detail in self._interpreter.get_input_details())
        self.outputs = tuple(_tensor_info(detail) for detail in self._interpreter.get_output_details())

    def invoke(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; `RuntimeError` or `ValueError` when the backend cannot."""
        for info, values in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(info.index, values)
        # A fused LSTM keeps its state between calls, but each call here is a new window.
        self._interpreter.reset_all_variables()
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(info.index) for info in self.outputs]


def open_cpu(path: Path, *, threads: int) -> Model:
    """Open a file on the CPU; raise `ModelError` when it is not a model that runs here."""
    try:
        return Model(InterpreterEngine(path, threads=threads), backend="cpu")
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not a TFLite model that runs here ({first_line(error)})") from error


@cache
def runtime() -> ModuleType:
    """Return the interpreter module of the TFLite runtime; raise `ModelError` when none is installed."""
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        try:
            from tflite_runtime import interpreter
        except ImportError:
            raise ModelError("no TFLite runtime is installed; `pip install ai-edge-litert`") from None
    return cast(ModuleType, interpreter)


def _tensor_info(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        index=detail["index"],
        shape=tuple(int(side) for side in detail["shape"]),
        dtype=np.dtype(detail["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )
