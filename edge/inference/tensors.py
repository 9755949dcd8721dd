"""Tensors with their scales, and a model on any backend: floats in, floats out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from edge.errors import DeviceError, ModelError
from edge.values import Float32


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output: shape, dtype, and the mapping of its integers to floats (scale 0: none)."""

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


class Engine(Protocol):
    """A loaded file on one backend; arrays have the dtypes of its tensors."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def invoke(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once; `RuntimeError` or `ValueError` when the backend cannot."""


class Model:
    """An opened TFLite file; `run` may be called from one thread at a time."""

    def __init__(self, engine: Engine, *, backend: str) -> None:
        self._engine = engine
        self.backend = backend
        self.inputs = engine.inputs
        self.outputs = engine.outputs
        self._feeds = tuple(_Feed(info) for info in engine.inputs)

    def run(self, *arrays: Float32) -> tuple[Float32, ...]:
        """Take one float32 array per input, in order, and return one float32 array per output.

        Raises `ModelError` for other shapes than the model's, `DeviceError` where the accelerator fails.
        """
        if len(arrays) != len(self.inputs):
            raise ModelError(f"{len(arrays)} arrays given to a model with {len(self.inputs)} inputs")
        for info, values in zip(self.inputs, arrays, strict=True):
            if values.shape != info.shape:
                raise ModelError(f"input of shape {values.shape} given to a model that takes {info.shape}")
        feeds = [feed.fill(values) for feed, values in zip(self._feeds, arrays, strict=True)]
        try:
            results = self._engine.invoke(feeds)
        except (RuntimeError, ValueError) as error:
            if self.backend == "cpu":
                raise ModelError(f"the model does not run ({first_line(error)}); convert it again") from error
            raise DeviceError(
                f"inference.backend {self.backend}: failed while it ran ({first_line(error)}); "
                "check the device, or use cpu"
            ) from error
        return tuple(info.dequantize(q) for info, q in zip(self.outputs, results, strict=True))


class _Feed:
    """The integers of one input in a reused buffer: it takes a third less time than new arrays."""

    def __init__(self, info: TensorInfo) -> None:
        self._info = info
        if info.scale:
            limits = np.iinfo(info.dtype)
            self._limits = (float(limits.min), float(limits.max))
            self._exact = np.empty(info.shape, np.float32)
            self._integers = np.empty(info.shape, info.dtype)

    def fill(self, values: Float32) -> NDArray[Any]:
        """Return the result of `TensorInfo.quantize` in the buffer; it is valid until the next call."""
        info = self._info
        if not info.scale:
            return info.quantize(values)
        exact = self._exact
        np.divide(values, np.float32(info.scale), out=exact)
        np.rint(exact, out=exact)
        np.add(exact, np.float32(info.zero_point), out=exact)
        np.clip(exact, *self._limits, out=exact)
        np.copyto(self._integers, exact, casting="unsafe")
        return self._integers


def first_line(error: Exception) -> str:
    """Return the first line of the message of a library, for an error message."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
