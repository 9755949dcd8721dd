"""Splits are complete and disjoint, and those by people share no person."""

from __future__ import annotations

import numpy as np

from edge.values import LABELS
from models.data.splits import random_split, split_notes, subject_folds


def test_random_split_takes_a_fifth_of_every_class() -> None:
    """Of 10 examples 2 are tested, of 2 one, of 1 none; training and test part are disjoint."""
    labels = np.array([0] * 10 + [1] * 2 + [2])
    (fold,) = random_split(labels, seed=1)
    assert np.bincount(labels[fold.test], minlength=3).tolist() == [2, 1, 0]
    assert sorted([*fold.train, *fold.test]) == list(range(13))


def test_folds_share_no_person() -> None:
    """23 people in five folds: no person on both sides, every example tested once, no class missing."""
    random = np.random.default_rng(0)
    subjects = [f"p{i}" for i in random.integers(0, 23, 400)]
    labels = random.integers(0, 7, 400)
    folds = subject_folds(labels, subjects, seed=1)
    assert len(folds) == 5
    for fold in folds:
        assert not {subjects[i] for i in fold.train} & {subjects[i] for i in fold.test}
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(400))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) < 1.3 * min(sizes)
    assert split_notes(folds, labels, LABELS, protocol="x") == []


def test_fold_without_a_class_is_named() -> None:
    """If only one person has a class, notes name the folds that lack it in training or test part."""
    folds = subject_folds(np.array([0, 0, 1]), ["a", "b", "b"], seed=0)
    notes = split_notes(folds, np.array([0, 0, 1]), ("anger", "fear"), protocol="leave-subjects-out")
    assert sorted(note.partition(" of 2 ")[2] for note in notes) == [
        "has no test example of fear",
        "has no training example of fear",
    ]
