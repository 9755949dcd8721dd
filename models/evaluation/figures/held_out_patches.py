"""Predicts eyes and mouths of held-out people with the fold models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.inference.classifier import open_classifier
from edge.values import Float32
from models.data.datasets import DataError
from models.data.eye_sets import PatchSet
from models.evaluation.evaluate import VARIANTS
from models.family import Family
from models.metrics import Labels
from models.run import Bar


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPatches:
    """Images, and for each the number (n,), from 0, of the fold model that holds out its person."""

    patches: PatchSet
    model_numbers: Labels


def held_out_patches(family: Family, corpus: str, patches: PatchSet, notes: list[str]) -> HeldOutPatches:
    """Return the images of people that a fold model holds out; validation people are in no fold.

    Raises `DataError` if there are none.
    """
    owner = family.fold_of_people(corpus, notes)
    kept = patches.take([i for i, person in enumerate(patches.people) if person in owner])
    if not len(kept):
        raise DataError(f"{corpus}: no person is held out by a fold model of {family.card.name}")
    return HeldOutPatches(kept, np.array([owner[person] - 1 for person in kept.people], dtype=np.int64))


def predict_with_folds(
    family: Family, directory: Path, held_out: HeldOutPatches, inputs: Float32, *, bar: Bar
) -> Mapping[str, Float32]:
    """Return p (n, classes) for `inputs` (n, h, w, 1) of each variant that all folds have.

    Raises `DataError` without int8 files, which are what devices run.
    """
    p: dict[str, Float32] = {}
    for variant in (v for v in VARIANTS if all(v in card.files for card in family.folds)):
        classifiers = [
            open_classifier(card.name, task=card.task, directory=directory / "folds", variant=variant)
            for card in family.folds
        ]
        predictions = np.zeros((len(inputs), len(family.card.labels)), np.float32)
        with bar(f"{held_out.patches.name} {variant}") as progress:
            for i, features in enumerate(inputs):
                predictions[i] = classifiers[int(held_out.model_numbers[i])].classify(features)
                progress(i + 1, len(inputs))
        p[variant] = predictions
    if "int8" not in p:
        raise DataError(f"{family.card.name}: its fold models have no int8 file; convert them")
    return p
