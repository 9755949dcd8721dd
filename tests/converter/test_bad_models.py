"""A model that cannot be converted gives one error with a remedy, its exit code, and no file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from converter.jobs import Job, check
from edge.errors import EdgeError, ModelError

keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
h5py = pytest.importorskip("h5py", reason="the [train] extra is not installed")
pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
from keras import layers  # noqa: E402

from converter.source import read_model  # noqa: E402

# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built:UserWarning"),
]

ROOT = Path(__file__).parents[2]


class Odd(layers.Layer):  # type: ignore[misc]
    """A custom layer, whose code is not in the model file."""

    def call(self, x: Any) -> Any:
        """Return the input."""
        return x


def dense(**options: Any) -> Any:
    """Return the smallest model."""
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, **options)])


def write_model(kind: str, path: Path) -> None:
    """Write a file that cannot be converted."""
    if kind == "text":
        path.write_text("this is no model")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "directory":
        path.mkdir()
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    elif kind == "cut":
        dense().save(path)
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "h5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    elif kind == "nan":
        model = dense()
        model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
        model.save(path)
    elif kind == "custom":
        keras.Sequential([keras.Input((3,)), Odd(), layers.Dense(2)]).save(path)
    elif kind == "lambda":
        keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)]).save(path)
    elif kind == "no input":
        keras.Sequential([layers.Dense(2)]).save(path)
    elif kind == "dynamic":
        x = keras.Input((None, None, 1))
        keras.Model(x, layers.GlobalAveragePooling2D()(x)).save(path)
    elif kind == "zip bomb":
        dense().save(path)
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("more.bin", bytes(100 << 20))
    elif kind in ("h5 bomb", "weights bomb"):
        bomb = path if kind == "h5 bomb" else path.with_name("weights.h5")
        if kind == "h5 bomb":
            dense().save(path.with_name("model.h5"))
            path.with_name("model.h5").rename(path)
        with h5py.File(bomb, "a") as file:
            file.create_dataset("zeros", (1 << 30,), "f4", chunks=True, compression="gzip")
        if kind == "weights bomb":
            dense().save(path)
            with zipfile.ZipFile(path) as good:
                config = good.read("config.json")
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("config.json", config)
                archive.write(bomb, "model.weights.h5")
    elif kind == "two inputs":
        a, b = keras.Input((3,)), keras.Input((3,))
        keras.Model([a, b], layers.Add()([a, b])).save(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such model"),
        ("text", r"neither a \.keras nor an \.h5 file"),
        ("empty", r"neither a \.keras nor an \.h5 file"),
        ("cut", r"neither a \.keras nor an \.h5 file"),
        ("directory", r"a directory without saved_model\.pb"),
        ("zip", "does not load as a Keras model"),
        ("h5", "does not load as a Keras model"),
        ("nan", "a weight is not a finite number"),
        ("custom", "uses the custom object Odd"),
        ("lambda", "uses a Lambda layer"),
        ("no input", "has no defined input"),
        ("dynamic", "is not fixed"),
        ("two inputs", "2 inputs and 1 outputs"),
        ("zip bomb", r"a file of \d+ bytes that becomes 1048\d+: "),
        ("h5 bomb", r"a file of \d+ bytes that becomes 4294967\d+: "),
        ("weights bomb", r"a file of \d+ bytes that becomes 4294967296: "),
    ],
)
def test_bad_model_is_refused_when_it_is_read(kind: str, message: str, tmp_path: Path) -> None:
    """`ModelError` names the file and the reason, and no copy of the file is left."""
    path, scratch = tmp_path / "bad.keras", tmp_path / "scratch"
    scratch.mkdir()
    write_model(kind, path)
    with pytest.raises(ModelError, match=message) as caught:
        read_model(path, scratch)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "int4"}, "--to int4: unknown; use one of float32"),
        ({"kind": "int8"}, "--to int8 needs --calibrate DIR"),
        ({"kind": "int16x8"}, "--to int16x8 needs --calibrate DIR"),
        ({"kind": "float32", "io": "integer"}, "--io integer: float32 computes in floats"),
        ({"kind": "dynamic", "ranges": "percentile"}, "--ranges percentile: dynamic has no ranges"),
        ({"kind": "float32", "recurrent": "roll"}, "--recurrent roll: unknown"),
    ],
)
def test_contradictory_options_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    """The check comes before TensorFlow starts."""
    dense().save(tmp_path / "good.keras")
    with pytest.raises(EdgeError, match=message):
        check(Job(tmp_path / "good.keras", tmp_path / "out.tflite", **options))


def start(directory: Path, source: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a conversion to float32 into `directory`."""
    command = [sys.executable, "-m", "converter", "convert", str(source), "--to", "float32"]
    return subprocess.Popen(
        [*command, "-o", str(directory / "out.tflite")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_broken_file_is_exit_4(tmp_path: Path) -> None:
    """An error of the child process becomes one message and the exit code of a bad model."""
    write_model("zip", tmp_path / "bad.keras")
    child = start(tmp_path / "out", tmp_path / "bad.keras")
    errors = child.communicate(timeout=120)[1]
    assert child.returncode == 4
    assert errors.splitlines()[-1].startswith("emotion-convert: ")
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_full_disk_is_one_message_and_no_file(tmp_path: Path) -> None:
    """A full disk, simulated by a limit of 4 kB per file, gives exit code 1 and leaves no file."""
    keras.Sequential([keras.Input((3,)), layers.Dense(4000)]).save(tmp_path / "big.keras")
    limit = 4096
    child = start(
        tmp_path / "out",
        tmp_path / "big.keras",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    errors = child.communicate(timeout=120)[1]
    assert child.returncode == 1, errors
    assert f"{tmp_path / 'out'}: cannot be written to" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    """After kill -9 of the command, the process that converts is gone as well."""
    dense().save(tmp_path / "good.keras")
    parent = start(tmp_path / "out", tmp_path / "good.keras")
    assert parent.stderr is not None
    assert "reading the model" in parent.stderr.readline()
    (child,) = psutil.Process(parent.pid).children()
    child.suspend()  # so that it does not end by itself
    parent.kill()
    parent.communicate(timeout=20)
    child.wait(10)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C during a conversion gives exit code 130 and removes unfinished files."""
    dense().save(tmp_path / "good.keras")
    child = start(tmp_path / "out", tmp_path / "good.keras")
    assert child.stderr is not None
    assert "reading the model" in child.stderr.readline()
    child.send_signal(signal.SIGINT)
    errors = child.communicate(timeout=120)[1]
    assert child.returncode == 130
    assert "stopped, nothing was written" in errors
    assert list((tmp_path / "out").iterdir()) == []
