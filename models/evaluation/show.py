"""Prints results of `emotion-models evaluate` and `list`: tables on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from edge.values import LABELS

FIGURES = ("data set", "variant", "n", "accuracy %", "95 %", "UAR %", "macro-F1 %", "ECE")
INTERVALS = ("data set", "variant", "accuracy, people 95 %", "UAR 95 %", "UAR, people 95 %")
PARTS = ("data set", "part", "n", "accuracy %", "UAR %")
CORRUPTED = ("data set", "corruption", "accuracy %", "UAR %", "loss, points")
QUANTIZATION = ("data set", "accuracy, points", "UAR, points")
TARGETS = ("target", "worst on", "measured", "wanted", "verdict")
PEERS = ("recogniser", "how", "PrivateTest %", "CK+48 six %", "JAFFE %", "ms a face", "weights kB", "note")
WORDS = (
    "data set", "part", "corruption", "target", "worst on", "verdict", "recogniser", "how", "note",
    "operation", "runs on", "why", "status", "layer", "backend", "file", "reason", "what",
    "value", "compared",
)  # fmt: skip
Row = tuple[str, ...]


def show_figures(title: str, sets: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the main figures of every set and variant of a card or an evaluation."""
    rows = [
        (name, variant, *main_cells(figures))
        for name, variants in sets.items()
        for variant, figures in variants.items()
    ]
    show_table(title, FIGURES, rows)


def show_evaluation(result: dict[str, Any]) -> None:
    """Print all figures of one model, its targets and its peers."""
    sets, int8 = result["sets"], result["files"].get("int8")
    time_ms = ", ".join(f"{variant} {ms:.2f} ms" for variant, ms in result["latency_ms"].items())
    size = f"int8 {int8['bytes'] / 1000:.0f} kB, sha256 {int8['sha256'][:12]}; " if int8 else ""
    show_figures(
        f"{result['model']} {result['version']} ({result['task']}; {size}median inference time {time_ms})",
        sets,
    )
    tables = (
        ("intervals over examples and over people", INTERVALS, list(interval_rows(sets))),
        ("speakers and folds (int8)", PARTS, list(part_rows(sets))),
        ("corrupted input (int8)", CORRUPTED, list(corrupted_rows(sets))),
        ("int8 minus float16", QUANTIZATION, list(quantization_rows(result))),
        ("recall % per class (int8)", ("data set", *LABELS), list(class_rows(sets, "recall"))),
        ("precision % per class (int8)", ("data set", *LABELS), list(class_rows(sets, "precision"))),
        ("targets", TARGETS, [target_cells(row) for row in result["targets"]]),
        (
            "comparison with other recognisers",
            PEERS,
            [peer_cells(row) for row in result.get("peers", {}).get("rows", [])],
        ),
    )
    for title, headings, rows in tables:
        if rows:
            show_table(title, headings, rows)
    if "peers" in result:
        Console(highlight=False).print(result["peers"]["method"], markup=False)


def show_measure(result: dict[str, Any]) -> None:
    """Print the tables and targets of one of `measures.MEASURES`."""
    for part in result["tables"]:
        show_table(f"{result['measure']}: {part['title']}", part["heads"], list(map(tuple, part["rows"])))
    if result["targets"]:
        rows = [target_cells(row) for row in result["targets"]]
        show_table(f"{result['measure']}: targets", TARGETS, rows)


def show_table(title: str, headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table; in a pipe its title, a line of headings and one line a row."""
    out = Console(highlight=False)
    if not out.is_terminal:
        print(title)
        print("# " + ", ".join(headings))
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(len(headings))]
        for row in rows:
            cells = zip(headings, row, widths, strict=True)
            line = "  ".join(f"{cell:{'<' if head in WORDS else '>'}{width}}" for head, cell, width in cells)
            print("  " + line.rstrip())
        return
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in WORDS else "right")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def interval_rows(sets: dict[str, Any]) -> Iterator[Row]:
    """Yield the intervals that are not in the main table."""
    keys = ("interval_95_people", "uar_interval_95", "uar_interval_95_people")
    for name, variants in sets.items():
        for variant, figures in variants.items():
            yield (name, variant, *(interval(figures.get(key)) for key in keys))


def part_rows(sets: dict[str, Any]) -> Iterator[Row]:
    """Yield the figures of every speaker and fold, and their means with standard deviations."""
    for name, variants in sets.items():
        figures = variants.get("int8", {})
        for parts, mean in (("groups", "mean_of_groups"), ("folds", "mean_of_folds")):
            for part, values in figures.get(parts, {}).items():
                yield name, part, str(values["n"]), percent(values["accuracy"]), percent(values["uar"])
            if len(figures.get(parts, {})) > 1:
                word = "mean of speakers" if parts == "groups" else "mean of folds"
                values = figures[mean]
                cells = (
                    f"{percent(values[key])} (sd {percent(values[f'{key}_sd'])})"
                    for key in ("accuracy", "uar")
                )
                yield (name, word, "", *cells)


def corrupted_rows(sets: dict[str, Any]) -> Iterator[Row]:
    """Yield every corrupted set, and each kind of box error."""
    for name, variants in sets.items():
        figures = variants.get("int8", {})
        for kind, part in figures.get("kinds", {}).items():
            yield name, kind, percent(part["accuracy"]), percent(part["uar"]), f"{part['loss_points']:.1f}"
        if "loss_points" in figures:
            what = "mean of these" if "kinds" in figures else "all"
            loss = f"{figures['loss_points']:.1f}"
            yield name, what, percent(figures["accuracy"]), percent(figures["uar"]), loss


def quantization_rows(result: dict[str, Any]) -> Iterator[Row]:
    """Yield int8 minus float16 of every set with both variants."""
    for name, difference in result["int8_minus_float"].items():
        yield name, f"{difference['accuracy']:+.2f}", f"{difference['uar']:+.2f}"


def class_rows(sets: dict[str, Any], key: str) -> Iterator[Row]:
    """Yield recall or precision of each class on every uncorrupted set."""
    for name, variants in sets.items():
        figures = variants.get("int8", {})
        if key in figures and "loss_points" not in figures:
            yield (name, *(percent(figures[key][label]) for label in LABELS))


def target_cells(row: dict[str, Any]) -> Row:
    """Return one target as cells; the last cell is the verdict."""
    unit = f" {row['unit']}" if row["unit"] else ""
    if row["met"] is None:
        return row["target"], "", "", f"{row['wanted']}{unit}", "not measured"
    points = " points" if row["unit"] == "%" else unit
    verdict = "met" if row["met"] else f"missed by {row['missed_by']:g}{points}"
    return row["target"], row["where"], f"{row['measured']:g}{unit}", f"{row['wanted']}{unit}", verdict


def peer_cells(row: dict[str, Any]) -> Row:
    """Return one recogniser as cells, a dash for an unknown value."""
    keys = ("fer2013_private", "ckplus48_six", "jaffe", "ms", "weights_kb")
    numbers = ("-" if row[key] is None else f"{row[key]:g}" for key in keys)
    return (row["name"], row["how"], *numbers, row["note"])


def percent(value: float | None) -> str:
    """Return a share in per cent with one decimal, a dash for None."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(bounds: Sequence[float] | None) -> str:
    """Return two shares as a range in per cent, a dash for None."""
    return "-" if bounds is None else f"{100 * bounds[0]:.1f}-{100 * bounds[1]:.1f}"


def main_cells(figures: dict[str, Any]) -> Row:
    """Return the main figures of one set and variant as cells, a dash for a missing one."""
    ece = figures.get("ece")
    return (
        str(figures["n"]),
        percent(figures["accuracy"]),
        interval(figures.get("interval_95") or figures.get("interval_95_people")),
        percent(figures.get("uar")),
        percent(figures.get("macro_f1")),
        "-" if ece is None else f"{ece:.3f}",
    )
