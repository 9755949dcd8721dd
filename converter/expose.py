"""Adds the embedding of a network as a second output of its TFLite file; no weight changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from converter.graph import DAMAGE, IDENTIFIER, OPERATIONS
from edge.errors import ModelError

# Sorts after `output`: a signature runner returns its outputs in alphabetical order.
OUTPUT = "output_embedding"


def expose(content: bytes, *, name: str) -> bytes:
    """Return the TFLite file `content` with the input of its last dense layer as a second output.

    This embedding is the mean over positions or steps, (1, n) in the type of the file, after the
    probabilities. A file that already has it is returned unchanged. Raises `ModelError` with `name` when
    `content` is not a TFLite file or does not end in a mean, a dense layer and a softmax.
    """
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{name}: not a TFLite file; `emotion-convert convert` makes one of a Keras model")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        graph, signatures = model.subgraphs[0], model.signatureDefs or []
        if any(graph.tensors[index].name == OUTPUT.encode() for index in graph.outputs):
            return content
        index = _embedding(model, graph)
    except DAMAGE:
        raise ModelError(f"{name}: a damaged TFLite file; convert the model again") from None
    if index is None or len(graph.outputs) != 1:
        raise ModelError(
            f"{name}: does not end in a mean, a dense layer and a softmax, so it has no embedding; "
            "build it with GlobalAveragePooling before its only dense layer"
        )
    graph.outputs = [*graph.outputs, index]
    graph.tensors[index].name = OUTPUT.encode()
    for signature in signatures:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = OUTPUT.encode(), index
        signature.outputs = [*signature.outputs, entry]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def expose_file(path: Path) -> None:
    """Add the embedding to the file `path`, atomically; raise `ModelError` when that fails."""
    try:
        content = path.read_bytes()
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(expose(content, name=str(path)))
        part.replace(path)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be rewritten ({error.strerror}); check path and permissions"
        ) from None


def _embedding(model: Any, graph: Any) -> int | None:
    """Return the index of the input of the last dense layer, if that is the output of a mean; else None."""
    producers = {int(operation.outputs[0]): operation for operation in graph.operators}

    def producer(tensor: int, kind: str) -> Any:
        operation = producers.get(tensor)
        if operation is None:
            return None
        code = model.operatorCodes[operation.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return operation if OPERATIONS[number] == kind else None

    tensor = int(graph.outputs[0])
    for kind in ("SOFTMAX", "FULLY_CONNECTED"):
        operation = producer(tensor, kind)
        if operation is None:
            return None
        tensor = int(operation.inputs[0])
    return tensor if producer(tensor, "MEAN") is not None else None
