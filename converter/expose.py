"""Makes a network's embedding an output of its TFLite file, beside the probabilities; no weight changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from converter.graph import DAMAGE, IDENTIFIER, OPERATIONS
from edge.errors import ModelError

# Behind `output` in the alphabet: a signature's runner gives its outputs in that order.
OUTPUT = "output_embedding"


def expose(content: bytes, *, name: str) -> bytes:
    """Return the TFLite file `content` with what its last dense layer reads as a second output.

    That is the mean over places or steps, (1, n) of the file's own type, behind the probabilities. A file
    that has it already comes back as it is. Raises `ModelError`, naming the file `name`, when it is no TFLite
    file or does not end in a mean, a dense layer and a softmax.
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
            f"{name}: does not end in a mean, a dense layer and a softmax, so it has no embedding to give; "
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
    """Do so to the file `path`, in one piece; raise `ModelError` where it cannot be."""
    try:
        content = path.read_bytes()
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(expose(content, name=str(path)))
        part.replace(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be changed ({error.strerror}); check the path") from None


def _embedding(model: Any, graph: Any) -> int | None:
    """Return the tensor that the last dense layer reads, when a mean made it; else None."""
    maker = {int(operation.outputs[0]): operation for operation in graph.operators}

    def made_by(tensor: int, kind: str) -> Any:
        operation = maker.get(tensor)
        if operation is None:
            return None
        code = model.operatorCodes[operation.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return operation if OPERATIONS[number] == kind else None

    tensor = int(graph.outputs[0])
    for kind in ("SOFTMAX", "FULLY_CONNECTED"):
        operation = made_by(tensor, kind)
        if operation is None:
            return None
        tensor = int(operation.inputs[0])
    return tensor if made_by(tensor, "MEAN") is not None else None
