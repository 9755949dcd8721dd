"""A model that was trained on all people is measured by its fold models, each on its held-out people."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import ModelError
from edge.inference.card import artifacts_directory
from edge.inference.classifier import open_classifier
from edge.sources.media_files import read_audio
from edge.values import LABELS
from edge.voice.model_input import window_input
from edge.voice.windows import clip_window
from models.data.datasets import DataError
from models.evaluation.evaluate import evaluate_model
from models.family import list_models
from tests.helpers import trees

NEMO_FOLDS = (("nemo:EB0",), ("nemo:SM0", "nemo:WR0"))
VOICE_FOLDS = (("tess:OAF", "ravdess:01", "nemo:EB0"), ("tess:YAF", "ravdess:13", "nemo:SM0", "nemo:WR0"))
SECONDS = 0.4  # of a clip
FACE_FOLDS = (("ckplus:S010",), ("ckplus:S011",))


def copy_model(source: str, name: str, directory: Path, **changes: Any) -> None:
    """Write a shipped model under another name into `directory`, with changes of the card."""
    directory.mkdir(parents=True, exist_ok=True)
    card = json.loads((artifacts_directory() / f"{source}.json").read_text())
    del card["files"]["keras"]
    for variant, file in list(card["files"].items()):
        if variant in changes.get("variants", ("int8", "float16")):
            shutil.copy(artifacts_directory() / file["file"], directory)
        else:
            del card["files"][variant]
    changes.pop("variants", None)
    (directory / f"{name}.json").write_text(json.dumps(card | {"name": name, "metrics": {}} | changes))


def family(directory: Path, source: str, folds: tuple[tuple[str, ...], ...], **changes: Any) -> Path:
    """Write a model `tiny` without held-out people, and a fold model for each tuple of people."""
    copy_model(source, "tiny", directory, held_out=[], **changes)
    for number, people in enumerate(folds):
        copy_model(source, f"tiny-fold{number}", directory / "folds", held_out=people)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return speech of two or three speakers a corpus, and faces of two people."""
    directory = tmp_path_factory.mktemp("data")
    trees.write_ckplus48(directory / "faces" / "ckplus48")
    return trees.write_speech(directory, actors=("01", "13"), seconds=SECONDS)


@pytest.fixture(scope="module")
def nemo(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data with one corpus only, which takes a third of the time."""
    directory = tmp_path_factory.mktemp("nemo")
    shutil.copytree(data / "speech" / "nemo", directory / "nemo")
    return directory


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the detector weights."""
    monkeypatch.setenv("EMOTION_EDGE_WEIGHTS", str(tmp_path / "nothing"))


def test_each_fold_predicts_its_own_people(data: Path, tmp_path: Path) -> None:
    """The figures are of all clips, with figures and means of speakers and folds."""
    directory = family(tmp_path, "report-voice", VOICE_FOLDS)
    sets = evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)["sets"]
    assert {name for name in sets if name.endswith("-folds")} == {"tess-folds", "ravdess-folds", "nemo-folds"}
    tess, nemo = sets["tess-folds"]["int8"], sets["nemo-folds"]["int8"]
    assert tess["n"] == 14
    assert {name: group["n"] for name, group in tess["groups"].items()} == {"tess:OAF": 7, "tess:YAF": 7}
    assert {name: fold["n"] for name, fold in nemo["folds"].items()} == {"fold0": 6, "fold1": 12}
    uars = [fold["uar"] for fold in nemo["folds"].values()]
    assert nemo["mean_of_folds"]["uar"] == pytest.approx(np.mean(uars), abs=1e-4)
    assert nemo["mean_of_folds"]["uar_sd"] == pytest.approx(np.std(uars, ddof=1), abs=1e-4)


def test_a_fold_s_own_features_and_temperature_count(nemo: Path, tmp_path: Path) -> None:
    """A changed feature mean in a fold's card changes the predictions for its people only."""
    directory = family(tmp_path, "report-voice", VOICE_FOLDS)
    path = directory / "folds" / "tiny-fold1.json"
    card = json.loads(path.read_text())
    card["input"]["features"]["mean"] = [value + 9 for value in card["input"]["features"]["mean"]]
    path.write_text(json.dumps(card))
    groups = evaluate_model("tiny", nemo, directory=directory, bar=trees.no_bar)["sets"]["nemo-folds"]["int8"]
    for person, fold in (("EB0", "tiny-fold0"), ("WR0", "tiny-fold1")):
        classifier = open_classifier(fold, task="voice", directory=directory / "folds")
        features = window_input(classifier.card.input.features)
        right = [
            LABELS[int(classifier.classify(features(clip_window(read_audio(path)))).argmax())]
            == path.stem.split("_")[1]
            for path in (nemo / "nemo").glob(f"{person}_*.wav")
        ]
        assert groups["groups"][f"nemo:{person}"]["accuracy"] == pytest.approx(np.mean(right), abs=1e-4)


def test_faces_are_pooled_over_folds(data: Path, tmp_path: Path) -> None:
    """ckplus48-six of a model trained on it is measured with its folds, clean and with box errors."""
    directory = family(tmp_path, "report-face", FACE_FOLDS, data=trained_on("CK+48"))
    result = evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)
    assert result["sets"]["ckplus48-six"]["int8"]["n"] == 12
    assert set(result["sets"]["ckplus48-six"]["int8"]["folds"]) == {"fold0", "fold1"}
    assert "loss_points" in result["sets"]["ckplus48-six-crop-jitter"]["int8"]
    assert result["folds"] == ["tiny-fold0", "tiny-fold1"]


def test_trained_on_and_no_folds_is_not_measured(data: Path, tmp_path: Path) -> None:
    """Without folds there are no held-out people; the error names the data set."""
    directory = family(tmp_path, "report-face", (), data=trained_on("ckplus48"))
    with pytest.raises(DataError, match="ckplus48: tiny was trained on it and has no fold models"):
        evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)


def test_own_held_out_faces_are_measured_by_the_model_itself(data: Path, tmp_path: Path) -> None:
    """A model that holds S011 of ckplus48 out is measured on S011, without folds."""
    directory = family(tmp_path, "report-face", (), data=trained_on("ckplus48"))
    copy_model("report-face", "tiny", directory, data=trained_on("ckplus48"), held_out=["ckplus:S011"])
    sets = evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)["sets"]
    assert sets["ckplus48-six"]["int8"]["n"] == 6
    assert "folds" not in sets["ckplus48-six"]["int8"]


def test_trained_on_everybody_and_no_folds_names_the_corpus(data: Path, tmp_path: Path) -> None:
    """A voice model without held-out speakers and folds is not measured."""
    directory = family(tmp_path, "report-voice", ())
    with pytest.raises(DataError, match="tess: tiny was trained on it without held-out speakers"):
        evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)


def test_a_fold_without_its_people_is_named(data: Path, tmp_path: Path) -> None:
    """The other folds are measured; a note names the fold and its missing people."""
    directory = family(tmp_path, "report-voice", (("ravdess:01",), ("ravdess:13",), ("ravdess:20",)))
    result = evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)
    assert result["sets"]["ravdess-folds"]["int8"]["n"] == 16
    notes = result["notes"]
    assert "tiny-fold2: no example of its held-out people (ravdess:20) in the data" in notes
    assert "ravdess: 1 of 3 held-out people are missing (ravdess:20)" in notes


def test_people_in_no_fold_are_left_out_and_counted(data: Path, tmp_path: Path) -> None:
    """People that no fold holds out are not measured; a note names them."""
    directory = family(tmp_path, "report-voice", (("nemo:EB0",), ("nemo:SM0",)))
    result = evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)
    assert result["sets"]["nemo-folds"]["int8"]["n"] == 12
    assert any(
        note == "nemo: 1 of 3 people are held out by no fold model and not measured (nemo:WR0)"
        for note in result["notes"]
    )
    assert any(note.startswith("tess: tiny was trained on it") for note in result["notes"])


def test_mean_of_folds_excludes_a_fold_with_one_class(nemo: Path, tmp_path: Path) -> None:
    """Its clips count in the total; the recall of a single class would distort the mean."""
    shutil.copytree(nemo / "nemo", tmp_path / "data" / "nemo")
    for path in (tmp_path / "data" / "nemo").glob("EB0_*"):
        if "anger" not in path.name:
            path.unlink()
    directory = family(tmp_path / "models", "report-voice", VOICE_FOLDS)
    result = evaluate_model("tiny", tmp_path / "data", directory=directory, bar=trees.no_bar)
    figures = result["sets"]["nemo-folds"]["int8"]
    assert figures["n"] == 13
    assert set(figures["folds"]) == {"fold1"}
    assert "tiny-fold0: nemo has only anger of its people; the mean of folds excludes it" in result["notes"]


def test_a_person_held_out_twice_counts_once(nemo: Path, tmp_path: Path) -> None:
    """The first fold makes the prediction, and a note names the other."""
    directory = family(tmp_path, "report-voice", (("nemo:EB0", "nemo:WR0"), ("nemo:WR0", "nemo:SM0")))
    result = evaluate_model("tiny", nemo, directory=directory, bar=trees.no_bar)
    assert {name: fold["n"] for name, fold in result["sets"]["nemo-folds"]["int8"]["folds"].items()} == {
        "fold0": 12,
        "fold1": 6,
    }
    assert "tiny-fold1: nemo:WR0 is measured by tiny-fold0, which holds it out too" in result["notes"]


def test_folds_without_float16_are_measured_as_int8(nemo: Path, tmp_path: Path) -> None:
    """If a fold lacks a variant, the variant is not measured, and a note names the fold."""
    directory = family(tmp_path, "report-voice", VOICE_FOLDS)
    copy_model("report-voice", "tiny-fold1", directory / "folds", variants=("int8",), held_out=VOICE_FOLDS[1])
    result = evaluate_model("tiny", nemo, directory=directory, bar=trees.no_bar)
    assert list(result["sets"]["nemo-folds"]) == ["int8"]
    assert result["int8_minus_float"] == {}
    assert "tiny-fold1: no float16 file; the folds are not measured as float16" in result["notes"]


def test_broken_fold_is_an_error(nemo: Path, tmp_path: Path) -> None:
    """A fold file with another hash than in its card is an error, as for any model."""
    directory = family(tmp_path, "report-voice", VOICE_FOLDS)
    (directory / "folds" / "report-voice.int8.tflite").write_bytes(b"other")
    with pytest.raises(ModelError, match="SHA-256"):
        evaluate_model("tiny", nemo, directory=directory, bar=trees.no_bar)


def test_folds_are_not_listed(tmp_path: Path) -> None:
    """`list_models` returns the model without its folds."""
    directory = family(tmp_path, "report-voice", VOICE_FOLDS)
    assert [card.name for card in list_models(directory)] == ["tiny"]


def test_own_held_out_people_are_measured_by_the_model_itself(data: Path, tmp_path: Path) -> None:
    """A card with held-out people of a corpus gives a set -unseen in addition to -folds."""
    directory = family(tmp_path, "report-voice", NEMO_FOLDS)
    copy_model("report-voice", "tiny", directory, held_out=["nemo:WR0"])
    sets = evaluate_model("tiny", data, directory=directory, bar=trees.no_bar)["sets"]
    assert sets["nemo-unseen"]["int8"]["n"] == 6
    assert sets["nemo-folds"]["int8"]["n"] == 18
    assert "tess-unseen" not in sets


def trained_on(name: str) -> list[dict[str, str]]:
    """Return the data of a card with one data set."""
    return [{"name": name, "use": "trained on", "licence": "made"}]
