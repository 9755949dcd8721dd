"""The figures by which models are judged; every one is computed from probabilities (n, 7) and labels (n,)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.values import LABELS, Float32

ECE_BINS = 15
RESAMPLES = 2000
Labels = NDArray[np.int64]


def predictions(p: Float32) -> Labels:
    """Return the most probable class (n,); -1 where a row is all zero, which is how a missed face is told."""
    return np.where(p.any(axis=1), p.argmax(axis=1), -1)


def confusion_matrix(predicted: Labels, labels: Labels, *, classes: int = len(LABELS)) -> NDArray[np.int64]:
    """Count (k, k): rows are true classes, columns predicted ones; missed examples are in no column."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    found = predicted >= 0
    np.add.at(matrix, (labels[found], predicted[found]), 1)
    return matrix


def uar(predicted: Labels, labels: Labels) -> float:
    """Return the unweighted average recall over the classes that occur in `labels`."""
    return float(np.mean([np.mean(predicted[labels == k] == k) for k in np.unique(labels)]))


def macro_f1(predicted: Labels, labels: Labels) -> float:
    """Return the F1 averaged over the classes that occur in `labels`."""
    scores = []
    for k in np.unique(labels):
        hits = np.count_nonzero((predicted == k) & (labels == k))
        scores.append(2 * hits / (np.count_nonzero(predicted == k) + np.count_nonzero(labels == k)))
    return float(np.mean(scores))


def calibration_error(p: Float32, labels: Labels, *, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error (Naeini et al. 2015): |accuracy - confidence| over equal bins."""
    confidence, right = p.max(axis=1), predictions(p) == labels
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    error = 0.0
    for b in np.unique(which):
        inside = which == b
        error += np.mean(inside) * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    return float(error)


def interval_95(right: NDArray[np.bool_], *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the accuracy (Efron 1979), the same at every call."""
    hits = np.random.default_rng(seed).binomial(right.size, float(np.mean(right)), RESAMPLES)
    low, high = np.percentile(hits / right.size, [2.5, 97.5])
    return float(low), float(high)


def measure(p: Float32, labels: Labels) -> dict[str, Any]:
    """Return n, accuracy, UAR, macro-F1, ECE, the accuracy's 95 % interval and the confusion, for JSON."""
    predicted = predictions(p)
    right = predicted == labels
    low, high = interval_95(right)
    return {
        "n": int(labels.size),
        "accuracy": round(float(np.mean(right)), 4),
        "uar": round(uar(predicted, labels), 4),
        "macro_f1": round(macro_f1(predicted, labels), 4),
        "ece": round(calibration_error(p, labels), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "confusion": confusion_matrix(predicted, labels).tolist(),
    }


def fit_temperature(p: Float32, labels: Labels) -> float:
    """Return the temperature 0.25..16 that gives `labels` the highest likelihood (Guo et al. 2017)."""
    logits = np.log(np.maximum(p, 1 / 512))  # the floor of `edge.card.soften`
    grid = np.exp(np.linspace(np.log(0.25), np.log(16), 241))
    losses = []
    for temperature in grid:
        z = logits / temperature
        log_sum = np.log(np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)) + z.max(axis=1)
        losses.append(float(np.mean(log_sum - z[np.arange(labels.size), labels])))
    return round(float(grid[int(np.argmin(losses))]), 3)
