"""Measures what quantization does to each layer, by running a file and its float variant side by side."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from converter.compare import FLOATS
from converter.graph import Graph, Operation, Tensor, read_graph
from edge.errors import ModelError
from edge.inference.backends import TensorInfo
from edge.values import Float32

# They change between floats and integers; a layer is what stands between them.
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
# They move numbers and compute none, so their noise is their input's.
MOVES = ("RESHAPE", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "SLICE", "PACK", "UNPACK", "SQUEEZE", "EXPAND_DIMS",
         "TRANSPOSE", "CONCATENATION", "PAD")  # fmt: skip
MOST_DB = 120.0  # where nothing differs; JSON has no infinity
# TFLite numbers the outputs of an operation by digits after its name; Keras numbers layers after a `_`.
_OUTPUT_NUMBER = re.compile(r"(?<=[^\d_])\d+$")


class Probe:
    """An opened file that keeps every tensor, on plain kernels: those of XNNPACK keep none."""

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
            raise ModelError(f"{path}: not a TFLite model that runs here ({error})") from error

    def run(self, values: Float32) -> None:
        """Compute every tensor for one input."""
        (tensor,) = self.graph.inputs
        self._interpreter.set_tensor(tensor.index, _info(tensor).quantize(values))
        self._interpreter.invoke()

    def read(self, tensor: Tensor) -> Float32:
        """Return what a tensor holds after a run, as floats."""
        return _info(tensor).dequantize(self._interpreter.get_tensor(tensor.index))


def _info(tensor: Tensor) -> TensorInfo:
    return TensorInfo(tensor.index, tensor.shape, np.dtype(tensor.dtype), tensor.scale, tensor.zero_point)


def layer_noise(path: Path, reference: Path, inputs: Sequence[Float32]) -> tuple[list[dict[str, Any]], int]:
    """Compare every layer of `path` with the same one of the float file `reference`, over all `inputs`.

    Returns `{"layer", "operation", "sqnr_db", "added_db"}` each, worst first, and how many layers have no
    partner. `sqnr_db` is 10 log10 of signal over noise at the output, noise of earlier layers included;
    `added_db` is what is lost between the noisiest input and it, which is where quantization hurts.
    """
    ours, theirs = Probe(path), Probe(reference)
    pairs = dict(_pairs(ours.graph, theirs.graph))
    signal: dict[int, float] = defaultdict(float)
    noise: dict[int, float] = defaultdict(float)
    for values in inputs:
        ours.run(values)
        theirs.run(values)
        for index, (tensor, partner) in pairs.items():
            exact = theirs.read(partner).astype(np.float64).reshape(tensor.shape)
            signal[index] += float(np.sum(exact**2))
            noise[index] += float(np.sum((ours.read(tensor) - exact) ** 2))
    decibels = {index: _decibels(signal[index], noise[index]) for index in pairs}
    rows, unmatched = [], 0
    for operation in _layers(ours.graph):
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
    """Return the layer's own part of a tensor's name: without the model, and of what was fused only one."""
    first = name.partition(";")[0]
    return first.partition("/")[2] or first


def _pairs(ours: Graph, theirs: Graph) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Match tensors of the same name and size, in order; the numbers after names differ, and sides of 1."""
    waiting: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
    for tensor in _computed(theirs):
        waiting[_key(tensor)].append(tensor)
    for tensor, partner in zip(ours.inputs, theirs.inputs, strict=True):
        yield tensor.index, (tensor, partner)
    # The answers are partners whatever they are called: a file may have been made with other names.
    answer, exact = ours.outputs[0], theirs.outputs[0]
    if answer.shape == exact.shape and exact.dtype in FLOATS:
        yield answer.index, (answer, exact)
    for tensor in _computed(ours):
        if tensor.index == answer.index:
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
        return MOST_DB if not noise else -MOST_DB
    return float(np.clip(10 * np.log10(signal / noise), -MOST_DB, MOST_DB))
