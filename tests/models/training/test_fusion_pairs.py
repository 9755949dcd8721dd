"""Held-out faces are paired with held-out voices by label and condition, and fusion is measured on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.inference.card import load_card
from edge.people.pooling import RULES
from edge.settings import FusionSettings
from edge.values import LABELS
from models.data.corruption import CLEAN
from models.data.datasets import load_ckplus48
from models.evaluation.figures.fusion import SINGLES, figures_of, score_set, tables_of, targets_of
from models.recipes import multimodal
from models.run import Run
from models.training.fusion_pairs import (
    CONDITIONS,
    draw_pairs,
    exchange_labels,
    find_partners,
    fuse_by_rule,
    make_pairs,
)
from models.training.fusion_predictions import (
    BABBLE,
    COVERED_EYES,
    COVERED_MOUTH,
    FACE_CONDITIONS,
    TURNED,
    PredictionSet,
    median_quality,
    people_of,
)
from tests.helpers.trees import face, no_bar, write_ckplus48

# Keras does not support the copy keyword of NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAMES = [condition.name for condition in CONDITIONS]


def made_predictions(
    name: str, kinds: dict[str, float], *, each: int, people: int, seed: int
) -> PredictionSet:
    """Return predictions with the given accuracy in each condition, less confident if wrong."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(7), each)
    p, quality = {}, {}
    for kind, share in kinds.items():
        wrong = random.integers(1, 7, labels.size) * (random.random(labels.size) > share)
        sureness = random.uniform(0.3, 0.6, labels.size) + 0.3 * (wrong == 0)
        rows = np.tile(((1 - sureness) / 6)[:, None], (1, 7))
        rows[np.arange(labels.size), (labels + wrong) % 7] = sureness
        p[kind], quality[kind] = rows.astype(np.float32), np.full(labels.size, share, np.float32)
    who = np.array([f"{name}:{i % people}" for i in range(labels.size)])
    return PredictionSet(name, labels, who, p, quality)


@pytest.fixture
def faces() -> PredictionSet:
    """Return faces, mostly wrong if covered, some without a prediction."""
    kinds = {CLEAN: 0.8, COVERED_MOUTH: 0.4, COVERED_EYES: 0.4, TURNED: 0.5}
    made = made_predictions("made", kinds, each=12, people=84, seed=1)
    made.p[COVERED_EYES][::3] = 0
    return made


@pytest.fixture
def voices() -> PredictionSet:
    """Return voices of six speakers, mostly right, mostly wrong in babble."""
    return made_predictions("voices", {CLEAN: 0.7, BABBLE: 0.3}, each=12, people=6, seed=2)


@pytest.mark.parametrize("agree", [True, False])
def test_partners_have_the_same_or_another_label(
    faces: PredictionSet, voices: PredictionSet, agree: bool
) -> None:
    """Every face gets a voice of the same label, or of another label in the disagreeing condition."""
    partners = find_partners(faces.labels, voices, np.random.default_rng(0), agree=agree)
    assert ((voices.labels[partners] == faces.labels) == agree).all()


def test_speakers_are_equally_likely(voices: PredictionSet) -> None:
    """A speaker with ten times the clips is drawn as often as the others."""
    first = np.flatnonzero(voices.people == "voices:0")
    crowded = voices.select(np.concatenate([np.arange(len(voices)), *[first] * 9]))
    partners = find_partners(np.repeat(np.arange(7), 300), crowded, np.random.default_rng(0))
    assert np.mean(crowded.people[partners] == "voices:0") == pytest.approx(1 / 6, abs=0.03)


def test_conditions_select_their_predictions(faces: PredictionSet, voices: PredictionSet) -> None:
    """A missing modality is zero; covered faces and babble have their own predictions."""
    partners = find_partners(faces.labels, voices, np.random.default_rng(0))
    pairs = {c.name: make_pairs(faces, voices, partners, c) for c in CONDITIONS}
    assert not pairs["no face"].p[:, 0].any()
    assert not pairs["no voice"].p[:, 1].any()
    np.testing.assert_array_equal(pairs[COVERED_EYES].p[:, 0], faces.p[COVERED_EYES])
    np.testing.assert_array_equal(pairs["babble 0 dB"].p[:, 1], voices.p[BABBLE][partners])
    assert pairs[COVERED_EYES].both.sum() == len(faces) - len(faces.p[COVERED_EYES][::3])


def test_training_pairs_cover_all_situations(faces: PredictionSet, voices: PredictionSet) -> None:
    """Some pairs have one modality, some old or poor predictions; the seed determines them."""
    one, same = (draw_pairs(faces, voices, 2000, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.features(), same.features())
    assert 0.1 < 1 - one.both.mean() < 0.5
    assert one.is_present.any(axis=1).all()
    assert one.freshness.min() < 0.4
    assert one.features().min() >= 0
    assert one.features().max() <= 1


def test_class_permutation_keeps_the_right_class(faces: PredictionSet, voices: PredictionSet) -> None:
    """The probability moves with its label, and every permutation of two classes occurs."""
    pairs = draw_pairs(faces, voices, 2000, np.random.default_rng(5))
    moved = exchange_labels(pairs, np.random.default_rng(6))
    rows = np.arange(len(pairs.p))
    for side in (0, 1):
        before, after = pairs.p[rows, side, pairs.labels[:, side]], moved.p[rows, side, moved.labels[:, side]]
        np.testing.assert_array_equal(before, after)
    assert len(set(zip(pairs.labels[:, 0].tolist(), moved.labels[:, 0].tolist(), strict=True))) == 49


def test_rules_without_and_with_one_modality(faces: PredictionSet, voices: PredictionSet) -> None:
    """The result is zero without predictions and sums to 1 otherwise."""
    partners = find_partners(faces.labels, voices, np.random.default_rng(0))
    alone = make_pairs(faces, voices, partners, CONDITIONS[NAMES.index("no face")])
    nothing = make_pairs(faces.select(np.arange(0, 84, 3)), voices, partners[::3], CONDITIONS[2])
    nothing.p[:, 1] = 0
    for method in RULES:
        np.testing.assert_allclose(fuse_by_rule(alone, method, FusionSettings()).sum(axis=1), 1, atol=1e-5)
        assert not fuse_by_rule(nothing, method, FusionSettings())[:1].any()


def test_scores_targets_and_tables(faces: PredictionSet, voices: PredictionSet) -> None:
    """Fusion is better than each modality, and figures, targets and tables are complete."""
    methods = {
        SINGLES[0]: lambda pairs: pairs.p[:, 0],
        SINGLES[1]: lambda pairs: pairs.p[:, 1],
        "weighted_log": lambda pairs: fuse_by_rule(pairs, "weighted_log", FusionSettings()),
    }
    scores = score_set(faces, voices, methods, no_bar)
    clean = scores["weighted_log"]["both clean"]
    assert clean.accuracy > scores[SINGLES[0]]["both clean"].accuracy
    assert clean.over_people[0] <= clean.over_pairings[0] < clean.accuracy
    assert scores[SINGLES[0]]["no face"].accuracy == 0
    figures = figures_of(scores)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["weighted_log"]["disagreeing"]["ece"] is None
    gain, loss, ece = targets_of({"made": scores}, "weighted_log")
    assert gain["measured"] > 0
    assert loss["target"].startswith("made: ")
    assert ece["measured"] > 0
    for table in tables_of("made", scores):
        assert all(len(row) == len(table.heads) for row in table.rows)
    assert median_quality(faces)[COVERED_EYES]["share"] == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("kind", [COVERED_MOUTH, COVERED_EYES, TURNED])
def test_degraded_faces(kind: str) -> None:
    """A covered face is unchanged elsewhere, a turned one is small; the input is not modified."""
    image = face(3)
    before = image.copy()
    changed = FACE_CONDITIONS[kind](image)
    np.testing.assert_array_equal(image, before)
    rows = {COVERED_MOUTH: slice(0, 29), COVERED_EYES: slice(24, 48)}
    if kind in rows:
        np.testing.assert_array_equal(changed[rows[kind]], image[rows[kind]])
        assert (changed != image).any()
    else:
        assert changed.shape == (20, 20)


def test_parts_share_no_person(tmp_path: Path) -> None:
    """Every person is in exactly one of training, validation and test."""
    subjects = tuple(f"S{i:03d}" for i in range(8))
    posed = load_ckplus48(write_ckplus48(tmp_path, subjects=subjects))
    parts = [set(people_of(posed, part).subjects) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 8


def test_recipe_writes_model_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: PredictionSet, voices: PredictionSet
) -> None:
    """One epoch on synthetic predictions writes a valid card and reports every method on validation."""
    pytest.importorskip("keras", reason="needs the [train] extra")
    monkeypatch.setattr(multimodal, "_predictions", lambda _run, _part: ([faces, faces], voices))
    monkeypatch.setattr(multimodal, "PAIRS_AN_EPOCH", 512)
    reports: list[str] = []
    path = multimodal.train_multimodal(Run(tmp_path, tmp_path, 1, False, reports.append, no_bar))
    card = load_card("multimodal", directory=tmp_path)
    assert path == tmp_path / "multimodal.json"
    assert card.task == "multimodal"
    assert np.load(tmp_path / "multimodal.calibration.npy").shape[1:] == card.input.shape[1:]
    assert card.labels == LABELS
    for method in (*RULES, "network"):
        assert any(line.startswith(f"{method}: ") and "temperature" in line for line in reports)
