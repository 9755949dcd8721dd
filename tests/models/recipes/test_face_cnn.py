"""The recipe of the shipped face model: input, targets, and all kinds of stages on a tiny data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.inference.card import load_card
from edge.inference.features import CropSpec
from edge.values import Float32, UInt8
from models.data.datasets import FaceSet, load_ckplus_sequences
from models.run import Progress, Run
from tests.helpers import trees

pytest.importorskip("torch", reason="needs the [train] extra")
pytest.importorskip("keras", reason="needs the [train] extra")

import keras  # after the skips

from models.data import face_crops
from models.recipes import face_cnn
from models.training import engine
from models.training.engine import Epoch
from models.training.torch_network import Network

# TensorFlow's tensors do not support the copy keyword of NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


WIDTHS, PRUNED_WIDTHS = (6, 8, 12), (4, 6, 8)  # of a tiny network


def face_set(votes: list[list[int]]) -> FaceSet:
    """Return faces of anger with these votes."""
    count = len(votes)
    return FaceSet(
        name="toy",
        images=tuple(trees.face(k) for k in range(count)),
        labels=np.zeros(count, np.int64),
        subjects=("",) * count,
        votes=np.array(votes, np.float32),
    )


def test_input_matches_the_card() -> None:
    """Crops become levelled floats in [0, 1] of the size in the card."""
    inputs = face_crops.as_input(np.stack([trees.face(k) for k in range(3)]))
    assert inputs.shape == (3, *face_crops.CROP_SHAPE)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs.mean(axis=(1, 2, 3)), 0.5, atol=0.02)
    assert face_crops.CROP.levelled


def test_targets_mix_label_votes_and_teacher() -> None:
    """Each part has its share; without votes the label replaces them; all sum to 1."""
    teacher = np.zeros((2, 7), np.float32)
    teacher[:, 6] = 1
    faces = face_set([[0, 0, 0, 10, 0, 0, 0], [0] * 7])
    targets = face_cnn.wild_targets(faces, teacher, shares=(0.5, 0.3, 0.2))
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert targets[0, 3] == pytest.approx(0.3, abs=0.01)
    assert targets[0, 0] == pytest.approx(0.5, abs=0.02)
    assert targets[1, 0] == pytest.approx(0.8, abs=0.03)
    assert targets[1, 6] == pytest.approx(0.2, abs=0.01)


def test_sequences_begin_neutral_and_end_with_their_emotion(tmp_path: Path) -> None:
    """Of eight frames three are neutral, the fourth is left out, the second half has the emotion."""
    trees.write_sequences(tmp_path, subjects=("S010", "S011"), frames=8)
    faces = load_ckplus_sequences(tmp_path)
    assert np.bincount(faces.labels, minlength=7).tolist() == [8, 0, 0, 0, 6, 0, 0]
    assert sorted(set(faces.subjects)) == ["S010", "S011"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which the recipe ran for one epoch a stage, with a fake teacher and two stages
    on FER2013.
    """
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("trained")
    trees.write_fer2013(data / "faces" / "fer2013", trees.fer_rows(1))
    trees.write_ckplus48(data / "faces" / "ckplus48")
    trees.write_sequences(data / "faces" / "ckplus_sequences", subjects=("S010", "S011"), frames=3)

    def ask(_weights: object, images: UInt8, *, progress: Progress | None = None) -> Float32:
        del progress
        return np.full((len(images), 7), 1 / 7, np.float32)

    def kept_train(build: Any, epoch_of: Epoch, scores: Any, *, name: str, **others: Any) -> Any:
        def kept(number: int) -> tuple[Float32, Float32]:
            inputs, targets = epoch_of(number)
            np.savez(out / f"{name}.npz", inputs=inputs, targets=targets)
            return inputs, targets

        return engine.train(build, kept, scores, name=name, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(face_cnn, "train", kept_train)
        patch.setattr(face_cnn, "WIDTHS", WIDTHS)
        patch.setattr(face_cnn, "PRUNED_WIDTHS", PRUNED_WIDTHS)
        # The real teacher has its own test; here it would need a download.
        patch.setattr(face_cnn, "fetch_teacher", lambda _directory, **_: None)
        patch.setattr(face_cnn, "load_teacher", lambda _directory: {})
        patch.setattr(face_cnn, "predict_with_teacher", ask)
        small = [
            replace(stage, schedule=replace(stage.schedule, batch=4))
            for stage in (*face_cnn.WILD_STAGES, face_cnn.POSED_STAGE, face_cnn.PRUNED_STAGE)
        ]
        patch.setattr(face_cnn, "WILD_STAGES", tuple(small[:2]))
        patch.setattr(face_cnn, "POSED_STAGE", small[-2])
        patch.setattr(face_cnn, "PRUNED_STAGE", small[-1])
        run = Run(data, out, epochs=1, resume=True, report=lambda _: None, bar=trees.no_bar)
        face_cnn.train_face_cnn(run)
    return out


def test_recipe_writes_the_model_and_its_folds(trained: Path) -> None:
    """Every model has a card; only the folds have held-out people."""
    card = load_card("face-cnn", directory=trained)
    assert card.held_out == ()
    assert card.spec(CropSpec).levelled is True
    assert {source.name for source in card.data} >= {"fer2013", "face-api 1.7.15 expression network"}
    assert len(list(trained.glob("face-cnn-fold?.keras"))) == 2, "there are two people"


def test_folds_hold_every_posed_person_out_once(trained: Path) -> None:
    """Every person is held out by exactly one fold."""
    left_out = [
        person for k in range(2) for person in load_card(f"face-cnn-fold{k}", directory=trained).held_out
    ]
    assert sorted(left_out) == ["ckplus:S010", "ckplus:S011"]


def test_shipped_model_is_pruned(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters inside the blocks are pruned; the output of a block and the embedding keep their size."""
    monkeypatch.setattr(face_cnn, "WIDTHS", WIDTHS)
    for name, inside in (("face-cnn-wide", WIDTHS), ("face-cnn", PRUNED_WIDTHS)):
        model = keras.models.load_model(trained / f"{name}.keras", compile=False)
        assert [tuple(w.shape) for w in model.weights] == [
            tuple(w.shape) for w in face_cnn.build(inside=inside).weights
        ]
        assert model.layers[-1].input.shape == (None, WIDTHS[-1])


def test_unpruned_network_is_the_teacher_of_the_pruned_one(trained: Path) -> None:
    """Half of a target is the prediction of the unpruned network, the rest label and teacher."""
    epoch = np.load(trained / "face-cnn-slim.npz")
    wide = keras.models.load_model(trained / "face-cnn-wide.keras", compile=False)
    np.testing.assert_allclose(epoch["targets"].sum(axis=1), 1, atol=1e-5)
    predicted = Network(wide).predict(epoch["inputs"])
    rest = np.sort(epoch["targets"] - face_cnn.UNPRUNED_SHARE * predicted, axis=1)
    # A posed face has one label and the fake teacher is uniform: the other classes are equally likely.
    assert np.mean(rest[:, 5] - rest[:, 0] < 1e-5) > 0.4
    assert np.mean(np.ptp(np.sort(epoch["targets"], axis=1)[:, :6], axis=1) < 1e-5) == 0
