"""Asks fold models about pictures of people whom they never saw: eyes and mouths."""

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
    """Pictures, and for each the number (n,) of the fold model, from 0, that never saw its person."""

    patches: PatchSet
    model_numbers: Labels


def held_out_patches(family: Family, corpus: str, patches: PatchSet, notes: list[str]) -> HeldOutPatches:
    """Leave out who is held out by no fold, such as those who chose the model.

    Raises `DataError` where nobody is left.
    """
    owner = family.fold_of_people(corpus, notes)
    kept = patches.take([i for i, person in enumerate(patches.people) if person in owner])
    if not len(kept):
        raise DataError(f"{corpus}: nobody in it is held out by a fold model of {family.card.name}")
    return HeldOutPatches(kept, np.array([owner[person] - 1 for person in kept.people], dtype=np.int64))


def predict_with_folds(
    family: Family, directory: Path, unseen: HeldOutPatches, inputs: Float32, *, bar: Bar
) -> Mapping[str, Float32]:
    """Return p (n, classes) of each variant that all folds have, for `inputs` (n, h, w, 1).

    Raises `DataError` where they have no int8 files, which is what devices run.
    """
    p: dict[str, Float32] = {}
    for variant in (v for v in VARIANTS if all(v in card.files for card in family.folds)):
        files = [
            open_classifier(card.name, task=card.task, directory=directory / "folds", variant=variant)
            for card in family.folds
        ]
        answers = np.zeros((len(inputs), len(family.card.labels)), np.float32)
        with bar(f"{unseen.patches.name} {variant}") as progress:
            for i, features in enumerate(inputs):
                answers[i] = files[int(unseen.model_numbers[i])].classify(features)
                progress(i + 1, len(inputs))
        p[variant] = answers
    if "int8" not in p:
        raise DataError(f"{family.card.name}: its fold models have no int8 file; convert them")
    return p
