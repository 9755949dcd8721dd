"""Turns predictions of the report's systems into figures, `NAME.result.json`, plots and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge.files import write_json
from edge.values import Float32
from models.files import writable
from models.metrics import (
    RESAMPLES,
    Labels,
    calibration_error,
    confusion_matrix,
    macro_f1,
    predicted_classes,
    uar,
)
from models.recipes.report_plots import plot_confusion, plot_history, plot_precision_recall
from models.training.folds import History

LEAST_PEOPLE = 5  # minimum for an interval over people
FIGURES = ("protocol", "n", "accuracy %", "95 %", "95 %, people", "precision %", "recall %", "the report %")


def protocol_figures(
    p: Float32,
    labels: Labels,
    *,
    names: Sequence[str],
    subjects: Sequence[str],
    sources: Sequence[str],
    counts: Sequence[int],
    histories: Sequence[History],
) -> dict[str, Any]:
    """Return the figures of one protocol for JSON; `p` (n, k) holds every test example once.

    Examples are in order of folds: `counts` are the sizes of their test parts, `histories` their training
    histories. The precision of a class that is never predicted and the recall of a class without examples are
    None. `macro` averages over the classes with examples, None counts as 0; `uar` is the macro recall.
    """
    predicted = predicted_classes(p)
    right = predicted == labels
    matrix = confusion_matrix(predicted, labels, classes=len(names))
    actual, predicted_as = matrix.sum(axis=1), matrix.sum(axis=0)
    where, people, ends = np.array(sources), np.array(subjects), np.cumsum(counts)
    return {
        **_accuracy(right),
        "interval_95": _interval_95(right, range(labels.size)),
        "interval_95_people": _interval_95(right, subjects) if len(set(subjects)) >= LEAST_PEOPLE else None,
        "uar": round(uar(predicted, labels), 4),
        "macro_f1": round(macro_f1(predicted, labels), 4),
        "ece": round(calibration_error(p, labels), 4),
        "precision": _shares(matrix.diagonal(), predicted_as, names, occurring=actual > 0),
        "recall": _shares(matrix.diagonal(), actual, names, occurring=actual > 0),
        "confusion": matrix.tolist(),
        "sets": {source: _accuracy(right[where == source]) for source in dict.fromkeys(sources)},
        "folds": [
            {"people": sorted(set(people[start:end].tolist())), **_accuracy(right[start:end])}
            for start, end in zip(ends - counts, ends, strict=True)
        ],
        "history": list(histories),
    }


def plot_protocol(p: Float32, labels: Labels, figures: Mapping[str, Any], *, stem: Path, title: str) -> None:
    """Write STEM.history.png, STEM.confusion.png and STEM.precision-recall.png."""
    names = [name for name in figures["recall"] if name != "macro"]
    subtitle = f"{title}\naccuracy {100 * figures['accuracy']:.1f} %, n = {figures['n']}"
    plot_history(figures["history"], stem.with_name(f"{stem.name}.history.png"), title)
    matrix = np.array(figures["confusion"], dtype=np.int64)
    plot_confusion(matrix, names, stem.with_name(f"{stem.name}.confusion.png"), subtitle)
    plot_precision_recall(p, labels, names, stem.with_name(f"{stem.name}.precision-recall.png"), subtitle)


def save_result(result: Mapping[str, Any], out: Path) -> Path:
    """Write `NAME.result.json` into `out`; return its path."""
    path = out / f"{result['recipe']}.result.json"
    with writable(path):
        return write_json(path, result)


def print_result(result: Mapping[str, Any]) -> None:
    """Print figures, precision, recall and confusion: tables for people, plain lines for pipes."""
    out = Console(highlight=False)
    data = result["data"]
    title = f"{result['recipe']}: {data['mix']}, {data['n']} examples, {result['epochs']} epochs"
    rows = []
    for name, figures in result["protocols"].items():
        rows.append(_figures_row(name, figures, result))
        # If folds are single people (voices), the figures of each are more informative than their mean.
        for fold in figures["folds"]:
            if len(fold["people"]) == 1:
                person = f"  tested on {fold['people'][0]}"
                rows.append((person, str(fold["n"]), _percent(fold["accuracy"]), *"-----"))
    _print_table(out, title, FIGURES, rows)
    for name, figures in result["protocols"].items():
        labels = result["labels"]
        classes = [
            (
                label,
                _percent(figures["precision"][label]),
                _percent(figures["recall"][label]),
                *map(str, figures["confusion"][k]),
            )
            for k, label in enumerate(labels)
        ]
        heads = ("true \\ predicted", "precision %", "recall %", *labels)
        _print_table(out, f"{result['recipe']}, {name}", heads, classes)


def _figures_row(name: str, figures: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[str, ...]:
    reported = result["reported"]
    reported_percent = "-"
    if reported and name.endswith(reported["protocol"]):
        reported_percent = f"{100 * reported['accuracy']:.2f}"
    return (
        name,
        str(figures["n"]),
        _percent(figures["accuracy"]),
        _interval(figures["interval_95"]),
        _interval(figures["interval_95_people"]),
        _percent(figures["precision"]["macro"]),
        _percent(figures["recall"]["macro"]),
        reported_percent,
    )


def _print_table(out: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if out.is_terminal:
        table = Table(title=title, title_justify="left")
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number else "left", no_wrap=not number)
        for row in rows:
            table.add_row(*row)
        out.print(table)
        return
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    print(f"# {title}")
    for row in (heads, *rows):
        cells = [f"{row[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def _interval_95(right: NDArray[np.bool_], units: Sequence[object]) -> list[float]:
    """Return the 95 % bootstrap interval (Efron 1979) of the accuracy, resampling whole units."""
    names, which = np.unique(np.array(units), return_inverse=True)
    hits, sizes = np.bincount(which, weights=right), np.bincount(which)
    drawn = np.random.default_rng(0).multinomial(names.size, np.full(names.size, 1 / names.size), RESAMPLES)
    low, high = np.percentile((drawn @ hits) / (drawn @ sizes), [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def _shares(
    hits: NDArray[np.int64], of: NDArray[np.int64], names: Sequence[str], *, occurring: NDArray[np.bool_]
) -> dict[str, float | None]:
    each = hits / np.maximum(of, 1)
    shares: dict[str, float | None] = {
        name: round(float(share), 4) if count else None
        for name, share, count in zip(names, each, of, strict=True)
    }
    return {**shares, "macro": round(float(each[occurring].mean()), 4)}


def _accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    return {"n": int(right.size), "accuracy": round(float(right.mean()), 4)}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _interval(pair: Sequence[float] | None) -> str:
    return f"{100 * pair[0]:.1f}-{100 * pair[1]:.1f}" if pair else "-"
