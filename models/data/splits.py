"""Splits examples into training and test parts, at random or without shared people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data.datasets import DataError
from models.metrics import Labels

Index = NDArray[np.int64]
HELD_OUT_SHARE = 0.2
FOLDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Indices (n,) of the training examples and of the test examples."""

    train: Index
    test: Index


def random_split(labels: Labels, *, seed: int) -> list[Fold]:
    """Return one fold whose test part is a random fifth of every class, regardless of people.

    The only example of a class is for training. Raises `DataError` if no class has two examples.
    """
    random = np.random.default_rng(seed)
    test = []
    for k in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == k))
        count = round(HELD_OUT_SHARE * members.size) or int(members.size > 1)
        test.append(members[:count])
    held = np.concatenate(test)
    if not held.size:
        raise DataError(
            "no class has two examples, one to train on and one to test on; complete the data set"
        )
    return [_fold(held, labels.size)]


def subject_folds(labels: Labels, subjects: Sequence[str], *, seed: int, folds: int = FOLDS) -> list[Fold]:
    """Return folds with disjoint, complete test parts that share no person with the training part.

    People are assigned one by one, those with most examples first, each to the fold where the classes then
    are most even. With fewer people than `folds`, each is one fold; raises `DataError` for one person.
    """
    people = np.array(subjects)
    names = sorted(set(subjects))
    if len(names) < 2:
        raise DataError(f"{names[0]} is the only person in it; complete the data set")
    classes = np.unique(labels)
    # (people, classes): the share of each class that a person has
    share = np.array([[np.mean(people[labels == k] == name) for k in classes] for name in names])
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-share.sum(axis=1)[order], kind="stable")]
    filled = np.zeros((min(folds, len(names)), classes.size))
    members: list[list[str]] = [[] for _ in filled]
    for person in order:
        crowded = np.sum((filled + share[person]) ** 2 - filled**2, axis=1)
        # An empty fold first: otherwise a person without the common classes could leave one empty.
        chosen = min(range(len(filled)), key=lambda f: (bool(members[f]), crowded[f]))
        filled[chosen] += share[person]
        members[chosen].append(names[person])
    return [_fold(np.flatnonzero(np.isin(people, part)), labels.size) for part in members]


def split_notes(folds: Sequence[Fold], labels: Labels, names: Sequence[str], *, protocol: str) -> list[str]:
    """Return a note for every fold that lacks a class in its training or test part."""
    notes = []
    for number, fold in enumerate(folds, start=1):
        where = f"{protocol}, fold {number} of {len(folds)}" if len(folds) > 1 else protocol
        for part, what in ((fold.train, "has no training example of"), (fold.test, "has no test example of")):
            missing = [name for k, name in enumerate(names) if not np.any(labels[part] == k)]
            if missing:
                notes.append(f"{where} {what} {', '.join(missing)}")
    return notes


def _fold(test: Index, count: int) -> Fold:
    held = np.sort(test).astype(np.int64)
    return Fold(np.setdiff1d(np.arange(count, dtype=np.int64), held), held)
