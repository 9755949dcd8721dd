"""Windows of synthetic embeddings to train the video model: times, targets and determinism."""

from __future__ import annotations

import numpy as np
import pytest

from edge.inference.features import VideoSpec
from edge.values import LABELS, Float32
from models.data.expression_sequences import NEUTRAL, blend, onset_targets, perturb_crop
from models.evaluation.figures.onsets import METHODS, OnsetPredictions
from models.evaluation.figures.video import interval_over, onset_figures
from models.training.embedding_windows import WindowSampler
from models.training.embeddings import EmbeddedSequence

SPEC = VideoSpec(of="face-cnn", steps=16, rate_hz=10.0)
HAPPY = LABELS.index("happiness")


def still(label: int) -> EmbeddedSequence:
    """Return a still face with the one-hot of its label as embedding, in three slightly different views."""
    hot = np.eye(7, dtype=np.float32)[label]
    embeddings = np.stack([hot + 0.01 * view for view in range(3)])[:, np.newaxis]
    return EmbeddedSequence(
        embeddings.astype(np.float32), np.tile(hot, (3, 1, 1)), hot[np.newaxis], "fer2013", "wild"
    )


def onset(label: int) -> EmbeddedSequence:
    """Return a linear onset from neutral to `label` in 11 steps."""
    way = np.linspace(0, 1, 11, dtype=np.float32)[:, np.newaxis]
    hot = np.eye(7, dtype=np.float32)
    embeddings = ((1 - way) * hot[NEUTRAL] + way * hot[label])[np.newaxis]
    return EmbeddedSequence(
        embeddings, embeddings, onset_targets(label, way[:, 0]), "ckplus:S001", "sequence"
    )


def sampler() -> WindowSampler:
    """Return a sampler of one still face for each class and two onsets."""
    return WindowSampler([*(still(k) for k in range(7)), onset(HAPPY), onset(0)], SPEC)


def test_onset_targets_go_from_neutral_to_the_expression() -> None:
    """Targets sum to 1, start at neutral and end at the expression."""
    targets = onset_targets(HAPPY, np.linspace(0, 1, 21, dtype=np.float32))
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert targets[0, NEUTRAL] == targets[-1, HAPPY] == 1
    assert (np.diff(targets[:, HAPPY]) >= 0).all()
    np.testing.assert_array_equal(onset_targets(NEUTRAL, np.ones(1, np.float32))[0, NEUTRAL], 1)


def test_seed_determines_the_windows() -> None:
    """The same seed gives the same windows; they have the right shape and are different from each other."""
    first, second = (sampler().draw(np.random.default_rng(3), count=200) for _ in range(2))
    assert first.inputs.shape == (200, 16, 7)
    np.testing.assert_array_equal(first.inputs, second.inputs)
    np.testing.assert_allclose(first.targets.sum(axis=1), 1, atol=1e-5)
    assert len(np.unique(first.inputs.round(5), axis=0)) > 160


def test_targets_belong_to_the_last_step() -> None:
    """If the last step clearly shows a class, the target is that class; all classes occur."""
    windows = sampler().draw(np.random.default_rng(4), count=600)
    last = windows.inputs[:, -1]
    sure = last.max(axis=1) > 0.9
    np.testing.assert_array_equal(last[sure].argmax(axis=1), windows.targets[sure].argmax(axis=1))
    assert set(windows.targets.argmax(axis=1)) == set(range(7))
    np.testing.assert_array_equal(windows.p.argmax(axis=1)[sure], last[sure].argmax(axis=1))


def test_some_windows_are_of_new_tracks() -> None:
    """Some windows have a short history, padded with its first step; most are complete."""
    windows = sampler().draw(np.random.default_rng(5), count=400)
    assert 0.1 < np.mean(windows.share < 1) < 0.5
    new = windows.inputs[windows.share < 0.2]
    np.testing.assert_array_equal(new[:, 0], new[:, 5])


def test_perturbed_crop_differs_slightly() -> None:
    """The perturbed crop differs from the crop, but only slightly."""
    crop = np.zeros((48, 48), np.uint8)
    crop[12:36, 12:36] = 200
    shaken = perturb_crop(crop, np.random.default_rng(0))
    assert 0 < np.abs(shaken.astype(float) - crop).mean() < 30


def test_blend_interpolates_between_the_crops() -> None:
    """Half way is the mean of both crops."""
    a, b = np.full((48, 48), 10, np.uint8), np.full((48, 48), 30, np.uint8)
    crops = blend(a, b, np.array([0, 0.5, 1], np.float32))
    assert [int(crop[0, 0]) for crop in crops] == [10, 20, 30]


def onset_of(predicted: list[int], person: str) -> OnsetPredictions:
    """Return an onset of happiness for which every method predicts these labels in turn."""
    p: Float32 = np.eye(7, dtype=np.float32)[predicted]
    way = np.linspace(0, 1, len(predicted))
    return OnsetPredictions("made", person, HAPPY, way, dict.fromkeys(METHODS, p))


@pytest.mark.parametrize(
    ("predicted", "early"),
    [
        ([HAPPY] * 5, 0.0),
        ([4, 4, HAPPY, HAPPY, HAPPY], 0.5),
        ([HAPPY, 4, 4, 4, HAPPY], 1.0),
        ([HAPPY, HAPPY, HAPPY, HAPPY, 4], 1.0),
    ],
)
def test_early_is_the_start_of_the_right_end(predicted: list[int], early: float) -> None:
    """Only right predictions until the end count; an onset with a wrong end counts as 1."""
    found = onset_figures([onset_of(predicted, "a")])["methods"]["video"]
    assert found["early"] == early
    assert found["accuracy"] == float(predicted[-1] == HAPPY)


def test_interval_resamples_whole_people() -> None:
    """With two people, one all right and one all wrong, the interval is 0 to 1."""
    low, high = interval_over(["a"] * 10 + ["b"] * 10, np.array([1.0] * 10 + [0.0] * 10))
    assert (low, high) == (0, 1)
    many = [f"p{i}" for i in range(20)]
    low, high = interval_over(many, np.array([1.0] * 10 + [0.0] * 10))
    assert 0.2 < low < 0.5 < high < 0.8
