"""Reads trained models: `.keras` and `.h5` of Keras 3 and of `tf_keras`, and SavedModel directories."""

from __future__ import annotations

import errno
import re
import zipfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from converter.keras_file import copy_cleaned
from edge.errors import ModelError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAX_INPUT_VALUES = 1 << 26  # 256 MB as floats
LOOPS = {"While", "StatelessWhile", "TensorListReserve"}


def source_kind(source: Path) -> str:
    """Return `saved_model`, `keras` or `h5`, by content; raise `ModelError` for other files."""
    if source.is_dir():
        if (source / "saved_model.pb").is_file():
            return "saved_model"
        raise ModelError(
            f"{source}: a directory without saved_model.pb; give a SavedModel, a .keras or an .h5"
        )
    if not source.is_file():
        raise ModelError(f"{source}: no such model; `emotion-models train` makes one")
    try:
        with source.open("rb") as file:
            is_h5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    except OSError as error:
        raise ModelError(f"{source}: cannot be read ({error.strerror}); check its permissions") from None
    if not is_h5 and not zipfile.is_zipfile(source):
        raise ModelError(
            f"{source}: neither a .keras nor an .h5 file; save the model again with model.save('x.keras')"
        )
    return "h5" if is_h5 else "keras"


def read_model(source: Path, scratch: Path) -> Any:
    """Load a Keras file; raise `ModelError` unless it has one input of fixed shape and one output.

    Raises `OSError` when `scratch`, which receives a copy, is full.
    """
    import keras

    copy = scratch / f"source.{source_kind(source)}"
    try:
        copy_cleaned(source, copy)
        model = keras.models.load_model(copy, compile=False)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    except Exception as error:  # Keras raises many types here, from KeyError to zipfile.BadZipFile
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        raise ModelError(f"{source}: {_why_not_loaded(error)}") from error
    finally:
        copy.unlink(missing_ok=True)
    if not getattr(model, "inputs", None):
        raise ModelError(f"{source}: the model has no defined input; build it with keras.Input(shape)")
    _check_counts(source, len(model.inputs), len(model.outputs))
    _check_shape(source, tuple(model.inputs[0].shape))
    check_weights(source, model.get_weights())
    return model


def read_saved_model(source: Path, target: Path, *, is_integer: bool) -> tuple[int, ...]:
    """Write the serving signature of a SavedModel to `target` with batch 1; return its input shape.

    A SavedModel has no layers to rewrite and keeps its loops, which are refused if `is_integer`.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(source))
        serve = loaded.signatures["serving_default"]
    except Exception as error:  # many types, from OSError to the parser's
        raise ModelError(
            f"{source}: not a SavedModel with a serving signature ({first_line(error)}); export it again"
        ) from error
    inputs = serve.structured_input_signature[1]
    _check_counts(source, len(inputs), len(serve.structured_outputs))
    ((name, spec),) = inputs.items()
    if spec.dtype != tf.float32:
        raise ModelError(f"{source}: has {spec.dtype.name} input; export a model with float32 input")
    shape = tuple(spec.shape)
    _check_shape(source, shape)
    check_weights(source, [variable.numpy() for variable in loaded.variables])
    loops = _loops(serve.graph.as_graph_def())
    if shape[0] is None and "TensorListReserve" in loops:
        raise ModelError(
            f"{source}: has a loop over a batch of any size, which TFLite does not support; give the .keras "
            "file or a batch of 1: model.export(DIR, input_signature=[keras.InputSpec(shape=(1, ...))])"
        )
    if is_integer and loops:
        raise ModelError(
            f"{source}: has a loop ({', '.join(sorted(loops))}), which cannot be calibrated; "
            "give the .keras file instead, or use --to float32 or dynamic"
        )
    module = tf.Module()
    module.loaded = loaded
    fixed = tf.TensorSpec((1, *shape[1:]), tf.float32, name="input")
    module.serve = tf.function(
        lambda x: {"output": next(iter(serve(**{name: x}).values()))}, input_signature=[fixed]
    )
    tf.saved_model.save(module, str(target), signatures=module.serve)
    return shape[1:]


def check_weights(source: Path, weights: list[Any]) -> None:
    """Raise `ModelError` when a weight is not finite."""
    for weight in weights:
        if np.issubdtype(weight.dtype, np.floating) and not np.all(np.isfinite(weight)):
            raise ModelError(
                f"{source}: a weight is not a finite number; train it again with a lower learning rate"
            )


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, at most 200 characters."""
    # The TensorFlow compiler prints a long location first.
    if message := re.search(r"error: ('tf\.\w+' op .*)", str(error)):
        return message[1][:200]
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a library ran into the limit of `memory.limited_memory`."""
    return isinstance(error, MemoryError) or bool(re.search(r"OOM when allocating|bad_alloc", str(error)))


def _check_counts(source: Path, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise ModelError(f"{source}: {inputs} inputs and {outputs} outputs; supported are one of each")


def _check_shape(source: Path, shape: tuple[int | None, ...]) -> None:
    if None in shape[1:]:
        raise ModelError(f"{source}: input shape {shape[1:]} is not fixed; give every dimension a size")
    if prod(size for size in shape[1:] if size) > MAX_INPUT_VALUES:
        raise ModelError(
            f"{source}: input shape {shape[1:]} has over {MAX_INPUT_VALUES} values; give it a smaller one"
        )


def _why_not_loaded(error: Exception) -> str:
    if is_out_of_memory(error):
        return "has layers that need much more memory than a model of its size; save the model again"
    text = str(error)
    custom = re.search(r"(?:Could not locate (?:class|function)|Unknown \w+:) '?([\w.>]+)", text)
    if custom:
        return f"uses the custom object {custom[1]}, whose code is not in the file; use layers of Keras"
    if re.search(r"\bLambda\b", text):
        return "uses a Lambda layer, and code from a model file is not run; use layers of Keras"
    return f"does not load as a Keras model ({first_line(error)}); save it as .keras"


def _loops(graph: Any) -> set[str]:
    """Return the names of the loop operations in a graph, except in LSTMs that the converter fuses."""
    operations = {node.op for node in graph.node}
    for function in graph.library.function:
        if "api_implements" not in function.attr:
            operations |= {node.op for node in function.node_def}
    return operations & LOOPS
