"""Plots need only arrays, support any number of classes, and are written atomically."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import EdgeError
from models.recipes.report_plots import (
    plot_confusion,
    plot_history,
    plot_precision_recall,
    precision_recall_curve,
)


def test_history_of_one_epoch_and_of_folds(tmp_path: Path) -> None:
    """One epoch, several folds and a run with only a score are plotted."""
    short = [{"epoch": 1, "loss": 2.0, "validation": 0.3}]
    folds = [[{"epoch": e, "loss": 1.0 / e, "accuracy": 0.5} for e in (1, 2, 3)] for _ in range(2)]
    scores = [{"epoch": 1, "uar": 0.2}, {"epoch": 2, "uar": 0.3}]
    for name, runs in (("one.png", [short]), ("folds.png", folds), ("score.png", [scores])):
        assert cv2.imread(str(plot_history(runs, tmp_path / name, "title"))) is not None


@pytest.mark.parametrize("classes", [2, 7, 11])
def test_any_number_of_classes(tmp_path: Path, classes: int) -> None:
    """Confusion and curves are plotted for 2 to 11 classes, one of them without examples."""
    random = np.random.default_rng(0)
    labels = random.integers(0, classes - 1, 40)
    p = random.random((40, classes), dtype=np.float32)
    names = [f"class {k}" for k in range(classes)]
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, p.argmax(axis=1)), 1)
    assert cv2.imread(str(plot_confusion(matrix, names, tmp_path / "c.png", "title"))) is not None
    assert cv2.imread(str(plot_precision_recall(p, labels, names, tmp_path / "p.png"))) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "p.png"]


def test_curve_counts_equal_scores_together() -> None:
    """Two distinct scores are two points, regardless of the order of equal ones."""
    score = np.array([0.9, 0.5, 0.5, 0.5], dtype=np.float32)
    recall, precision = precision_recall_curve(score, np.array([True, False, True, False]))
    assert recall.tolist() == [0.5, 1.0]
    assert precision.tolist() == [1.0, 0.5]


def test_plot_in_an_invalid_directory_is_an_error(tmp_path: Path) -> None:
    """The error names the plot whose directory cannot be created."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeError, match=r"c\.png: cannot be written"):
        plot_confusion(np.eye(2, dtype=np.int64), ("a", "b"), tmp_path / "file" / "c.png")
