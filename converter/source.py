"""Reads what a user trained: `.keras` and `.h5` of Keras 3 and of `tf_keras`, and SavedModel directories."""

from __future__ import annotations

import errno
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import ModelError

# Keys that `tf_keras` writes and that Keras 3 refuses, although each says what Keras 3 does anyway. Measured:
# without them it loads LSTM, GRU, Bidirectional and CNNs of tf_keras 2.21 and answers the same bits.
STALE_KEYS = {
    "LSTM": ("time_major",),
    "GRU": ("time_major",),
    "SimpleRNN": ("time_major",),
    "RNN": ("time_major",),
    "DepthwiseConv1D": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LOOPS = {"While", "StatelessWhile", "TensorListReserve"}


def source_kind(source: Path) -> str:
    """Return `saved_model`, `keras` or `h5`, by content; raise `ModelError` for anything else."""
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
    """Load a Keras file; raise `ModelError` for what cannot become one TFLite file of fixed shapes.

    Raises `OSError` when `scratch`, where a copy is made, is full.
    """
    import keras

    copy = scratch / f"source.{source_kind(source)}"
    try:
        _without_stale_keys(source, copy)
        model = keras.models.load_model(copy, compile=False)
    except Exception as error:  # Keras raises anything from KeyError to zipfile.BadZipFile here
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        raise ModelError(f"{source}: {_why_not_loaded(error)}") from error
    finally:
        copy.unlink(missing_ok=True)
    if not getattr(model, "inputs", None):
        raise ModelError(f"{source}: the model does not say what it reads; build it with keras.Input(shape)")
    _check_ends(source, len(model.inputs), len(model.outputs))
    _check_shape(source, tuple(model.inputs[0].shape))
    check_weights(source, model.get_weights())
    return model


def read_saved_model(source: Path, target: Path, *, is_integer: bool) -> tuple[int, ...]:
    """Write the serving signature of a SavedModel to `target` with batch 1; return its input shape.

    Its layers are not known any more: it is converted as it is, so loops are refused where `is_integer`.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(source))
        serve = loaded.signatures["serving_default"]
    except Exception as error:  # anything from OSError to the parser's own
        raise ModelError(
            f"{source}: not a SavedModel with a serving signature ({first_line(error)}); export it again"
        ) from error
    inputs = serve.structured_input_signature[1]
    _check_ends(source, len(inputs), len(serve.structured_outputs))
    ((name, spec),) = inputs.items()
    if spec.dtype != tf.float32:
        raise ModelError(f"{source}: reads {spec.dtype.name}; export a model that reads float32")
    shape = tuple(spec.shape)
    _check_shape(source, shape)
    check_weights(source, [variable.numpy() for variable in loaded.variables])
    loops = _loops(serve.graph.as_graph_def())
    if shape[0] is None and "TensorListReserve" in loops:
        raise ModelError(
            f"{source}: has a loop over a batch of any size, which TFLite cannot hold; give the .keras file, "
            "or export a batch of 1: model.export(DIR, input_signature=[keras.InputSpec(shape=(1, ...))])"
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
    """Raise `ModelError` when a weight is not a number."""
    for weight in weights:
        if np.issubdtype(weight.dtype, np.floating) and not np.all(np.isfinite(weight)):
            raise ModelError(f"{source}: a weight is not a number; train it again with a lower learning rate")


def first_line(error: Exception) -> str:
    """Return what an error of someone else's says, short."""
    if complaint := re.search(
        r"error: ('tf\.\w+' op .*)", str(error)
    ):  # the compiler's, after a long location
        return complaint[1][:200]
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _check_ends(source: Path, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise ModelError(f"{source}: {inputs} inputs and {outputs} outputs; one of each is supported")


def _check_shape(source: Path, shape: tuple[int | None, ...]) -> None:
    if None in shape[1:]:
        raise ModelError(f"{source}: input shape {shape[1:]} is not fixed; give every side a size")


def _why_not_loaded(error: Exception) -> str:
    text = str(error)
    custom = re.search(r"(?:Could not locate (?:class|function)|Unknown \w+:) '?([\w.>]+)", text)
    if custom:
        return f"has the custom object {custom[1]}, which only its own code knows; use Keras's own layers"
    if re.search(r"\bLambda\b", text):
        return "has a Lambda layer, which is code and is not run here; use Keras's own layers"
    return f"not a Keras model that loads here ({first_line(error)}); save it as .keras"


def _without_stale_keys(source: Path, copy: Path) -> None:
    if copy.suffix == ".h5":
        import h5py

        shutil.copyfile(source, copy)
        with h5py.File(copy, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(_cleaned(config))
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(_cleaned(json.loads(content))).encode()
            new.writestr(name, content)


def _cleaned(node: Any) -> Any:
    """Return a model's configuration without the keys of `STALE_KEYS`."""
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if not isinstance(node, dict):
        return node
    cleaned = {key: _cleaned(value) for key, value in node.items()}
    if isinstance(config := cleaned.get("config"), dict):
        for key in STALE_KEYS.get(str(node.get("class_name")), ()):
            config.pop(key, None)
        if node.get("class_name") == "BatchNormalization" and isinstance(config.get("axis"), list):
            (config["axis"],) = config["axis"]  # [3] of `tf_keras` is 3 here
    return cleaned


def _loops(graph: Any) -> set[str]:
    """Return the kinds of loop in a graph, without the LSTMs that the converter fuses."""
    operations = {node.op for node in graph.node}
    for function in graph.library.function:
        if "api_implements" not in function.attr:
            operations |= {node.op for node in function.node_def}
    return operations & LOOPS
