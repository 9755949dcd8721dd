"""Figures come from the shipped files, and what is missing is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.inference.card import artifacts_directory, load_card
from edge.inference.classifier import open_classifier
from edge.inference.features import CropSpec
from edge.values import LABELS
from models.data.corruption import CLEAN, JITTER
from models.data.datasets import DataError
from models.evaluation.evaluate import NOT_IN_CARDS, evaluate_model
from models.evaluation.face_sets import face_sets
from models.family import Family
from tests.helpers import trees

FIGURES = [
    "n", "accuracy", "uar", "macro_f1", "ece", "interval_95", "uar_interval_95", "recall", "precision",
    "confusion", "reliability",
]  # fmt: skip
KEYS = [
    "model", "version", "task", "sets", "notes", "int8_minus_float", "latency_ms", "files", "folds", "data",
    "targets",
]  # fmt: skip
CLEAN_FACES = ("fer2013-private", "fer2013-private-ferplus", "ckplus48-six")
ROOT = Path(__file__).parents[3]


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
    result = evaluate_model("report-face", data, bar=trees.no_bar)
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
    result = evaluate_model("report-face", data, bar=trees.no_bar)
    assert result["sets"]["fer2013-private"]["int8"]["accuracy"] == round(sum(right) / len(right), 4)


@pytest.mark.usefixtures("no_weights")
def test_given_crops_are_levelled_where_the_card_says_so(data: Path) -> None:
    """A model of levelled crops reads them as the daemon cuts them: mean 0.5, whatever the light was."""
    card = load_card("report-face")
    features = card.spec(CropSpec).model_copy(update={"levelled": True})
    levelled = card.model_copy(update={"input": card.input.model_copy(update={"features": features})})
    test = next(face_sets(Family(levelled), data, [], trees.no_bar))
    crop = test.views[CLEAN](0)
    assert crop is not None
    assert crop.mean() == pytest.approx(0.5, abs=0.01)
    assert crop.std() == pytest.approx(0.2, abs=0.02)


@pytest.mark.usefixtures("no_weights")
def test_wrong_boxes_are_told_one_by_one(data: Path) -> None:
    """Each kind has its figures; the loss is clean accuracy minus their mean, the worst is named."""
    sets = evaluate_model("report-face", data, bar=trees.no_bar)["sets"]
    clean, jitter = sets["ckplus48-six"]["int8"], sets["ckplus48-six-crop-jitter"]["int8"]
    assert list(jitter["kinds"]) == list(JITTER)
    mean = np.mean([kind["accuracy"] for kind in jitter["kinds"].values()])
    assert jitter["loss_points"] == pytest.approx(100 * (clean["accuracy"] - mean), abs=0.02)
    losses = {name: kind["loss_points"] for name, kind in jitter["kinds"].items()}
    assert jitter["worst"]["loss_points"] == max(losses.values()) == losses[jitter["worst"]["kind"]]


@pytest.mark.usefixtures("no_weights")
def test_quantization_is_told_in_points(data: Path) -> None:
    """Every set with both variants has int8 minus float16, of accuracy and UAR."""
    result = evaluate_model("report-face", data, bar=trees.no_bar)
    assert list(result["int8_minus_float"]) == list(CLEAN_FACES)
    for name, difference in result["int8_minus_float"].items():
        int8, float16 = result["sets"][name]["int8"], result["sets"][name]["float16"]
        for key in ("accuracy", "uar"):
            assert difference[key] == pytest.approx(100 * (int8[key] - float16[key]), abs=0.01)


@pytest.mark.usefixtures("no_weights")
def test_answers_are_timed(data: Path) -> None:
    """Each variant has its median time of an answer in ms."""
    latency = evaluate_model("report-face", data, bar=trees.no_bar)["latency_ms"]
    assert list(latency) == ["int8", "float16"]
    assert all(0 < ms < 1000 for ms in latency.values())


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
    result = evaluate_model("report-face", tmp_path, bar=trees.no_bar)
    assert result["sets"]["fer2013-private-ferplus"]["int8"]["n"] == 12


def test_voice_model_is_measured_on_held_out_speakers(data: Path) -> None:
    """Only the clips of the speakers that training never heard: 7 of YAF, 8 of actor 17, 6 of WR0."""
    result = evaluate_model("report-voice", data, bar=trees.no_bar)
    assert list(result) == KEYS
    clean = {name: figures for name, figures in result["sets"].items() if name.endswith("-unseen")}
    assert {name: figures["int8"]["n"] for name, figures in clean.items()} == {
        "tess-unseen": 7,
        "ravdess-unseen": 8,
        "nemo-unseen": 6,
    }
    assert list(clean["tess-unseen"]["int8"]["groups"]) == ["tess:YAF"]
    assert any("3 of 4 held-out people are missing (ravdess:18, " in note for note in result["notes"])


def test_voice_without_noise_is_measured_by_telephone_only(data: Path) -> None:
    """Missing babble is a note; band-limited clips are measured all the same, in int8 only."""
    result = evaluate_model("report-voice", data, bar=trees.no_bar)
    spoilt = [name for name in result["sets"] if not name.endswith("-unseen")]
    assert spoilt == [f"{corpus}-unseen-telephone" for corpus in ("tess", "ravdess", "nemo")]
    assert list(result["sets"]["tess-unseen-telephone"]) == ["int8"]
    assert any("voices in babble are not measured" in note for note in result["notes"])


def test_babble_is_found_and_its_loss_told(data: Path, tmp_path: Path) -> None:
    """With noise/ there each corpus is heard in babble too; the loss is clean UAR minus that in babble."""
    shutil.copytree(data / "speech", tmp_path / "speech")
    trees.write_wav(tmp_path / "noise" / "any" / "babble.wav", trees.buzz(77, 2.0))
    sets = evaluate_model("report-voice", tmp_path, bar=trees.no_bar)["sets"]
    clean, babble = (sets[name]["int8"] for name in ("nemo-unseen", "nemo-unseen-babble-10db"))
    assert babble["n"] == clean["n"]
    assert babble["loss_points"] == pytest.approx(100 * (clean["uar"] - babble["uar"]), abs=0.01)


def test_broken_clips_are_counted_and_the_rest_measured(data: Path, tmp_path: Path) -> None:
    """A file without sound is a note with count and name, and leaves every condition."""
    shutil.copytree(data / "speech", tmp_path / "speech")
    (tmp_path / "speech" / "nemo" / "WR0_anger_1.wav").write_bytes(b"RIFF nothing")
    result = evaluate_model("report-voice", tmp_path, bar=trees.no_bar)
    assert result["sets"]["nemo-unseen"]["int8"]["n"] == 5
    assert result["sets"]["nemo-unseen-telephone"]["int8"]["n"] == 5
    (note,) = (note for note in result["notes"] if "cannot be read" in note)
    assert note.startswith("nemo-unseen: 1 of 6 clips cannot be read (first ")
    assert "WR0_anger_1.wav" in note


@pytest.mark.usefixtures("no_weights")
def test_a_missing_class_is_a_note_that_names_it(tmp_path: Path, data: Path) -> None:
    """fer2013 without fear is not measured and said so; ckplus48 still is."""
    shutil.copytree(data / "faces" / "ckplus48", tmp_path / "ckplus48")
    rows = [row for row in trees.fer_rows() if row[1] != "fear"]
    trees.write_fer2013(tmp_path / "fer2013", rows)
    result = evaluate_model("report-face", tmp_path, bar=trees.no_bar)
    assert list(result["sets"]) == ["ckplus48-six", "ckplus48-six-crop-jitter"]
    assert "fer2013 PrivateTest: no example of fear; complete the data set" in result["notes"]


@pytest.mark.usefixtures("no_weights")
def test_nothing_to_measure_names_every_set(tmp_path: Path) -> None:
    """An empty directory is an error with all the sets that it lacks."""
    with pytest.raises(DataError, match=r"fer2013.*ckplus48.*jaffe"):
        evaluate_model("report-face", tmp_path, bar=trees.no_bar)


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
    assert list(printed) == ["version", "evaluations", "measures"]
    metrics = load_card("report-voice", directory=tmp_path).metrics
    for name, figures in printed["evaluations"][0]["sets"].items():
        for variant, values in figures.items():
            assert metrics[name][variant] == {k: v for k, v in values.items() if k not in NOT_IN_CARDS}
    assert metrics["kept"] == {"int8": {"n": 1}}
