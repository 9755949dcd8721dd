"""Metrics of classifiers, computed from probabilities (n, 7) and labels (n,)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.values import LABELS, Float32

ECE_BINS = 15
RESAMPLES = 2000
FEWEST_PEOPLE = 5  # for an interval over people: with fewer it would be too narrow
Labels = NDArray[np.int64]
Interval = list[float]  # low, high


def predicted_classes(p: Float32) -> Labels:
    """Return the most probable class (n,); -1 for a row of zeros, which marks a missed face."""
    return np.where(p.any(axis=1), p.argmax(axis=1), -1)


def confusion_matrix(predicted: Labels, labels: Labels, *, classes: int = len(LABELS)) -> NDArray[np.int64]:
    """Return counts (k, k): rows are true classes, columns predicted ones; missed examples do not count."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    found = predicted >= 0
    np.add.at(matrix, (labels[found], predicted[found]), 1)
    return matrix


def uar(predicted: Labels, labels: Labels) -> float:
    """Return the unweighted average recall over the classes in `labels`."""
    return float(np.mean([np.mean(predicted[labels == k] == k) for k in np.unique(labels)]))


def macro_f1(predicted: Labels, labels: Labels) -> float:
    """Return the F1 averaged over the classes in `labels`."""
    scores = []
    for k in np.unique(labels):
        hits = np.count_nonzero((predicted == k) & (labels == k))
        scores.append(2 * hits / (np.count_nonzero(predicted == k) + np.count_nonzero(labels == k)))
    return float(np.mean(scores))


def calibration_error(p: Float32, labels: Labels, *, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error (Naeini et al. 2015): |accuracy - confidence| over equal bins."""
    filled = _confidence_bins(p, labels, bins)
    return sum(n / labels.size * abs(accuracy - confidence) for n, confidence, accuracy in filled)


def reliability(p: Float32, labels: Labels, *, bins: int = ECE_BINS) -> list[dict[str, Any]]:
    """Return n, mean confidence and accuracy of each non-empty one of `bins` equal bins of confidence."""
    return [
        {"n": n, "confidence": round(confidence, 4), "accuracy": round(accuracy, 4)}
        for n, confidence, accuracy in _confidence_bins(p, labels, bins)
    ]


def intervals_95(
    predicted: Labels, labels: Labels, units: Sequence[object], *, seed: int = 0
) -> tuple[Interval, Interval]:
    """Return 95 % percentile bootstrap intervals (Efron 1979) of accuracy and UAR; deterministic.

    Examples with the same element of `units` (n,) are resampled together, such as those of one person.
    """
    _, unit = np.unique(np.asarray(units), return_inverse=True)
    counts = np.zeros((unit.max() + 1, 2, len(LABELS)), dtype=np.int64)  # hits, examples of each class
    np.add.at(counts[:, 0], (unit, labels), predicted == labels)
    np.add.at(counts[:, 1], (unit, labels), 1)
    # Units with the same counts are interchangeable: draw how often each kind occurs.
    kinds, times = np.unique(counts.reshape(len(counts), -1), axis=0, return_counts=True)  # (k, 2 * 7)
    drawn = np.random.default_rng(seed).multinomial(times.sum(), times / times.sum(), RESAMPLES) @ kinds
    hits, examples = drawn[:, : len(LABELS)], drawn[:, len(LABELS) :]
    recall = np.divide(hits, examples, out=np.zeros(hits.shape), where=examples > 0)
    average = recall.sum(axis=1) / np.count_nonzero(examples, axis=1)
    return _percentiles(hits.sum(axis=1) / examples.sum(axis=1)), _percentiles(average)


def measure(
    p: Float32, labels: Labels, *, people: Sequence[str] = (), units: Sequence[int] = ()
) -> dict[str, Any]:
    """Return all figures of one set for JSON, with intervals over examples and over `people` (n,) if given.

    Examples with the same element of `units` (n,) are versions of one image or clip, so not independent.
    `recall` and `precision` are per class, None if undefined. `reliability` has n, confidence and accuracy of
    each non-empty bin of the calibration error.
    """
    predicted = predicted_classes(p)
    accuracy, average = intervals_95(predicted, labels, units or range(labels.size))
    figures: dict[str, Any] = {
        "n": int(labels.size),
        "accuracy": round(float(np.mean(predicted == labels)), 4),
        "uar": round(uar(predicted, labels), 4),
        "macro_f1": round(macro_f1(predicted, labels), 4),
        "ece": round(calibration_error(p, labels), 4),
        "interval_95": accuracy,
        "uar_interval_95": average,
    }
    if len(set(people)) >= FEWEST_PEOPLE:
        accuracy, average = intervals_95(predicted, labels, people)
        figures |= {"interval_95_people": accuracy, "uar_interval_95_people": average}
    matrix = confusion_matrix(predicted, labels)
    occurring = np.bincount(labels, minlength=len(LABELS))
    return figures | {
        "recall": _shares(matrix.diagonal(), occurring),
        "precision": _shares(matrix.diagonal(), matrix.sum(axis=0)),
        "confusion": matrix.tolist(),
        "reliability": reliability(p, labels),
    }


def figures_of_parts(p: Float32, labels: Labels, parts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return n, accuracy and UAR of each part, such as a speaker or a fold; `parts` (n,) are their names."""
    predicted, names = predicted_classes(p), np.array(parts)
    figures = {}
    for name in dict.fromkeys(parts):
        inside = names == name
        figures[name] = {
            "n": int(np.count_nonzero(inside)),
            "accuracy": round(float(np.mean(predicted[inside] == labels[inside])), 4),
            "uar": round(uar(predicted[inside], labels[inside]), 4),
        }
    return figures


def mean_of_parts(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return mean and sample standard deviation (0 for one part) of the parts' accuracy and UAR."""
    means: dict[str, float] = {}
    for key in ("accuracy", "uar"):
        values = [part[key] for part in parts.values()]
        means[key] = round(float(np.mean(values)), 4)
        means[f"{key}_sd"] = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else 0.0
    return means


def fit_temperature(p: Float32, labels: Labels, people: Sequence[str] | None = None) -> float:
    """Return the temperature 0.25..16 with the highest likelihood of `labels` (Guo et al. 2017).

    With `people` (n,) every person has the same weight, regardless of the number of examples.
    """
    logits = np.log(np.maximum(p, 1 / 512))  # the floor of `edge.inference.card.soften`
    grid = np.exp(np.linspace(np.log(0.25), np.log(16), 241))
    weights = None
    if people is not None:
        count = Counter(people)
        weights = [1 / count[person] for person in people]
    losses = []
    for temperature in grid:
        z = logits / temperature
        log_sum = np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)) + z.max(axis=1)
        losses.append(float(np.average(log_sum - z[np.arange(labels.size), labels], weights=weights)))
    return round(float(grid[int(np.argmin(losses))]), 3)


def _confidence_bins(p: Float32, labels: Labels, bins: int) -> list[tuple[int, float, float]]:
    confidence, right = p.max(axis=1), predicted_classes(p) == labels
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    inside = [which == b for b in np.unique(which)]
    return [(int(i.sum()), float(np.mean(confidence[i])), float(np.mean(right[i]))) for i in inside]


def _percentiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def _shares(hits: NDArray[np.int64], of: NDArray[np.int64]) -> dict[str, float | None]:
    return {
        label: round(float(hit / count), 4) if count else None
        for label, hit, count in zip(LABELS, hits, of, strict=True)
    }
