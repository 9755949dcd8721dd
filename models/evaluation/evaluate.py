"""Measures TFLite files on held-out people with the code of the device."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from edge.inference.card import artifacts_directory, golden_input
from edge.inference.classifier import TfliteClassifier, open_classifier
from models.cards import save_card
from models.data.datasets import DataError
from models.evaluation.face_sets import face_sets
from models.evaluation.peers import compare
from models.evaluation.predictions import Classifiers, measure_set, points
from models.evaluation.targets import check_targets
from models.evaluation.voice_sets import voice_sets
from models.family import Family, load_family
from models.run import Bar

VARIANTS = ("int8", "float16")
LATENCY_RUNS = 200
# For plots only; they would dominate the card.
NOT_IN_CARDS = ("confusion", "reliability")


def evaluate_model(
    name: str, data: Path, *, directory: Path | None = None, bar: Bar, write_card: bool = False
) -> dict[str, Any]:
    """Measure every variant of `name` in its card on every held-out set in `data`.

    Returns `{"model", "version", "task", "sets": {set: {variant: figures}}, "notes": [...], ...}`. On
    training corpora the fold models make the predictions, each for its own held-out people. A missing or
    damaged set is a note; raises `DataError` if no set can be used. `write_card` adds the figures, without
    confusions, to the card.
    """
    directory = directory or artifacts_directory()
    family = load_family(name, directory)
    card, notes = family.card, list[str]()
    classifiers = _open_variants(family, directory, notes)
    tests = (face_sets if card.task == "face" else voice_sets)(family, data, notes, bar)
    sets: dict[str, dict[str, Any]] = {}
    for test in tests:
        sets |= measure_set(test, classifiers, task=card.task, notes=notes, bar=bar)
    if not sets:
        raise DataError(f"{name}: no data to measure it on in {data}: {'; '.join(notes)}")
    if write_card:
        kept = {set_name: _for_card(figures) for set_name, figures in sets.items()}
        card = card.model_copy(update={"metrics": card.metrics | kept})
        save_card(card, directory)
    result: dict[str, Any] = {
        "model": name,
        "version": card.version,
        "task": card.task,
        "sets": sets,
        "notes": notes,
        "int8_minus_float": _int8_minus_float(sets),
        "latency_ms": {
            variant: latency_ms(opened[0]) for variant, opened in classifiers.items() if opened[0] is not None
        },
        "files": {key: file.model_dump() for key, file in card.files.items()},
        "folds": [fold.name for fold in family.folds],
        "data": [source.model_dump() for source in card.data],
    }
    result["targets"] = check_targets(result)
    if card.task == "face":
        result["peers"] = compare(result, directory)
    return result


def latency_ms(classifier: TfliteClassifier, *, runs: int = LATENCY_RUNS) -> float:
    """Return the median time in ms of one inference on the golden input, on one thread of this machine."""
    features = golden_input(classifier.card)
    times = []
    for _ in range(runs):
        before = time.perf_counter()
        classifier.classify(features)
        times.append(time.perf_counter() - before)
    return round(1000 * float(np.median(times)), 3)


def _open_variants(family: Family, directory: Path, notes: list[str]) -> Classifiers:
    """Open each variant of the model and of its folds; None for a variant that a card does not list."""
    classifiers: dict[str, list[TfliteClassifier | None]] = {}
    for variant in (variant for variant in VARIANTS if variant in family.card.files):
        classifiers[variant] = [
            open_classifier(
                card.name,
                task=family.card.task,
                directory=directory / "folds" if number else directory,
                variant=variant,
            )
            if variant in card.files
            else None
            for number, card in enumerate(family.cards)
        ]
        if lacking := [f.name for f in family.folds if variant not in f.files]:
            notes.append(f"{', '.join(lacking)}: no {variant} file; the folds are not measured as {variant}")
    return classifiers


def _int8_minus_float(sets: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        name: {key: points(variants["int8"][key] - variants["float16"][key]) for key in ("accuracy", "uar")}
        for name, variants in sets.items()
        if {"int8", "float16"} <= set(variants)
    }


def _for_card(variants: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        variant: {key: value for key, value in figures.items() if key not in NOT_IN_CARDS}
        for variant, figures in variants.items()
    }
