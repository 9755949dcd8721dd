"""Writes small TFLite files of chosen operations, some of which no converter would write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


@dataclass(frozen=True)
class T:
    """A tensor: shape, dtype, and the constant integers in it, if it is constant."""

    shape: tuple[int, ...]
    dtype: str = "INT8"
    values: Sequence[int] | None = None
    is_dynamic: bool = False


@dataclass(frozen=True)
class Op:
    """An operation; its options are the fields of the schema's class for them."""

    name: str
    inputs: Sequence[T]
    outputs: Sequence[T]
    options: dict[str, Any] = field(default_factory=dict)
    custom: str | None = None


OPTIONS = {
    "AVERAGE_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions", "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions", "FULLY_CONNECTED": "FullyConnectedOptions",
    "PACK": "PackOptions", "STRIDED_SLICE": "StridedSliceOptions",
}  # fmt: skip


def vector(*values: int) -> T:
    """Return a constant of int32."""
    return T((len(values),), "INT32", values)


def write_graph(path: Path, operations: Sequence[Op], *, inputs: int = 1) -> Path:
    """Write the operations in a row; a tensor that is used twice is one tensor. Return the path.

    The first `inputs` of the first operation are the model's.
    """
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
    graph.tensors, graph.operators = [], []
    known: dict[int, int] = {}

    def index(tensor: T) -> int:
        if id(tensor) not in known:
            known[id(tensor)] = len(graph.tensors)
            graph.tensors.append(_tensor(tensor, len(graph.tensors), model))
        return known[id(tensor)]

    for operation in operations:
        graph.operators.append(_operator(operation, index, model))
    graph.inputs = [index(tensor) for tensor in operations[0].inputs[:inputs]]
    graph.outputs = [index(operations[-1].outputs[0])]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(tensor: T, number: int, model: Any) -> Any:
    raw = schema.TensorT()
    raw.name, raw.shape = f"model/t{number}", list(tensor.shape)
    raw.type = getattr(schema.TensorType, tensor.dtype)
    if tensor.is_dynamic:
        raw.shapeSignature = [-1, *tensor.shape[1:]]
    if tensor.values is not None:
        buffer = schema.BufferT()
        buffer.data = np.asarray(tensor.values, tensor.dtype.lower()).view(np.uint8)
        raw.buffer = len(model.buffers)
        model.buffers.append(buffer)
    if tensor.dtype == "INT8":
        raw.quantization = schema.QuantizationParametersT()
        raw.quantization.scale, raw.quantization.zeroPoint = [0.5], [-1]
    return raw


def _operator(operation: Op, index: Any, model: Any) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operation.name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.customCode = operation.custom
    model.operatorCodes.append(code)
    raw = schema.OperatorT()
    raw.opcodeIndex = len(model.operatorCodes) - 1
    raw.inputs = [index(tensor) for tensor in operation.inputs]
    raw.outputs = [index(tensor) for tensor in operation.outputs]
    if operation.name in OPTIONS:
        kind = OPTIONS[operation.name]
        raw.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        raw.builtinOptions = getattr(schema, f"{kind}T")()
        for key, value in operation.options.items():
            assert hasattr(raw.builtinOptions, key), key
            setattr(raw.builtinOptions, key, value)
    return raw
