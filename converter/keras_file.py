"""Copies a Keras file without what Keras must not read: checks sizes, members and links before that."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

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
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MEMBERS = ("metadata.json", CONFIG, WEIGHTS)  # of a `.keras` archive; others are not copied
# A file may not become much larger in memory than it is: trained weights hardly compress.
MAX_EXPANSION = 20
SMALL_BYTES = 64 << 20  # of contents; accepted from files of any size
MAX_CONFIG_BYTES = 8 << 20  # the configuration of a network with a thousand layers has 1 MB
_SAVE_AGAIN = "save the model again"


def copy_cleaned(source: Path, copy: Path) -> None:
    """Copy a `.keras` or `.h5` file, by the suffix of `copy`, without the keys of `STALE_KEYS`.

    Raises `ModelError` for contents much larger than the file, and for arrays that lie in other files. For a
    damaged file zipfile, h5py and json raise many types.
    """
    size = source.stat().st_size
    if copy.suffix == ".h5":
        shutil.copyfile(source, copy)
        _clean_h5(copy, size)
        return
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(copy, "w") as new:
        entries = [old.getinfo(name) for name in MEMBERS if name in old.namelist()]
        _check_size(sum(entry.file_size for entry in entries), size)
        for entry in entries:
            # A read ends at the size that the directory of the archive states.
            with old.open(entry) as file:
                if entry.filename == CONFIG:
                    _check_config(entry.file_size)
                    new.writestr(CONFIG, json.dumps(_cleaned(json.loads(file.read()))))
                elif entry.filename == WEIGHTS:
                    _copy_weights(file, new, copy.with_name(WEIGHTS), size)
                else:
                    new.writestr(entry.filename, file.read())


def _clean_h5(path: Path, file_bytes: int) -> None:
    import h5py

    _check_arrays(path, file_bytes)
    with h5py.File(path, "r+") as file:
        text = file.attrs["model_config"]
        _check_config(len(text))
        file.attrs["model_config"] = json.dumps(_cleaned(json.loads(text)))


def _copy_weights(file: Any, archive: zipfile.ZipFile, part: Path, file_bytes: int) -> None:
    """Copy the weights into the archive after a check; `part` is a scratch file."""
    try:
        with part.open("wb") as target:
            shutil.copyfileobj(file, target)
        _check_arrays(part, file_bytes)
        archive.write(part, WEIGHTS)
    finally:
        part.unlink(missing_ok=True)


def _check_arrays(path: Path, file_bytes: int) -> None:
    """Raise `ModelError` if an HDF5 file refers to other files, or if its arrays are much larger than it."""
    import h5py

    total = 0

    # h5py visits until one of these returns something; an error that they raise is lost.
    def check_link(name: str, link: object) -> str | None:
        return f"{name!r} is a link to another file" if isinstance(link, h5py.ExternalLink) else None

    def check_array(name: str, item: object) -> str | None:
        nonlocal total
        if not isinstance(item, h5py.Dataset):
            return None
        if item.is_virtual or item.external:
            return f"{name!r} has its values in another file"
        if item.dtype.kind == "O":  # of any length, which HDF5 may store once for many elements
            return f"{name!r} has texts as values"
        total += item.nbytes
        return None

    with h5py.File(path, "r") as file:
        if problem := file.visititems_links(check_link) or file.visititems(check_array):
            raise ModelError(f"{problem}; {_SAVE_AGAIN}")
    _check_size(total, file_bytes)


def _check_size(total_bytes: int, file_bytes: int) -> None:
    if total_bytes > max(SMALL_BYTES, MAX_EXPANSION * file_bytes):
        raise ModelError(
            f"a file of {file_bytes} bytes that becomes {total_bytes}: not trained weights; {_SAVE_AGAIN}"
        )


def _check_config(size: int) -> None:
    if size > MAX_CONFIG_BYTES:
        raise ModelError(f"its configuration has {size} bytes, above {MAX_CONFIG_BYTES}; {_SAVE_AGAIN}")


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
