"""Held-out faces meet held-out voices: by label, in every condition, and what comes of it is measured."""

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

# Keras has not learnt NumPy 2's way to ask for a copy yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NAMES = [condition.name for condition in CONDITIONS]


def answers(name: str, kinds: dict[str, float], *, each: int, people: int, seed: int) -> PredictionSet:
    """Return answers right in the given share of each kind, and mostly less sure when they are wrong."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(7), each)
    p, quality = {}, {}
    for kind, share in kinds.items():
        wrong = random.integers(1, 7, labels.size) * (random.random(labels.size) > share)
        sureness = random.uniform(0.3, 0.6, labels.size) + 0.3 * (wrong == 0)
        said = np.tile(((1 - sureness) / 6)[:, None], (1, 7))
        said[np.arange(labels.size), (labels + wrong) % 7] = sureness
        p[kind], quality[kind] = said.astype(np.float32), np.full(labels.size, share, np.float32)
    who = np.array([f"{name}:{i % people}" for i in range(labels.size)])
    return PredictionSet(name, labels, who, p, quality)


@pytest.fixture
def faces() -> PredictionSet:
    """Faces of which the covered ones are mostly wrong, and a few without an opinion."""
    kinds = {CLEAN: 0.8, COVERED_MOUTH: 0.4, COVERED_EYES: 0.4, TURNED: 0.5}
    made = answers("made", kinds, each=12, people=84, seed=1)
    made.p[COVERED_EYES][::3] = 0
    return made


@pytest.fixture
def voices() -> PredictionSet:
    """Voices of six speakers, mostly right, and mostly wrong in babble."""
    return answers("voices", {CLEAN: 0.7, BABBLE: 0.3}, each=12, people=6, seed=2)


@pytest.mark.parametrize("agree", [True, False])
def test_partners_have_the_same_label_or_never(
    faces: PredictionSet, voices: PredictionSet, agree: bool
) -> None:
    """Every face has a voice of its label, or in the condition for that of any other."""
    partners = find_partners(faces.labels, voices, np.random.default_rng(0), agree=agree)
    assert ((voices.labels[partners] == faces.labels) == agree).all()


def test_a_speaker_with_many_clips_is_not_heard_more(voices: PredictionSet) -> None:
    """Who has ten times the clips is still one of six."""
    first = np.flatnonzero(voices.people == "voices:0")
    crowded = voices.at(np.concatenate([np.arange(len(voices)), *[first] * 9]))
    partners = find_partners(np.repeat(np.arange(7), 300), crowded, np.random.default_rng(0))
    assert np.mean(crowded.people[partners] == "voices:0") == pytest.approx(1 / 6, abs=0.03)


def test_conditions_take_what_they_say(faces: PredictionSet, voices: PredictionSet) -> None:
    """A missing modality is zeros, a covered face its own answer, babble the noisy one."""
    partners = find_partners(faces.labels, voices, np.random.default_rng(0))
    pairs = {c.name: make_pairs(faces, voices, partners, c) for c in CONDITIONS}
    assert not pairs["no face"].p[:, 0].any()
    assert not pairs["no voice"].p[:, 1].any()
    np.testing.assert_array_equal(pairs[COVERED_EYES].p[:, 0], faces.p[COVERED_EYES])
    np.testing.assert_array_equal(pairs["babble 0 dB"].p[:, 1], voices.p[BABBLE][partners])
    assert pairs[COVERED_EYES].both.sum() == len(faces) - len(faces.p[COVERED_EYES][::3])


def test_examples_to_learn_from_have_everything_that_happens(
    faces: PredictionSet, voices: PredictionSet
) -> None:
    """Some have one modality, some old or poor opinions; the same seed gives the same."""
    one, same = (draw_pairs(faces, voices, 2000, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.features(), same.features())
    assert 0.1 < 1 - one.both.mean() < 0.5
    assert one.is_present.any(axis=1).all()
    assert one.freshness.min() < 0.4
    assert one.features().min() >= 0
    assert one.features().max() <= 1


def test_exchanged_labels_keep_what_is_right(faces: PredictionSet, voices: PredictionSet) -> None:
    """The probability of the label moves with the label, and each takes the place of each."""
    pairs = draw_pairs(faces, voices, 2000, np.random.default_rng(5))
    moved = exchange_labels(pairs, np.random.default_rng(6))
    rows = np.arange(len(pairs.p))
    for side in (0, 1):
        before, after = pairs.p[rows, side, pairs.labels[:, side]], moved.p[rows, side, moved.labels[:, side]]
        np.testing.assert_array_equal(before, after)
    assert len(set(zip(pairs.labels[:, 0].tolist(), moved.labels[:, 0].tolist(), strict=True))) == 49


def test_a_rule_of_pairs_is_the_rule_of_the_device(faces: PredictionSet, voices: PredictionSet) -> None:
    """Where nothing is there nothing is said; everything else sums to 1."""
    partners = find_partners(faces.labels, voices, np.random.default_rng(0))
    alone = make_pairs(faces, voices, partners, CONDITIONS[NAMES.index("no face")])
    nothing = make_pairs(faces.at(np.arange(0, 84, 3)), voices, partners[::3], CONDITIONS[2])
    nothing.p[:, 1] = 0
    for method in RULES:
        np.testing.assert_allclose(fuse_by_rule(alone, method, FusionSettings()).sum(axis=1), 1, atol=1e-5)
        assert not fuse_by_rule(nothing, method, FusionSettings())[:1].any()


def test_scores_targets_and_tables(faces: PredictionSet, voices: PredictionSet) -> None:
    """Two that are right by themselves are more often right together, and every figure is a number."""
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
def test_hampered_faces_lose_what_they_should(kind: str) -> None:
    """The rest of a covered face stays, one that turned away is small; the picture is not touched."""
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


def test_nobody_is_in_two_parts(tmp_path: Path) -> None:
    """People are learnt from, chosen on or measured."""
    subjects = tuple(f"S{i:03d}" for i in range(8))
    posed = load_ckplus48(write_ckplus48(tmp_path, subjects=subjects))
    parts = [set(people_of(posed, part).subjects) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 8


def test_recipe_leaves_a_model_and_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: PredictionSet, voices: PredictionSet
) -> None:
    """An epoch on made answers gives a card that loads, with what every method reaches on validation."""
    pytest.importorskip("keras", reason="needs the [train] extra")
    monkeypatch.setattr(multimodal, "_answers", lambda _run, _part: ([faces, faces], voices))
    monkeypatch.setattr(multimodal, "PAIRS_AN_EPOCH", 512)
    told: list[str] = []
    path = multimodal.train_multimodal(Run(tmp_path, tmp_path, 1, False, told.append, no_bar))
    card = load_card("multimodal", directory=tmp_path)
    assert path == tmp_path / "multimodal.json"
    assert card.task == "multimodal"
    assert np.load(tmp_path / "multimodal.calibration.npy").shape[1:] == card.input.shape[1:]
    assert card.labels == LABELS
    for method in (*RULES, "network"):
        assert any(line.startswith(f"{method}: ") and "temperature" in line for line in told)
