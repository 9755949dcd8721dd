"""Figures are what their definitions say, come from the shipped files, and what is missing is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import trees

from edge.card import artifacts_directory, load_card, open_classifier, soften
from edge.values import LABELS, Float32
from models.datasets import DataError, Progress
from models.evaluate import evaluate_model
from models.metrics import (
    calibration_error,
    confusion_matrix,
    fit_temperature,
    interval_95,
    macro_f1,
    measure,
    predictions,
    uar,
)

FIGURES = ["n", "accuracy", "uar", "macro_f1", "ece", "interval_95", "confusion"]
ROOT = Path(__file__).parent.parent


@contextmanager
def no_bar(_title: str) -> Iterator[Progress]:
    """Show nothing."""
    yield lambda _done, _total: None


def one_hot(classes: list[int], confidence: float = 1.0) -> Float32:
    """Return p (n, 7) that puts `confidence` on one class and spreads the rest."""
    p = np.full((len(classes), 7), (1 - confidence) / 6, dtype=np.float32)
    p[np.arange(len(classes)), classes] = confidence
    return p


def test_figures_of_a_worked_example() -> None:
    """Ten examples of two classes, worked by hand."""
    labels = np.array([0, 0, 0, 0, 0, 3, 3, 3, 3, 3])
    predicted = np.array([0, 0, 0, 0, 3, 3, 3, 3, 0, 5])
    assert uar(predicted, labels) == pytest.approx((4 / 5 + 3 / 5) / 2)
    assert macro_f1(predicted, labels) == pytest.approx((8 / 10 + 6 / 9) / 2)
    matrix = confusion_matrix(predicted, labels)
    assert matrix[0].tolist() == [4, 0, 0, 1, 0, 0, 0]
    assert matrix[3].tolist() == [1, 0, 0, 3, 0, 1, 0]
    assert matrix.sum() == 10


def test_uar_is_blind_to_class_sizes() -> None:
    """Always saying the class that 90 of 100 have is accuracy .9 and UAR .5."""
    labels = np.array([3] * 90 + [0] * 10)
    figures = measure(one_hot([3] * 100), labels)
    assert figures["accuracy"] == 0.9
    assert figures["uar"] == 0.5
    assert list(figures) == FIGURES


@pytest.mark.parametrize(("confidence", "right", "expected"), [(0.8, 8, 0.0), (0.8, 5, 0.3), (0.6, 10, 0.4)])
def test_calibration_error(confidence: float, right: int, expected: float) -> None:
    """|accuracy - confidence| when all answers are equally sure."""
    p = one_hot([2] * 10, confidence)
    labels = np.array([2] * right + [4] * (10 - right))
    assert calibration_error(p, labels) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_does_not_cancel_between_bins() -> None:
    """Too sure in one bin and too unsure in another are both errors."""
    p = np.concatenate([one_hot([1] * 10, 0.9), one_hot([1] * 10, 0.5)])
    labels = np.array([1] * 5 + [2] * 5 + [1] * 9 + [2])
    assert calibration_error(p, labels) == pytest.approx(0.4, abs=1e-6)


def test_missed_faces_count_as_wrong() -> None:
    """A row of zeros is no class: accuracy falls, the confusion has it in no column."""
    p = one_hot([0, 1, 2, 0])
    p[3] = 0
    assert predictions(p).tolist() == [0, 1, 2, -1]
    figures = measure(p, np.array([0, 1, 2, 0]))
    assert figures["accuracy"] == 0.75
    assert np.sum(figures["confusion"]) == 3


def test_interval_holds_the_accuracy_and_narrows() -> None:
    """It is around the accuracy, near +-1.96 standard errors, and the same at every call."""
    for n in (100, 10_000):
        right = np.arange(n) < 0.6 * n
        low, high = interval_95(right)
        error = 1.96 * np.sqrt(0.6 * 0.4 / n)
        assert low == pytest.approx(0.6 - error, abs=0.15 * error + 0.5 / n)
        assert high == pytest.approx(0.6 + error, abs=0.15 * error + 0.5 / n)
        assert interval_95(right) == (low, high)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5, 8.0])
def test_temperature_is_found_again(true_temperature: float) -> None:
    """Labels drawn from softened probabilities give that temperature back."""
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(7, 0.7), 20_000).astype(np.float32)
    soft = np.stack([soften(row, true_temperature) for row in p])
    labels = (soft.cumsum(axis=1) > random.random((len(p), 1))).argmax(axis=1)
    assert fit_temperature(p, labels) == pytest.approx(true_temperature, rel=0.06)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data with every set, tiny."""
    directory = tmp_path_factory.mktemp("data")
    trees.write_fer2013(directory / "faces" / "fer2013")
    trees.write_ckplus48(directory / "faces" / "ckplus48")
    return trees.write_speech(directory)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which the detector weights were never fetched."""
    monkeypatch.setenv("EMOTION_EDGE_WEIGHTS", str(tmp_path / "nothing"))


@pytest.mark.usefixtures("no_weights")
def test_face_model_is_measured_on_every_set_there(data: Path) -> None:
    """Both variants on fer2013 under both labellings and on ckplus48; what is missing is a note by name."""
    result = evaluate_model("report-face", data, bar=no_bar)
    assert list(result) == ["model", "version", "task", "sets", "notes"]
    assert {name: figures["int8"]["n"] for name, figures in result["sets"].items()} == {
        "fer2013-private": 14,
        "fer2013-private-ferplus": 14,
        "ckplus48-six": 12,
    }
    for figures in result["sets"].values():
        assert list(figures) == ["int8", "float16"]
        assert list(figures["int8"]) == FIGURES
    assert any(
        note.startswith("jaffe: not measured without the detector weights") for note in result["notes"]
    )


@pytest.mark.usefixtures("no_weights")
def test_figures_come_from_the_shipped_file(data: Path) -> None:
    """The accuracy is what the int8 classifier of the device gives on those very pictures."""
    classifier = open_classifier("report-face", task="face")
    right = [
        int(
            classifier.classify((pixels[..., np.newaxis] / 255).astype(np.float32)).argmax()
            == LABELS.index(label)
        )
        for usage, label, pixels, _ in trees.fer_rows()
        if usage == "PrivateTest"
    ]
    result = evaluate_model("report-face", data, bar=no_bar)
    assert result["sets"]["fer2013-private"]["int8"]["accuracy"] == round(sum(right) / len(right), 4)


@pytest.mark.usefixtures("no_weights")
def test_ferplus_counts_only_majorities(tmp_path: Path) -> None:
    """A picture on which no class has more than half of the votes is not in the FER+ figures."""
    rows = trees.fer_rows()
    half = {"anger": 5, "sadness": 5, "NF": 0}
    rows = [
        (u, label, x, half if u == "PrivateTest" and label == "fear" else votes)
        for u, label, x, votes in rows
    ]
    trees.write_fer2013(tmp_path / "fer2013", rows)
    result = evaluate_model("report-face", tmp_path, bar=no_bar)
    assert result["sets"]["fer2013-private-ferplus"]["int8"]["n"] == 12


def test_voice_model_is_measured_on_held_out_speakers(data: Path) -> None:
    """Only the clips of the speakers that training never heard: 7 of YAF, 8 of actor 17, 6 of WR0."""
    result = evaluate_model("report-voice", data, bar=no_bar)
    assert {name: figures["int8"]["n"] for name, figures in result["sets"].items()} == {
        "tess-unseen": 7,
        "ravdess-unseen": 8,
        "nemo-unseen": 6,
    }


@pytest.mark.usefixtures("no_weights")
def test_a_missing_class_is_a_note_that_names_it(tmp_path: Path, data: Path) -> None:
    """fer2013 without fear is not measured and said so; ckplus48 still is."""
    shutil.copytree(data / "faces" / "ckplus48", tmp_path / "ckplus48")
    rows = [row for row in trees.fer_rows() if row[1] != "fear"]
    trees.write_fer2013(tmp_path / "fer2013", rows)
    result = evaluate_model("report-face", tmp_path, bar=no_bar)
    assert list(result["sets"]) == ["ckplus48-six"]
    assert "fer2013 PrivateTest: no example of fear; complete the data set" in result["notes"]


@pytest.mark.usefixtures("no_weights")
def test_nothing_to_measure_names_every_set(tmp_path: Path) -> None:
    """An empty directory is an error with all the sets that it lacks."""
    with pytest.raises(DataError, match=r"fer2013.*ckplus48.*jaffe"):
        evaluate_model("report-face", tmp_path, bar=no_bar)


def test_write_cards_puts_figures_into_the_card(data: Path, tmp_path: Path) -> None:
    """The command prints JSON and leaves the same figures, without confusions, in a card that still loads."""
    for path in artifacts_directory().glob("report-voice.*"):
        shutil.copy(path, tmp_path)
    card = json.loads((tmp_path / "report-voice.json").read_text())
    card["metrics"] = {"kept": {"int8": {"n": 1}}}
    (tmp_path / "report-voice.json").write_text(json.dumps(card))
    done = subprocess.run(
        [sys.executable, "-m", "models", "evaluate", "report-voice", "--data", str(data),
         "--models", str(tmp_path), "--json", "--write-cards"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert list(printed) == ["version", "evaluations"]
    metrics = load_card("report-voice", directory=tmp_path).metrics
    for name, figures in printed["evaluations"][0]["sets"].items():
        for variant, values in figures.items():
            assert metrics[name][variant] == {key: values[key] for key in FIGURES if key != "confusion"}
    assert metrics["kept"] == {"int8": {"n": 1}}
