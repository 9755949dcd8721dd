"""Plots training history, confusion matrix and precision-recall curves as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from edge.values import Float32
from models.files import replaced

DPI = 120
MARKED_EPOCHS = 30  # with more, markers would hide the line
# Okabe and Ito's palette, distinguishable for colour-blind people.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C00", "#666666")


def plot_history(runs: Sequence[Sequence[Mapping[str, float]]], path: Path, title: str = "") -> Path:
    """Plot loss and scores over the epochs of one run or of several folds; return `path`.

    Every entry of a run holds `epoch` and numbers. Keys that contain "loss" are in the left panel, others in
    the right one. With several runs the thick line is the mean.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    keys = [key for key in runs[0][0] if key != "epoch"]
    parts = ([key for key in keys if "loss" in key], [key for key in keys if "loss" not in key])
    for axes, chosen, what in zip(panels, parts, ("loss", "accuracy"), strict=True):
        for key, colour in zip(chosen, COLOURS, strict=False):
            for run in runs if len(runs) > 1 else ():
                axes.plot(*_curve(run, key), color=colour, alpha=0.3, linewidth=0.8)
            shared = min(map(len, runs))
            marker = "." if shared <= MARKED_EPOCHS else ""
            epochs, _ = _curve(runs[0][:shared], key)
            mean = np.mean([_curve(run[:shared], key)[1] for run in runs], axis=0)
            axes.plot(epochs, mean, color=colour, linewidth=2, label=_legend(key), marker=marker)
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        if chosen:
            axes.legend()
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1)
    several = f" (thick: mean of {len(runs)} folds)" if len(runs) > 1 else ""
    figure.suptitle(title + several)
    return _save(figure, path)


def plot_confusion(matrix: NDArray[np.int64], labels: Sequence[str], path: Path, title: str = "") -> Path:
    """Plot counts (k, k), rows true, columns predicted, shaded by the share of the row; return `path`."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.9 + 0.72 * len(labels)
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        dark = share[row, column] > 0.55
        percent = f"{100 * share[row, column]:.0f}" if share[row, column] >= 0.005 else "<1"
        text = f"{count}\n{percent} %" if count else "0"
        axes.text(
            column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "#303030"
        )
    ticks = range(len(labels))
    axes.set_xticks(ticks, labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, labels)
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.85)
    figure.suptitle(title)
    return _save(figure, path)


def plot_precision_recall(
    p: Float32, labels: NDArray[np.int64], names: Sequence[str], path: Path, title: str = ""
) -> Path:
    """Plot precision over recall of each class for `p` (n, k) and labels (n,); return `path`.

    The legend has the average precision. Classes without an example are left out.
    """
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for k, name in enumerate(names):
        if not np.any(labels == k):
            continue
        recall, precision = precision_recall_curve(p[:, k], labels == k)
        average = float(np.sum(np.diff(recall, prepend=0.0) * precision))
        line = f"{name}: {average:.2f} (n = {np.count_nonzero(labels == k)})"
        style = "-" if k < len(COLOURS) else "--"
        # A step function without interpolation: its area is the average precision.
        axes.step(
            np.concatenate([[0.0], recall]),
            np.concatenate([precision[:1], precision]),
            where="pre",
            color=COLOURS[k % len(COLOURS)],
            linestyle=style,
            linewidth=1.8,
            label=line,
        )
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend(title="average precision", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.suptitle(title)
    return _save(figure, path)


def precision_recall_curve(score: Float32, positive: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Return increasing recall (m,) and precision (m,) for every distinct threshold on `score` (n,)."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    # A threshold cannot separate equal scores: count them together.
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    return hits[last] / positive.sum(), hits[last] / (last + 1)


def _curve(run: Sequence[Mapping[str, float]], key: str) -> tuple[list[float], list[float]]:
    return [entry["epoch"] for entry in run], [entry[key] for entry in run]


def _legend(key: str) -> str:
    return {
        "loss": "training",
        "accuracy": "training",
        "val_loss": "held out",
        "val_accuracy": "held out",
    }.get(key, key.replace("_", " "))


def _save(figure: Figure, path: Path) -> Path:
    with replaced(path) as part:
        figure.savefig(part, dpi=DPI, format="png")
    return path
