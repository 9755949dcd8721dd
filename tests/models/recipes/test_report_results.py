"""Figures of the report's systems follow from the confusion matrix."""

from __future__ import annotations

import numpy as np

from models.recipes.report_results import protocol_figures


def test_figures_follow_from_the_confusion() -> None:
    """A worked example; a class that is never predicted has no precision; two people are too few."""
    p = np.eye(3, dtype=np.float32)[[0, 0, 1, 0]]
    figures = protocol_figures(
        p,
        np.array([0, 0, 1, 2]),
        names=("a", "b", "c"),
        subjects=("x", "x", "y", "y"),
        sources=("s", "s", "s", "t"),
        counts=(2, 2),
        histories=[[], []],
    )
    assert figures["precision"] == {"a": 0.6667, "b": 1.0, "c": None, "macro": 0.5556}
    assert figures["recall"] == {"a": 1.0, "b": 1.0, "c": 0.0, "macro": 0.6667}
    assert figures["interval_95_people"] is None
    assert figures["sets"] == {"s": {"n": 3, "accuracy": 1.0}, "t": {"n": 1, "accuracy": 0.0}}
    assert [fold["accuracy"] for fold in figures["folds"]] == [1.0, 0.5]
