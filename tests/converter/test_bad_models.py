"""A model that cannot be converted gives one error with a remedy, its exit code, and no file."""

from __future__ import annotations

import io
import json
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

from converter.__main__ import main  # noqa: E402
from converter.memory import limited_memory  # noqa: E402
from converter.source import HDF5_MAGIC, read_model  # noqa: E402
from tests.helpers.commands import run_here  # noqa: E402

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


def rewrite(path: Path, members: dict[str, bytes]) -> None:
    """Write a small model with these members in place of its own, or added to them."""
    dense().save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()} | members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_huge(kind: str, path: Path) -> None:
    """Write a small file whose configuration declares more memory than any machine has."""

    def grow(config: Any) -> bytes:
        first, layer = config["config"]["layers"]
        for part in (layer, config):
            part.pop("build_config", None)
        if kind == "huge input":
            first["config"]["batch_shape"] = [None, 1_000_000, 1_000_000]
        elif kind == "many large layers":
            copies = [json.loads(json.dumps(layer)) for _ in range(40)]
            for number, copy in enumerate(copies):
                copy["config"] |= {"name": f"more_{number}", "units": 8000}
            config["config"]["layers"] = [first, *copies, layer]
        else:
            layer["config"]["units"] = 10**9
        return json.dumps(config).encode()

    if kind == "huge .h5 layer":
        dense().save(path.with_name("model.h5"))
        path.with_name("model.h5").rename(path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = grow(json.loads(file.attrs["model_config"])).decode()
        return
    dense().save(path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    rewrite(path, {"config.json": grow(config)})


KERNEL = "layers/dense/vars/0"


def link_file(file: Any, directory: Path) -> None:
    """Take the weights from another HDF5 file."""
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink(str(directory / "other.h5"), "/secret")


def store_outside(file: Any, directory: Path) -> None:
    """Take the weights from the bytes of any file."""
    del file[KERNEL]
    file.create_dataset(KERNEL, (3, 2), "f4", external=[(str(directory / "secret"), 0, 24)])


def map_file(file: Any, directory: Path) -> None:
    """Take the weights from another HDF5 file by a virtual dataset."""
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(str(directory / "other.h5"), "secret", (3, 2))
    file.create_virtual_dataset(KERNEL, layout)


def write_texts(file: Any, _directory: Path) -> None:
    """Have texts of any length in place of weights."""
    del file[KERNEL]
    file.create_dataset(KERNEL, (3, 2), h5py.string_dtype())


LINKS = {
    "external link": link_file,
    "external storage": store_outside,
    "virtual dataset": map_file,
    "texts": write_texts,
}


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
        rewrite(path, {"metadata.json": bytes(100 << 20)})
    elif kind == "config bomb":
        rewrite(path, {"config.json": b"[" + b"0," * (4 << 20) + b"0]"})
    elif kind == "nested config":
        rewrite(path, {"config.json": b"[" * 1_000_000})
    elif kind in ("huge layer", "huge .h5 layer", "many large layers", "huge input"):
        write_huge(kind, path)
    elif kind in LINKS:
        name, suffix = "model.weights.h5", path.with_name("model.h5")
        dense().save(path)
        with zipfile.ZipFile(path) as archive:
            suffix.write_bytes(archive.read(name))
        with h5py.File(suffix, "r+") as file:
            LINKS[kind](file, path.parent)
        rewrite(path, {name: suffix.read_bytes()})
    elif kind in ("h5 bomb", "weights bomb"):
        bomb = path if kind == "h5 bomb" else path.with_name("weights.h5")
        if kind == "h5 bomb":
            dense().save(path.with_name("model.h5"))
            path.with_name("model.h5").rename(path)
        with h5py.File(bomb, "a") as file:
            file.create_dataset("zeros", (1 << 30,), "f4", chunks=True, compression="gzip")
        if kind == "weights bomb":
            rewrite(path, {"model.weights.h5": bomb.read_bytes()})
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
        ("config bomb", r"its configuration has \d+ bytes, above"),
        ("nested config", "maximum recursion depth"),
        ("external link", "'layers/dense/vars/0' is a link to another file"),
        ("external storage", "'layers/dense/vars/0' has its values in another file"),
        ("virtual dataset", "'layers/dense/vars/0' has its values in another file"),
        ("texts", "'layers/dense/vars/0' has texts as values"),
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


def run(directory: Path, source: Path) -> tuple[int, str, int]:
    """Convert; return the exit code, the last line, and the peak memory of the conversion in MB."""
    command = [sys.executable, "-c", PEAK, str(source), str(directory / "out.tflite")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    *_, last, peak = done.stderr.splitlines()
    return done.returncode, last, int(peak) // 1024


# The child process is waited for, so that the kernel knows its peak.
PEAK = """
import resource, sys
from converter.__main__ import main
code = main(["convert", sys.argv[1], "--to", "float32", "-o", sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("kind", ["huge layer", "huge .h5 layer", "many large layers", "huge input"])
def test_declared_sizes_take_no_memory(kind: str, tmp_path: Path) -> None:
    """A configuration of a few kB that declares gigabytes is refused within the limit of memory."""
    path = tmp_path / "bad.keras"
    write_model(kind, path)
    code, last, peak_mb = run(tmp_path / "out", path)
    assert code == 4
    assert last.startswith(f"emotion-convert: {path}: ")
    assert len(last) < 500
    assert peak_mb < 2800  # TensorFlow itself has 600, the limit is 2,048 of data
    assert list((tmp_path / "out").iterdir()) == []


def test_other_members_of_an_archive_are_not_read(tmp_path: Path) -> None:
    """Paths out of the archive, thousands of members, links and nested archives change nothing."""
    path, inside = tmp_path / "odd.keras", tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    more = {"../../evil": b"x", str(tmp_path / "evil"): b"x", "assets/../../../evil": b"x"}
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100 << 20))
    rewrite(path, more | {f"assets/{n}": b"x" for n in range(5000)} | {"assets/n.zip": nested.getvalue()})
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("assets/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    before = sorted(tmp_path.rglob("*"))
    model = read_model(path, inside)
    assert [weight.shape for weight in model.get_weights()] == [(3, 2), (2,)]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["convert", "lint", "verify", "report"])
def test_file_above_the_limit_of_tflite_is_not_read(command: str, tmp_path: Path) -> None:
    """A file of 100 GB of zeros is refused by its size."""
    path = tmp_path / "sparse.tflite"
    path.write_bytes(HDF5_MAGIC if command == "convert" else b"\x1c\0\0\0TFL3")
    os.truncate(path, 100 << 30)
    more = {
        "lint": ["--target", "cpu"],
        "convert": ["--to", "float32", "-o", str(tmp_path / "out.tflite")],
    }.get(command, [])
    done = run_here(main, command, path, *more)
    assert "Traceback" not in done.stderr
    assert done.returncode == 4
    assert "above 2147483647, the limit of TFLite" in done.stderr
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


def test_memory_limit_ends_with_its_block(tmp_path: Path) -> None:
    """More than the limit is a `ModelError` that names the file; afterwards the old limit is back."""
    (tmp_path / "model").write_bytes(b"x")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with (
        pytest.raises(ModelError, match=r"model: needs more than \d+ MB"),
        limited_memory(tmp_path / "model"),
    ):
        np.ones(1 << 40, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


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
