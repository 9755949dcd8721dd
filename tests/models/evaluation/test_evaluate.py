"""Figures are computed with the shipped files; missing data is noted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.inference.card import artifacts_directory, load_card
from edge.inference.classifier import open_classifier
from edge.inference.features import CropSpec
from edge.values import LABELS
from models.__main__ import main
from models.data.corruption import CLEAN, JITTER
from models.data.datasets import DataError
from models.evaluation.evaluate import NOT_IN_CARDS, evaluate_model
from models.evaluation.face_sets import face_sets
from models.family import Family
from tests.helpers import trees
from tests.helpers.commands import run_here

FIGURES = [
    "n", "accuracy", "uar", "macro_f1", "ece", "interval_95", "uar_interval_95", "recall", "precision",
    "confusion", "reliability",
]  # fmt: skip
KEYS = [
    "model", "version", "task", "sets", "notes", "int8_minus_float", "latency_ms", "files", "folds", "data",
    "targets",
]  # fmt: skip
CLEAN_FACES = ("fer2013-private", "fer2013-private-ferplus", "ckplus48-six")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return tiny data with every set."""
    directory = tmp_path_factory.mktemp("data")
    trees.write_fer2013(directory / "faces" / "fer2013")
    trees.write_ckplus48(directory / "faces" / "ckplus48")
    return trees.write_speech(directory, seconds=0.4)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the detector weights."""
    monkeypatch.setenv("EMOTION_EDGE_WEIGHTS", str(tmp_path / "nothing"))


@pytest.fixture(scope="module")
def face(data: Path) -> dict[str, Any]:
    """Return the evaluation of report-face without detector weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTION_EDGE_WEIGHTS", str(data / "nothing"))
        return evaluate_model("report-face", data, bar=trees.no_bar)


@pytest.fixture(scope="module")
def voice(data: Path) -> dict[str, Any]:
    """Return the evaluation of report-voice."""
    return evaluate_model("report-voice", data, bar=trees.no_bar)


def test_face_model_is_measured_on_every_set(face: dict[str, Any]) -> None:
    """Both variants are measured on fer2013 with both labels and on ckplus48; notes name what is missing."""
    result = face
    assert list(result) == [*KEYS, "peers"]
    assert {name: figures["int8"]["n"] for name, figures in result["sets"].items()} == {
        "fer2013-private": 14,
        "fer2013-private-ferplus": 14,
        "fer2013-private-crop-jitter": 14 * len(JITTER),
        "fer2013-private-bad-webcam": 14,
        "ckplus48-six": 12,
        "ckplus48-six-crop-jitter": 12 * len(JITTER),
    }
    for name in CLEAN_FACES:
        assert list(result["sets"][name]) == ["int8", "float16"]
        assert list(result["sets"][name]["int8"]) == FIGURES
    assert any(
        note.startswith("jaffe: not measured without the detector weights") for note in result["notes"]
    )


def test_figures_are_of_the_shipped_file(face: dict[str, Any]) -> None:
    """The accuracy is that of the int8 classifier of the device on the same images."""
    classifier = open_classifier("report-face", task="face")
    right = [
        int(
            classifier.classify((pixels[..., np.newaxis] / 255).astype(np.float32)).argmax()
            == LABELS.index(label)
        )
        for usage, label, pixels, _ in trees.fer_rows()
        if usage == "PrivateTest"
    ]
    assert face["sets"]["fer2013-private"]["int8"]["accuracy"] == round(sum(right) / len(right), 4)


@pytest.mark.usefixtures("no_weights")
def test_crops_are_levelled_if_the_card_requires_it(data: Path) -> None:
    """Levelled crops have mean 0.5 and standard deviation 0.2, as in the daemon."""
    card = load_card("report-face")
    features = card.spec(CropSpec).model_copy(update={"levelled": True})
    levelled = card.model_copy(update={"input": card.input.model_copy(update={"features": features})})
    test = next(face_sets(Family(levelled), data, [], trees.no_bar))
    crop = test.views[CLEAN](0)
    assert crop is not None
    assert crop.mean() == pytest.approx(0.5, abs=0.01)
    assert crop.std() == pytest.approx(0.2, abs=0.02)


def test_each_box_error_has_figures(face: dict[str, Any]) -> None:
    """The loss is the clean accuracy minus the mean of all kinds; the worst kind is named."""
    sets = face["sets"]
    clean, jitter = sets["ckplus48-six"]["int8"], sets["ckplus48-six-crop-jitter"]["int8"]
    assert list(jitter["kinds"]) == list(JITTER)
    mean = np.mean([kind["accuracy"] for kind in jitter["kinds"].values()])
    assert jitter["loss_points"] == pytest.approx(100 * (clean["accuracy"] - mean), abs=0.02)
    losses = {name: kind["loss_points"] for name, kind in jitter["kinds"].items()}
    assert jitter["worst"]["loss_points"] == max(losses.values()) == losses[jitter["worst"]["kind"]]


def test_quantization_loss_is_in_points(face: dict[str, Any]) -> None:
    """Every set with both variants has int8 minus float16 of accuracy and UAR."""
    result = face
    assert list(result["int8_minus_float"]) == list(CLEAN_FACES)
    for name, difference in result["int8_minus_float"].items():
        int8, float16 = result["sets"][name]["int8"], result["sets"][name]["float16"]
        for key in ("accuracy", "uar"):
            assert difference[key] == pytest.approx(100 * (int8[key] - float16[key]), abs=0.01)


def test_inference_time_is_measured(face: dict[str, Any]) -> None:
    """Each variant has a median inference time in ms."""
    latency = face["latency_ms"]
    assert list(latency) == ["int8", "float16"]
    assert all(0 < ms < 1000 for ms in latency.values())


@pytest.mark.usefixtures("no_weights")
def test_ferplus_counts_only_majorities(tmp_path: Path) -> None:
    """Images without a majority of the votes do not count in the FER+ figures."""
    rows = trees.fer_rows()
    half = {"anger": 5, "sadness": 5, "NF": 0}
    rows = [
        (u, label, x, half if u == "PrivateTest" and label == "fear" else votes)
        for u, label, x, votes in rows
    ]
    trees.write_fer2013(tmp_path / "fer2013", rows)
    result = evaluate_model("report-face", tmp_path, bar=trees.no_bar)
    assert result["sets"]["fer2013-private-ferplus"]["int8"]["n"] == 12


def test_voice_model_is_measured_on_held_out_speakers(voice: dict[str, Any]) -> None:
    """Only clips of held-out speakers count: 7 of YAF, 8 of actor 17, 6 of WR0."""
    result = voice
    assert list(result) == KEYS
    clean = {name: figures for name, figures in result["sets"].items() if name.endswith("-unseen")}
    assert {name: figures["int8"]["n"] for name, figures in clean.items()} == {
        "tess-unseen": 7,
        "ravdess-unseen": 8,
        "nemo-unseen": 6,
    }
    assert list(clean["tess-unseen"]["int8"]["groups"]) == ["tess:YAF"]
    assert any("3 of 4 held-out people are missing (ravdess:18, " in note for note in result["notes"])


def test_without_noise_only_the_telephone_is_measured(voice: dict[str, Any]) -> None:
    """Missing babble is a note; the telephone is measured, in int8 only."""
    result = voice
    corrupted = [name for name in result["sets"] if not name.endswith("-unseen")]
    assert corrupted == [f"{corpus}-unseen-telephone" for corpus in ("tess", "ravdess", "nemo")]
    assert list(result["sets"]["tess-unseen-telephone"]) == ["int8"]
    assert any("voices in babble are not measured" in note for note in result["notes"])


def test_loss_in_babble_is_measured(data: Path, tmp_path: Path) -> None:
    """With a babble recording the loss is the clean UAR minus the UAR in babble."""
    shutil.copytree(data / "speech" / "nemo", tmp_path / "speech" / "nemo")
    trees.write_wav(tmp_path / "noise" / "any" / "babble.wav", trees.buzz(77, 2.0))
    sets = evaluate_model("report-voice", tmp_path, bar=trees.no_bar)["sets"]
    clean, babble = (sets[name]["int8"] for name in ("nemo-unseen", "nemo-unseen-babble-10db"))
    assert babble["n"] == clean["n"]
    assert babble["loss_points"] == pytest.approx(100 * (clean["uar"] - babble["uar"]), abs=0.01)


def test_broken_clips_are_counted_and_the_rest_measured(data: Path, tmp_path: Path) -> None:
    """A note has number and name of broken files; they count in no condition."""
    shutil.copytree(data / "speech" / "nemo", tmp_path / "speech" / "nemo")
    (tmp_path / "speech" / "nemo" / "WR0_anger_1.wav").write_bytes(b"RIFF nothing")
    result = evaluate_model("report-voice", tmp_path, bar=trees.no_bar)
    assert result["sets"]["nemo-unseen"]["int8"]["n"] == 5
    assert result["sets"]["nemo-unseen-telephone"]["int8"]["n"] == 5
    (note,) = (note for note in result["notes"] if "cannot be read" in note)
    assert note.startswith("nemo-unseen: 1 of 6 clips cannot be read (first ")
    assert "WR0_anger_1.wav" in note


@pytest.mark.usefixtures("no_weights")
def test_a_missing_class_is_a_note_that_names_it(tmp_path: Path, data: Path) -> None:
    """fer2013 without fear is not measured, ckplus48 is."""
    shutil.copytree(data / "faces" / "ckplus48", tmp_path / "ckplus48")
    rows = [row for row in trees.fer_rows() if row[1] != "fear"]
    trees.write_fer2013(tmp_path / "fer2013", rows)
    result = evaluate_model("report-face", tmp_path, bar=trees.no_bar)
    assert list(result["sets"]) == ["ckplus48-six", "ckplus48-six-crop-jitter"]
    assert "fer2013 PrivateTest: no example of fear; complete the data set" in result["notes"]


@pytest.mark.usefixtures("no_weights")
def test_nothing_to_measure_names_every_set(tmp_path: Path) -> None:
    """An empty directory is an error that names all missing sets."""
    with pytest.raises(DataError, match=r"fer2013.*ckplus48.*jaffe"):
        evaluate_model("report-face", tmp_path, bar=trees.no_bar)


def test_write_cards_puts_figures_into_the_card(data: Path, tmp_path: Path) -> None:
    """The command prints JSON and saves the same figures, without confusions, in the card."""
    for path in artifacts_directory().glob("report-voice.*"):
        shutil.copy(path, tmp_path)
    card = json.loads((tmp_path / "report-voice.json").read_text())
    card["metrics"] = {"kept": {"int8": {"n": 1}}}
    (tmp_path / "report-voice.json").write_text(json.dumps(card))
    shutil.copytree(data / "speech" / "nemo", tmp_path / "data" / "nemo")
    done = run_here(
        main, "evaluate", "report-voice", "--data", tmp_path / "data", "--models", tmp_path, "--json",
        "--write-cards",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert list(printed) == ["version", "evaluations", "measures"]
    metrics = load_card("report-voice", directory=tmp_path).metrics
    for name, figures in printed["evaluations"][0]["sets"].items():
        for variant, values in figures.items():
            assert metrics[name][variant] == {k: v for k, v in values.items() if k not in NOT_IN_CARDS}
    assert metrics["kept"] == {"int8": {"n": 1}}
