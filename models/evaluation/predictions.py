"""Runs the model files on every example of a held-out set, clean and corrupted, and computes figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.inference.classifier import TfliteClassifier
from edge.values import LABELS, Float32
from models.data.corruption import CLEAN, JITTER
from models.evaluation.held_out_sets import HeldOutSet
from models.metrics import Labels, figures_of_parts, mean_of_parts, measure
from models.run import Bar

# The figure in which the loss by corruption is reported; the classes of voices are very unbalanced.
LOSS_OF = {"face": "accuracy", "voice": "uar"}
# The classifiers of each variant: the model itself, then its folds; None for a missing file.
Classifiers = Mapping[str, Sequence[TfliteClassifier | None]]


def measure_set(
    test: HeldOutSet, by_variant: Classifiers, *, task: str, notes: list[str], bar: Bar
) -> dict[str, dict[str, Any]]:
    """Measure one set: clean in every variant and with each labelling, corrupted in int8."""
    complete = [
        variant
        for variant, classifiers in by_variant.items()
        if all(classifiers[k] is not None for k in np.unique(test.model_numbers))
    ]
    p_of, errors = _predict(test, CLEAN, {variant: by_variant[variant] for variant in complete}, bar=bar)
    read = np.array([i not in errors for i in range(test.labels.size)])
    if errors:
        first = next(iter(errors.values()))
        notes.append(f"{test.name}: {len(errors)} of {read.size} clips cannot be read (first {first})")
    if not read.any():
        return {}
    people = tuple(person for person, good in zip(test.people, read, strict=True) if good)
    labels = test.labels[read]
    sets: dict[str, dict[str, Any]] = {test.name: {}}
    for variant, p in p_of.items():
        figures = measure(p[read], labels, people=people if any(people) else ())
        sets[test.name][variant] = figures | _parts(test, p, read, task=task)
        for name, other in test.relabelled.items():
            keep = read & (other >= 0)
            sets.setdefault(name, {})[variant] = measure(p[keep], other[keep])
    if "int8" in p_of:
        clean = sets[test.name]["int8"]
        for kind, (p, shown) in _predict_corrupted(test, by_variant["int8"], read, bar=bar).items():
            sets[f"{test.name}-{kind}"] = {"int8": _corrupted(p, labels, shown, clean, LOSS_OF[task])}
    return sets


def _parts(test: HeldOutSet, p: Float32, read: NDArray[np.bool_], *, task: str) -> dict[str, Any]:
    """Return figures of each speaker and fold, and their means, if the set has such groups."""
    parts: dict[str, Any] = {}
    if task == "voice":
        people = [person for person, good in zip(test.people, read, strict=True) if good]
        parts["groups"] = figures_of_parts(p[read], test.labels[read], people)
        parts["mean_of_groups"] = mean_of_parts(parts["groups"])
    if test.has_folds:
        # In a fold with a single class an average recall is meaningless.
        classes = {
            k: np.unique(test.labels[read & (test.model_numbers == k)]).size
            for k in np.unique(test.model_numbers)
        }
        whole = read & np.isin(test.model_numbers, [k for k, count in classes.items() if count > 1])
        if whole.any():
            names = [f"fold{k - 1}" for k in test.model_numbers[whole]]
            parts["folds"] = dict(sorted(figures_of_parts(p[whole], test.labels[whole], names).items()))
            parts["mean_of_folds"] = mean_of_parts(parts["folds"])
    return parts


def _predict_corrupted(
    test: HeldOutSet, classifiers: Sequence[TfliteClassifier | None], read: NDArray[np.bool_], *, bar: Bar
) -> dict[str, tuple[Float32, tuple[str, ...]]]:
    """Return predictions for each corruption, and its kinds: all box errors together are one corruption."""
    found: dict[str, Float32] = {}
    for kind in (kind for kind in test.views if kind != CLEAN):
        p_of, _ = _predict(test, kind, {"int8": classifiers}, bar=bar, only=read)
        found[kind] = p_of["int8"][read]
    others = {kind: (p, ()) for kind, p in found.items() if kind not in JITTER}
    if boxes := tuple(kind for kind in found if kind in JITTER):
        return {"crop-jitter": (np.concatenate([found[kind] for kind in boxes]), boxes), **others}
    return dict(others)


def _corrupted(
    p: Float32, labels: Labels, kinds: tuple[str, ...], clean: dict[str, Any], loss_of: str
) -> dict[str, Any]:
    """Return the figures of a corrupted set; for several kinds in a row, in total and of each."""
    repeats = max(1, len(kinds))
    units = [i for _ in range(repeats) for i in range(labels.size)]
    figures = measure(p, np.tile(labels, repeats), units=units)
    figures["loss_points"] = points(clean[loss_of] - figures[loss_of])
    if kinds:
        names = [kind for kind in kinds for _ in range(labels.size)]
        parts = figures_of_parts(p, np.tile(labels, repeats), names)
        for part in parts.values():
            part["loss_points"] = points(clean[loss_of] - part[loss_of])
        worst = max(parts, key=lambda kind: float(parts[kind]["loss_points"]))
        figures |= {"kinds": parts, "worst": {"kind": worst, "loss_points": parts[worst]["loss_points"]}}
    return figures


def _predict(
    test: HeldOutSet, kind: str, by_variant: Classifiers, *, bar: Bar, only: NDArray[np.bool_] | None = None
) -> tuple[dict[str, Float32], dict[int, str]]:
    """Read each example once and run the right model of every variant; return p (n, 7) and errors."""
    count = test.labels.size
    view = test.views[kind]
    p_of = {variant: np.zeros((count, len(LABELS)), dtype=np.float32) for variant in by_variant}
    errors: dict[int, str] = {}
    with bar(f"{test.name} {kind}") as progress:
        for i in range(count) if only is None else np.flatnonzero(only).tolist():
            try:
                features = view(i)
            except MediaError as error:
                errors[i] = str(error)
                features = None
            for variant, p in p_of.items():
                classifier = by_variant[variant][int(test.model_numbers[i])]
                if features is not None and classifier is not None:
                    p[i] = classifier.classify(features)
            progress(i + 1, count)
    return p_of, errors


def points(difference: float) -> float:
    """Return a difference of two shares in percentage points."""
    return round(100 * difference, 2)
