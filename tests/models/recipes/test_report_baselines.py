"""Training writes a model and a draft card from a tiny synthetic data set, and resumes killed runs."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge.face.crop import FER_CROP
from edge.inference.card import load_card
from edge.inference.features import PooledMfccSpec
from edge.values import LABELS, Float32
from models.__main__ import main
from models.data.datasets import FaceSet, load_fer2013
from models.data.speech import HELD_OUT, VALIDATION
from models.recipes.report_baselines import face_targets, unit_pixels
from models.training.augmentation import augment_faces, augment_voices
from tests.helpers import trees
from tests.helpers.commands import run_here

COMMAND = [sys.executable, "-m", "models", "train"]
ROOT = Path(__file__).parents[3]


def run_training(name: str, data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the training command in this process."""
    return run_here(main, "train", name, "--data", data, "--out", out, *more)


def history(out: Path, name: str) -> list[dict[str, float]]:
    """Read the history of the epochs."""
    with zipfile.ZipFile(out / f"{name}.state.keras") as state:
        result: list[dict[str, float]] = json.loads(state.read("history.json"))
    return result


@pytest.fixture(scope="module")
def faces_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data with a tiny FER2013."""
    data = tmp_path_factory.mktemp("data")
    trees.write_fer2013(data / "faces" / "fer2013", trees.fer_rows(1))
    return data


@pytest.fixture(scope="module")
def trained(faces_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which report-face was trained for two epochs."""
    out = tmp_path_factory.mktemp("trained")
    done = run_training("report-face", faces_data, out, "--epochs", "2")
    assert done.returncode == 0, done.stderr
    return out


def test_face_training_leaves_model_and_card(trained: Path) -> None:
    """The card is a valid draft with crop, temperature and Keras file, without figures."""
    card = load_card("report-face", directory=trained)
    assert card.task == "face"
    assert card.input.shape == (1, 48, 48, 1)
    assert card.input.features == FER_CROP
    assert card.files["keras"].bytes == (trained / "report-face.keras").stat().st_size
    assert card.metrics == {}
    assert card.temperature > 0
    assert [entry["epoch"] for entry in history(trained, "report-face")] == [1, 2]


def test_shipped_keras_file_has_no_optimizer_state(trained: Path) -> None:
    """Adam has two numbers per weight; the shipped file has only the 2,470,919 weights."""
    weights = 2_470_919 * 4
    assert (trained / "report-face.keras").stat().st_size < 1.1 * weights
    assert (trained / "report-face.state.keras").stat().st_size > 2.9 * weights


def test_killed_training_resumes(faces_data: Path, trained: Path, tmp_path: Path) -> None:
    """After SIGKILL and `--resume` the training continues and ends like an uninterrupted run."""
    arguments = ["report-face", "--data", str(faces_data), "--out", str(tmp_path), "--epochs", "2"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1/2" in line:
                process.kill()
                break
    finished = len(history(tmp_path, "report-face"))
    assert 1 <= finished <= 2
    done = run_training("report-face", faces_data, tmp_path, "--epochs", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert f"resumed after epoch {finished}" in done.stderr
    losses = [entry["loss"] for entry in history(tmp_path, "report-face")]
    unbroken = [entry["loss"] for entry in history(trained, "report-face")]
    np.testing.assert_allclose(losses, unbroken, rtol=0.01)


def test_voice_training_leaves_model_and_card(tmp_path: Path) -> None:
    """The card has the normalisation of 40 coefficients and names held-out and validation speakers."""
    data = trees.write_speech(tmp_path / "data", seconds=0.3)
    done = run_training("report-voice", data, tmp_path / "out", "--epochs", "2")
    assert done.returncode == 0, done.stderr
    card = load_card("report-voice", directory=tmp_path / "out")
    spec = card.spec(PooledMfccSpec)
    assert len(spec.mean) == len(spec.std) == 40
    assert min(spec.std) > 0
    uses = {source.name: source.use for source in card.data}
    for speaker in (*HELD_OUT, *VALIDATION):
        corpus, _, name = speaker.partition(":")
        assert name in uses[corpus]


def test_training_without_a_class_names_it(tmp_path: Path) -> None:
    """A class without examples is exit 1; the error names it."""
    rows = [row for row in trees.fer_rows() if not (row[0] == "Training" and row[1] == "disgust")]
    trees.write_fer2013(tmp_path / "fer2013", rows)
    done = run_training("report-face", tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("fer2013 Training: no example of disgust; complete the data set")


def test_unknown_recipe_is_usage(tmp_path: Path) -> None:
    """Exit 2; the error lists the recipes."""
    done = run_training("report-nose", tmp_path, tmp_path)
    assert done.returncode == 2
    assert "report-face, report-voice" in done.stderr


def test_targets_are_distributions_between_label_and_votes() -> None:
    """Rows sum to 1; without votes the target is the smoothed label; votes shift it."""
    votes = np.zeros((2, len(LABELS)), dtype=np.float32)
    votes[1, LABELS.index("fear")] = 10
    pixels = (trees.face(0), trees.face(1))
    targets = face_targets(FaceSet("two", pixels, np.array([6, 6]), ("", ""), votes))
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert targets[0].argmax() == 6
    assert targets[0, 6] > 0.9
    assert targets[1, LABELS.index("fear")] > targets[0, LABELS.index("fear")] + 0.3


def test_face_input_is_the_device_range(tmp_path: Path) -> None:
    """0 and 255 become 0 and 1, with a channel axis, as on the device."""
    faces = load_fer2013(trees.write_fer2013(tmp_path), "PrivateTest")
    x = unit_pixels(faces.stacked())
    assert x.shape == (14, 48, 48, 1)
    assert x.dtype == np.float32
    assert unit_pixels(np.array([[[0, 255]]], dtype=np.uint8)).ravel().tolist() == [0, 1]


def test_augmented_faces_depend_on_the_seed() -> None:
    """Every face changes, size and type stay, and the same seed gives the same images."""
    faces = np.stack([trees.face(seed) for seed in range(30)])
    first = augment_faces(faces, np.random.default_rng(5))
    again = augment_faces(faces, np.random.default_rng(5))
    other = augment_faces(faces, np.random.default_rng(6))
    np.testing.assert_array_equal(first, again)
    assert first.shape == faces.shape
    assert first.dtype == np.uint8
    assert all((a != b).mean() > 0.5 for a, b in zip(first, faces, strict=True))
    assert (first != other).mean() > 0.5


def test_gain_moves_only_the_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, the gain changes only coefficient 0 of a stationary clip."""
    monkeypatch.setattr("models.training.augmentation.VOICE_NOISE", 0.0)
    clip: Float32 = np.tile(np.arange(40, dtype=np.float32), (50, 1))
    zero, one = np.zeros(40, np.float32), np.ones(40, np.float32)
    augmented = augment_voices([clip] * 20, mean=zero, std=one, random=np.random.default_rng(0))
    np.testing.assert_allclose(augmented[:, 1:], np.tile(clip[0, 1:], (20, 1)))
    assert 0.2 < augmented[:, 0].std() < 1.0  # 2 dB are 0.46 of the natural logarithm of power
