"""Reads a TFLite file as a list of operations on tensors, without running it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edge.errors import ModelError

PART_BYTES = 4  # at least, of each part; a tensor has about 100 with its four sides
IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TFLite file
# Raised by the generated reader on a damaged file: it checks no offset.
DAMAGE = (struct.error, ValueError, IndexError, TypeError, AttributeError, KeyError, OverflowError)


def _names(enumeration: type) -> dict[int, str]:
    return {value: key for key, value in vars(enumeration).items() if isinstance(value, int)}


OPERATIONS = _names(schema.BuiltinOperator)
DTYPES = {value: name.lower() for value, name in _names(schema.TensorType).items()}
ACTIVATIONS = _names(schema.ActivationFunctionType)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor; scale and zero point are 0 for floats, and those of the first channel if they differ.

    `values` is set for constant integers only, such as axes and paddings.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    is_dynamic: bool
    is_constant: bool
    is_variable: bool  # state that the file keeps from one run to the next
    values: NDArray[Any] | None

    @property
    def rows(self) -> int:
        """The number of vectors along the last dimension."""
        return prod(self.shape[:-1])


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation: `name` from the TFLite schema or of a custom operation, and its options by name."""

    index: int
    name: str
    is_custom: bool
    subgraph: int
    inputs: tuple[Tensor | None, ...]  # None for an optional input that is missing
    outputs: tuple[Tensor, ...]
    activation: str  # the fused activation, or `NONE`
    options: dict[str, Any]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs that are present, then the outputs."""
        return (*(tensor for tensor in self.inputs if tensor is not None), *self.outputs)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The operations of a file in execution order; the bodies of loops come last."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operations: tuple[Operation, ...]


def read_graph(path: Path) -> Graph:
    """Read the operations of `path`; raise `ModelError` if it is missing, empty, damaged or not a model."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file; `emotion-convert convert` makes one") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give a readable TFLite file") from None
    if not content:
        raise ModelError(f"{path}: is empty; convert the model again")
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{path}: not a TFLite file; `emotion-convert convert` makes one of a Keras model")
    try:
        model = schema.Model.GetRootAs(content, 0)
        if _part_count(model, len(content)) * PART_BYTES > len(content):
            raise ValueError("many references to one part")
        return _graph(schema.ModelT.InitFromObj(model))
    except DAMAGE:
        raise ModelError(f"{path}: a damaged TFLite file; convert the model again") from None


def _part_count(model: Any, enough: int) -> int:
    """Return the number of tensors, operations, their sides and inputs; stop at `enough`.

    Many references to one part make a small file a gigantic graph, so they are counted before it is built.
    """
    count: int = model.SubgraphsLength()
    for k in range(min(count, enough)):
        subgraph = model.Subgraphs(k)
        tensors, operators = subgraph.TensorsLength(), subgraph.OperatorsLength()
        count += tensors + operators
        if count > enough:
            return count
        count += sum(subgraph.Tensors(j).ShapeLength() for j in range(tensors))
        for raw in map(subgraph.Operators, range(operators)):
            count += raw.InputsLength() + raw.OutputsLength()
    return count


def _graph(model: Any) -> Graph:
    operations: list[Operation] = []
    tensors: list[list[Tensor]] = []
    for number, subgraph in enumerate(model.subgraphs):
        tensors.append([_tensor(k, raw, model.buffers) for k, raw in enumerate(subgraph.tensors)])
        for raw in _list(subgraph.operators):
            operations.append(_operation(len(operations), raw, number, tensors[-1], model.operatorCodes))
    main = model.subgraphs[0]
    return Graph(
        inputs=tuple(tensors[0][k] for k in main.inputs),
        outputs=tuple(tensors[0][k] for k in main.outputs),
        operations=tuple(operations),
    )


def _tensor(index: int, raw: Any, buffers: list[Any]) -> Tensor:
    shape = tuple(int(side) for side in _list(raw.shape))
    quantized = raw.quantization is not None and raw.quantization.scale is not None
    data = _list(buffers[raw.buffer].data)
    dtype = DTYPES[raw.type]
    values = None
    if dtype in ("int32", "int64") and len(data):
        values = np.frombuffer(bytes(data), dtype).reshape(shape)
    return Tensor(
        index=index,
        name=raw.name.decode() if raw.name is not None else "",
        shape=shape,
        dtype=dtype,
        scale=float(raw.quantization.scale[0]) if quantized else 0.0,
        zero_point=int(raw.quantization.zeroPoint[0]) if quantized else 0,
        is_dynamic=-1 in (*shape, *_list(raw.shapeSignature)),
        is_constant=len(data) > 0,
        is_variable=bool(raw.isVariable),
        values=values,
    )


def _operation(index: int, raw: Any, subgraph: int, tensors: list[Tensor], codes: list[Any]) -> Operation:
    code = codes[raw.opcodeIndex]
    # Files older than the 128th operation have its number in the first field alone.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    options = vars(raw.builtinOptions) if raw.builtinOptions is not None else {}
    is_custom = number == schema.BuiltinOperator.CUSTOM
    return Operation(
        index=index,
        name=code.customCode.decode() if is_custom else OPERATIONS[number],
        is_custom=is_custom,
        subgraph=subgraph,
        inputs=tuple(tensors[k] if k >= 0 else None for k in _list(raw.inputs)),
        outputs=tuple(tensors[k] for k in _list(raw.outputs)),
        activation=ACTIVATIONS[options.get("fusedActivationFunction", 0)],
        options=options,
    )


def _list(values: Any) -> Any:
    """Return an empty tuple for None, which Flatbuffers return for an empty vector."""
    return () if values is None else values
