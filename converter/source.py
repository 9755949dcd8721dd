"""Reads trained models: `.keras` and `.h5` of Keras 3 and of `tf_keras`, and SavedModel directories."""

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

# Keys that `tf_keras` writes and Keras 3 refuses, although their values are the defaults of Keras 3.
# Measured: without them Keras 3 loads LSTM, GRU, Bidirectional and CNNs of tf_keras 2.21 with equal outputs.
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
_SAVE_AGAIN = "save the model again"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# A file may not become much larger in memory than it is: trained weights hardly compress.
MAX_EXPANSION = 20
SMALL_BYTES = 64 << 20  # of contents; accepted from files of any size
MAX_CONFIG_BYTES = 64 << 20
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
        _without_stale_keys(source, copy)
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


def _check_counts(source: Path, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        raise ModelError(f"{source}: {inputs} inputs and {outputs} outputs; supported are one of each")


def _check_shape(source: Path, shape: tuple[int | None, ...]) -> None:
    if None in shape[1:]:
        raise ModelError(f"{source}: input shape {shape[1:]} is not fixed; give every dimension a size")


def _why_not_loaded(error: Exception) -> str:
    text = str(error)
    custom = re.search(r"(?:Could not locate (?:class|function)|Unknown \w+:) '?([\w.>]+)", text)
    if custom:
        return f"uses the custom object {custom[1]}, whose code is not in the file; use layers of Keras"
    if re.search(r"\bLambda\b", text):
        return "uses a Lambda layer, and code from a model file is not run; use layers of Keras"
    return f"does not load as a Keras model ({first_line(error)}); save it as .keras"


def _without_stale_keys(source: Path, copy: Path) -> None:
    import h5py

    size = source.stat().st_size
    if copy.suffix == ".h5":
        shutil.copyfile(source, copy)
        _check_datasets(copy, size)
        with h5py.File(copy, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(_cleaned(config))
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(copy, "w") as new:
        _check_size(sum(entry.file_size for entry in old.infolist()), size)
        for entry in old.infolist():
            # A read ends at the size that the directory of the archive states.
            with old.open(entry) as file:
                if entry.filename == "config.json":
                    if entry.file_size > MAX_CONFIG_BYTES:
                        raise ModelError(f"its config.json has {entry.file_size} bytes; {_SAVE_AGAIN}")
                    new.writestr(entry.filename, json.dumps(_cleaned(json.loads(file.read()))))
                    continue
                with new.open(entry.filename, "w", force_zip64=True) as target:
                    shutil.copyfileobj(file, target)
        weights = [name for name in old.namelist() if name.endswith(".h5")]
    with zipfile.ZipFile(copy) as archive:
        for name in weights:
            part = copy.with_name("weights.h5")
            try:
                with archive.open(name) as file, part.open("wb") as target:
                    shutil.copyfileobj(file, target)
                _check_datasets(part, size)
            finally:
                part.unlink(missing_ok=True)


def _check_datasets(path: Path, file_bytes: int) -> None:
    """Raise `ModelError` where the arrays of an HDF5 file are much larger than the file."""
    import h5py

    total = 0

    def add(_name: str, item: object) -> None:
        nonlocal total
        if isinstance(item, h5py.Dataset):
            total += item.nbytes

    with h5py.File(path, "r") as file:
        file.visititems(add)
    _check_size(total, file_bytes)


def _check_size(total_bytes: int, file_bytes: int) -> None:
    if total_bytes > max(SMALL_BYTES, MAX_EXPANSION * file_bytes):
        raise ModelError(
            f"a file of {file_bytes} bytes that becomes {total_bytes}: not trained weights; {_SAVE_AGAIN}"
        )


def _cleaned(node: Any) -> Any:
    """Return the configuration of a model without the keys of `STALE_KEYS`."""
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if not isinstance(node, dict):
        return node
    cleaned = {key: _cleaned(value) for key, value in node.items()}
    if isinstance(config := cleaned.get("config"), dict):
        for key in STALE_KEYS.get(str(node.get("class_name")), ()):
            config.pop(key, None)
        if node.get("class_name") == "BatchNormalization" and isinstance(config.get("axis"), list):
            (config["axis"],) = config["axis"]  # `tf_keras` writes [3] for 3
    return cleaned


def _loops(graph: Any) -> set[str]:
    """Return the names of the loop operations in a graph, except in LSTMs that the converter fuses."""
    operations = {node.op for node in graph.node}
    for function in graph.library.function:
        if "api_implements" not in function.attr:
            operations |= {node.op for node in function.node_def}
    return operations & LOOPS
