"""Measures the quantization noise of each layer, by running a file and its float variant on equal inputs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converter.comparison import FLOATS
from converter.graph import Graph, Operation, Tensor, read_graph
from edge.errors import ModelError
from edge.inference.tensors import TensorInfo
from edge.values import Float32

# Convert between floats and integers; they belong to no layer.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# Move values without computing, so that their noise is the noise of their input.
MOVES = ("RESHAPE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "SLICE", "PACK", "UNPACK", "SQUEEZE", "EXPAND_DIMS",
         "TRANSPOSE", "CONCATENATION", "PAD")  # fmt: skip
MAX_DB = 120.0  # for equal tensors, because JSON has no infinity
# TFLite appends digits to number the outputs of an operation; Keras numbers layers with `_` and digits.
_OUTPUT_NUMBER = re.compile(r"(?<=[^\d_])\d+$")


class TensorReader:
    """Runs a file and keeps every tensor; uses the built-in kernels, because XNNPACK keeps none."""

    def __init__(self, path: Path) -> None:
        self.graph = read_graph(path)
        try:
            self._interpreter = Interpreter(
                model_path=str(path),
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{path}: does not run here ({error}); convert the model again") from error

    def run(self, values: Float32) -> None:
        """Compute every tensor for one input."""
        (tensor,) = self.graph.inputs
        self._interpreter.set_tensor(tensor.index, _info(tensor).quantize(values))
        self._interpreter.invoke()

    def read(self, tensor: Tensor) -> Float32:
        """Return the values of a tensor after a run, as floats."""
        return _info(tensor).dequantize(self._interpreter.get_tensor(tensor.index))


def _info(tensor: Tensor) -> TensorInfo:
    return TensorInfo(tensor.index, tensor.shape, np.dtype(tensor.dtype), tensor.scale, tensor.zero_point)


def layer_noise(path: Path, reference: Path, inputs: Sequence[Float32]) -> tuple[list[dict[str, Any]], int]:
    """Compare every layer of `path` with the same layer of the float file `reference`, over all `inputs`.

    Returns `{"layer", "operation", "sqnr_db", "added_db"}` per layer, noisiest first, and the number of
    layers without a counterpart. `sqnr_db` is 10 log10(signal power / noise power) at the output, with the
    noise of earlier layers. `added_db` is the loss between the noisiest input and the output: the noise that
    this layer adds.
    """
    quantized, floats = TensorReader(path), TensorReader(reference)
    pairs = dict(_pairs(quantized.graph, floats.graph))
    signal: dict[int, float] = defaultdict(float)
    noise: dict[int, float] = defaultdict(float)
    for values in inputs:
        quantized.run(values)
        floats.run(values)
        for index, (tensor, counterpart) in pairs.items():
            exact = floats.read(counterpart).astype(np.float64).reshape(tensor.shape)
            signal[index] += float(np.sum(exact**2))
            noise[index] += float(np.sum((quantized.read(tensor) - exact) ** 2))
    decibels = {index: _decibels(signal[index], noise[index]) for index in pairs}
    rows, unmatched = [], 0
    for operation in _layers(quantized.graph):
        before = [decibels[t.index] for t in operation.inputs if t is not None and t.index in decibels]
        if operation.name in MOVES:
            decibels |= {tensor.index: min(before) for tensor in operation.outputs if before}
            continue
        output = operation.outputs[0]
        if output.index not in decibels:
            unmatched += 1
            continue
        rows.append(
            {
                "layer": short_name(output.name),
                "operation": operation.name,
                "sqnr_db": round(decibels[output.index], 1),
                "added_db": round(min(before) - decibels[output.index], 1) if before else None,
            }
        )
    return sorted(rows, key=lambda row: float(row["sqnr_db"])), unmatched


def short_name(name: str) -> str:
    """Return the layer's part of a tensor name: without the model, and only the first of fused layers."""
    first = name.partition(";")[0]
    return first.partition("/")[2] or first


def _pairs(quantized: Graph, floats: Graph) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Match tensors by name and shape, in order, ignoring numbers after names and dimensions of size 1."""
    waiting: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
    for tensor in _computed(floats):
        waiting[_key(tensor)].append(tensor)
    for tensor, counterpart in zip(quantized.inputs, floats.inputs, strict=True):
        yield tensor.index, (tensor, counterpart)
    # The outputs match under any name: another tool may have made one of the files.
    output, exact = quantized.outputs[0], floats.outputs[0]
    if output.shape == exact.shape and exact.dtype in FLOATS:
        yield output.index, (output, exact)
    for tensor in _computed(quantized):
        if tensor.index == output.index:
            continue
        found = waiting[_key(tensor)]
        if found and found[0].dtype in FLOATS:
            yield tensor.index, (tensor, found.pop(0))


def _computed(graph: Graph) -> Iterator[Tensor]:
    for operation in _layers(graph):
        if operation.name not in MOVES:
            yield from operation.outputs


def _layers(graph: Graph) -> Iterator[Operation]:
    return (o for o in graph.operations if o.name not in CONVERSIONS and not o.subgraph)


def _key(tensor: Tensor) -> tuple[Any, ...]:
    sides = [side for side in tensor.shape if side > 1]
    return (_OUTPUT_NUMBER.sub("", tensor.name.partition(";")[0]), *sides)


def _decibels(signal: float, noise: float) -> float:
    if not signal or not noise:
        return MAX_DB if not noise else -MAX_DB
    return float(np.clip(10 * np.log10(signal / noise), -MAX_DB, MAX_DB))
