"""`emotion-convert convert` writes a file and its card, or exits with one error message and no file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.__main__ import main
from converter.calibration import read_examples
from converter.verify import verify
from edge.errors import ModelError
from edge.face.crop import FER_CROP
from edge.inference.backends import load_model
from edge.inference.card import Source, load_card
from edge.values import Float32
from models.cards import draft_card, save_card
from tests.helpers import trees
from tests.helpers.commands import convert_here, run_here

keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
from keras import layers  # noqa: E402

# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROOT = Path(__file__).parents[2]


def run_command(
    *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run emotion-convert as a process."""
    return subprocess.run(
        [sys.executable, "-m", "converter", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def small_face() -> Any:
    """Return an untrained CNN with the input and output of the face models."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ]
    )


def write_card(directory: Path, name: str) -> None:
    """Write the draft card of a face model."""
    source = Source(name="made", use="nothing", licence="none")
    card = draft_card(
        name, task="face", shape=(1, 48, 48, 1), value_range=(0.0, 1.0), features=FER_CROP,
        temperature=1.0, data=[source],
    )  # fmt: skip
    save_card(card, directory)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of made faces to calibrate with."""
    return trees.write_fer2013(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def converted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a small face model, its card, and its int8 and float32 files, made by the command."""
    directory = tmp_path_factory.mktemp("converted")
    small_face().save(directory / "tiny.keras")
    write_card(directory, "tiny")
    words: list[str | Path] = ["convert", directory / "tiny.keras", "--calibrate", images]
    done = run_command(*words, "--to", "int8", "-o", directory / "tiny.int8.tflite")
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        convert_here(patch)
        done = run_here(main, *words, "--to", "float32", "-o", directory / "tiny.float32.tflite")
    assert done.returncode == 0, done.stderr
    return directory


def predict(model: Any, examples: Float32) -> Float32:
    """Run examples (n, ...) one by one: (n, 7)."""
    return np.stack([model.run(example[np.newaxis])[0][0] for example in examples])


def test_int8_agrees_with_float32(converted: Path, images: Path) -> None:
    """On the calibration images, int8 is within 0.03 of float32, and float32 within 1e-5 of Keras."""
    examples = read_examples(images, (48, 48, 1), count=20)
    int8 = predict(load_model(converted / "tiny.int8.tflite"), examples)
    float32 = predict(load_model(converted / "tiny.float32.tflite"), examples)
    model = keras.models.load_model(converted / "tiny.keras")
    np.testing.assert_allclose(float32, np.asarray(model(examples, training=False)), atol=1e-5)
    np.testing.assert_allclose(int8, float32, atol=0.03)
    assert np.ptp(float32, axis=0).max() > 0.02  # the outputs depend on the image


def test_card_is_updated(converted: Path) -> None:
    """The card lists both kinds with hash and golden output; its scales are those of the int8 file."""
    card = load_card("tiny", directory=converted)
    assert set(card.files) == set(card.golden.output) == {"int8", "float32"}
    info = load_model(converted / "tiny.int8.tflite").inputs[0]
    assert (card.input.dtype, card.input.zero_point) == ("int8", info.zero_point)
    assert card.input.scale == pytest.approx(info.scale)


# ai-edge-litert's Delegate fails in __del__ when its library cannot be opened.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function Delegate.__del__")
def test_verify_measures_against_float(converted: Path) -> None:
    """The JSON object has fixed keys, with the difference between int8 and float32."""
    done = run_here(main, "verify", converted / "tiny.int8.tflite", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result) == [
        "file", "model", "variant", "sha256", "bytes", "golden_difference", "tolerance", "reference",
        "compared", "max_difference", "mean_difference", "agreement", "backends",
    ]  # fmt: skip
    assert result["reference"] == "float32"
    assert result["golden_difference"] <= 1e-6
    assert 0 < result["max_difference"] < 0.05
    assert verify(converted / "tiny.float32.tflite")["reference"] is None


def test_verify_refuses_a_changed_file(converted: Path, tmp_path: Path) -> None:
    """One flipped byte gives exit code 4 and an error about the hash."""
    for name in ("tiny.json", "tiny.int8.tflite"):
        (tmp_path / name).write_bytes((converted / name).read_bytes())
    data = bytearray((tmp_path / "tiny.int8.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tiny.int8.tflite").write_bytes(data)
    done = run_here(main, "verify", tmp_path / "tiny.int8.tflite")
    assert done.returncode == 4
    assert "SHA-256 is" in done.stderr


def test_verify_refuses_a_wrong_golden_output(converted: Path, tmp_path: Path) -> None:
    """A card with another golden output is refused, although hash and shapes are right."""
    (tmp_path / "tiny.int8.tflite").write_bytes((converted / "tiny.int8.tflite").read_bytes())
    card = json.loads((converted / "tiny.json").read_text())
    card["golden"]["output"]["int8"][0] += 0.2
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"golden vector differs by 0\.2"):
        verify(tmp_path / "tiny.int8.tflite")


@pytest.mark.usefixtures("here")
def test_converting_again_drops_old_figures(converted: Path, images: Path, tmp_path: Path) -> None:
    """The figures of a variant belong to one file; a new file of that variant has none."""
    for name in ("tiny.json", "tiny.keras", "tiny.int8.tflite", "tiny.float32.tflite"):
        (tmp_path / name).write_bytes((converted / name).read_bytes())
    card = json.loads((tmp_path / "tiny.json").read_text())
    card["metrics"] = {"jaffe": {"int8": {"n": 1}, "float32": {"n": 1}}}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    done = run_here(main, "convert", tmp_path / "tiny.keras", "--calibrate", images)
    assert done.returncode == 0, done.stderr
    assert load_card("tiny", directory=tmp_path).metrics == {"jaffe": {"float32": {"n": 1}}}


@pytest.mark.usefixtures("here")
def test_missing_card_is_reported(images: Path, tmp_path: Path) -> None:
    """A model without a card converts, and the command reports that the daemon needs one."""
    small_face().save(tmp_path / "own.keras")
    done = run_here(main, "convert", tmp_path / "own.keras", "--calibrate", images, "--calibrate-count", "5")
    assert done.returncode == 0
    assert "no card in this directory: the daemon needs own.json" in done.stderr
    assert load_model(tmp_path / "own.int8.tflite").inputs[0].shape == (1, 48, 48, 1)


def test_crash_of_the_child_is_one_message(converted: Path, tmp_path: Path) -> None:
    """When a signal kills the child process, the command names it, exits with 4 and leaves no file."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'converter.conversion' in sys.orig_argv: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    target = tmp_path / "out" / "tiny.tflite"
    done = run_command(
        "convert", converted / "tiny.keras", "--to", "float32", "-o", target,
        environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 4
    assert "TensorFlow crashed while converting (SIGSEGV)" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(target.parent.iterdir()) == []


def test_int8_needs_a_directory(converted: Path) -> None:
    """Without --calibrate, or with an unknown kind, the command refuses to start."""
    done = run_here(main, "convert", converted / "tiny.keras")
    assert done.returncode == 1
    assert "--to int8 needs --calibrate DIR" in done.stderr
    assert run_here(main, "convert", converted / "tiny.keras", "--to", "int4").returncode == 2


def test_unwritable_target_is_one_message(converted: Path, tmp_path: Path) -> None:
    """A file in place of the directory gives exit code 1, the path and what to check."""
    (tmp_path / "file").write_text("")
    done = run_here(
        main, "convert", converted / "tiny.keras", "--to", "float32", "-o", tmp_path / "file" / "x.tflite"
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("here")
def test_card_is_drafted_like_another(images: Path, tmp_path: Path) -> None:
    """With --like, a user's model gets the features and labels of a shipped one, and passes verify."""
    small_face().save(tmp_path / "own.keras")
    done = run_here(
        main, "convert", tmp_path / "own.keras", "--like", "report-face", "--calibrate", images,
        "--calibrate-count", "20",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known, card = load_card("report-face"), load_card("own", directory=tmp_path)
    assert card.input.features == known.input.features
    assert verify(tmp_path / "own.int8.tflite")["model"] == "own"


@pytest.mark.usefixtures("here")
def test_single_step_is_a_file_of_its_own(tmp_path: Path) -> None:
    """--recurrent step writes MODEL.step.KIND.tflite, prints how to start, and changes no card."""
    model = keras.Sequential([keras.Input((12, 3)), layers.GRU(4), layers.Dense(7, activation="softmax")])
    model.save(tmp_path / "own.keras")
    done = run_here(main, "convert", tmp_path / "own.keras", "--to", "float32", "--recurrent", "step")
    assert done.returncode == 0, done.stderr
    assert "recurrent layers: one step" in done.stderr
    assert "start every state_... with zeros" in done.stderr
    file = load_model(tmp_path / "own.step.float32.tflite")
    assert [info.shape for info in file.inputs] == [(1, 1, 3), (1, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.keras", "own.step.float32.tflite"]
