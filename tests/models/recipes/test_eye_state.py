"""The recipes of the eye and mouth models: inputs, splits, and one epoch on drawn data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.inference.card import load_card
from edge.inference.features import EyeSpec
from edge.inference.weights import DETECTOR, find_weights
from models.data.eye_sets import CLOSED, OPEN, joined, load_cew, load_mrl
from models.run import Run
from models.training.eye_augmentation import augment_eye, crop_beside_eye, occlude_eye
from tests.helpers import trees

pytest.importorskip("torch", reason="needs the [train] extra")
pytest.importorskip("keras", reason="needs the [train] extra")

from models.recipes import eye_state, mouth_state

# TensorFlow's tensors do not support the copy keyword of NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MRL_PEOPLE = ("s0001", "s0002", "s0003", "s0004", "s0005", "s0006", "s0019")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return drawn eyes of 24 and of seven people, and faces."""
    data = tmp_path_factory.mktemp("data")
    trees.write_cew(data / "eyes" / "cew", people=24)
    trees.write_mrl(data / "eyes" / "mrl", people=MRL_PEOPLE, per_state=4)
    trees.write_fer2013(data / "faces" / "fer2013")
    return data


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which the eye recipe ran for one epoch a model, with fewer folds and views."""
    out = tmp_path_factory.mktemp("trained")
    run = Run(data, out, epochs=1, resume=False, report=lambda _: None, bar=trees.no_bar)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eye_state, "FOLDS", 2)
        patch.setattr(eye_state, "VIEWS", 2)
        assert eye_state.train_eye_state(run) == out / "eye-state.json"
    return out


def test_only_validation_people_are_held_out_of_the_shipped_model(trained: Path) -> None:
    """Its card names them; the cards of the folds together name all others."""
    held_out = set(load_card("eye-state", directory=trained).held_out)
    assert "mrl:s0019" in held_out
    assert any(person.startswith("cew:") for person in held_out)
    folds = [load_card(f"eye-state-fold{k}", directory=trained).held_out for k in range(2)]
    others = set[str]().union(*folds)
    assert sum(len(fold) for fold in folds) == len(others) == 48 + 7 - len(held_out)
    assert not held_out & others


def test_card_has_the_eye_crop(trained: Path) -> None:
    """The card has size, width and limit of the crop; calibration inputs are written too."""
    card = load_card("eye-state", directory=trained)
    assert card.labels == ("closed", "open", "hidden")
    assert card.spec(EyeSpec) == eye_state.SPEC
    inputs = np.load(trained / "eye-state.calibration.npy")
    assert inputs.shape[1:] == card.input.shape[1:]


def test_states_and_data_sets_are_balanced(data: Path) -> None:
    """cew and mrl, closed and open have the same total weight, regardless of the number of images."""
    eyes = joined(load_cew(data / "eyes" / "cew"), load_mrl(data / "eyes" / "mrl"))
    weights = eye_state.weights_of(eyes)
    is_mrl = np.array([person.startswith("mrl:") for person in eyes.people])
    for label in (CLOSED, OPEN):
        for part in (is_mrl, ~is_mrl):
            assert weights[(eyes.labels == label) & part].sum() == pytest.approx(1)


def test_number_determines_the_epoch(data: Path) -> None:
    """The number determines the examples, so that a resumed training equals an uninterrupted one."""
    eyes = load_cew(data / "eyes" / "cew")
    views = eye_state.make_views(eyes, np.stack([trees.face(k) for k in range(4)]))
    first, targets = eye_state.epoch_of(views, 3, seed=1)
    again, _ = eye_state.epoch_of(views, 3, seed=1)
    other, _ = eye_state.epoch_of(views, 4, seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert set(targets.argmax(axis=1).tolist()) == {CLOSED, OPEN, eye_state.HIDDEN}
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(first.mean(axis=(1, 2, 3)), 0.5, atol=0.1)


def test_augmented_eyes_keep_more_than_hidden_ones() -> None:
    """On average an augmented eye correlates more with its image than an occluded one."""
    random = np.random.default_rng(0)
    kept = {augment_eye: list[float](), occlude_eye: list[float]()}
    for seed in range(60):
        image = trees.eye(seed, 24, is_open=True)
        for change, values in kept.items():
            changed = change(image, 24, random)
            assert changed.shape == (24, 24)
            alike = [np.corrcoef(view.ravel(), image.ravel())[0, 1] for view in (changed, changed[:, ::-1])]
            values.append(float(np.nan_to_num(max(alike))))
    assert np.mean(kept[augment_eye]) > np.mean(kept[occlude_eye]) + 0.2
    assert crop_beside_eye(trees.face(1), 24, random).shape == (24, 24)


def test_mouth_recipe(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch a model on drawn mouths writes cards whose folds share no cluster."""
    if find_weights(DETECTOR) is None:
        pytest.skip("the detector weights are missing: emotion-models fetch")
    trees.write_yawns(data / "mouths" / "yawn", shots=24, frames=3)
    trees.write_sequences(data / "faces" / "ckplus_sequences", subjects=("S010",), frames=4)
    monkeypatch.setattr(mouth_state, "FOLDS", 2)
    run = Run(data, tmp_path, epochs=1, resume=False, report=lambda _: None, bar=trees.no_bar)
    assert mouth_state.train_mouth_state(run) == tmp_path / "mouth-state.json"
    folds = [load_card(f"mouth-state-fold{k}", directory=tmp_path).held_out for k in range(2)]
    others = set[str]().union(*folds)
    assert sum(len(fold) for fold in folds) == len(others)
    card = load_card("mouth-state", directory=tmp_path)
    assert not others & set(card.held_out)
    assert np.load(tmp_path / "mouth-state.calibration.npy").shape[1:] == card.input.shape[1:]
