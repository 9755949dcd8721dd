"""Prints the results of the commands as tables, or as plain lines in a pipe; writes the report as a page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from edge.files import write_text
from models.evaluation.page.charts import loss_chart
from models.evaluation.page.markup import details, document, figure, section, table
from models.evaluation.show import Row, percent, show_table
from models.files import writable

OPERATIONS = ("operation", "count")
LAYERS = ("layer", "operation", "SQNR dB", "added here dB", "noise %")
FILES = ("file", "kB", "accuracy %", "UAR %", "labelled examples")
DIFFERENCE = ("compared", "largest difference", "mean difference", "agreement %")
VERIFIED = ("what", "value")
BACKENDS = ("backend", "file", "golden difference", "largest difference", "reason")
SPEEDS = ("form", "ms", "converted in s")
RATIOS = ("what", "times", "wanted", "")
LATENCY = ("backend", "file", "ms", "reason")
WORST = 20  # layers in the terminal and in the chart; page and JSON have all
NOISY_PERCENT = 10.0  # 20 dB
CHART_NAME = 28  # characters

Table = tuple[str, tuple[str, ...], list[Row]]


def show_verified(result: dict[str, Any]) -> None:
    """Print the result of `converter.verify.verify`."""
    rows = [
        (key.replace("_", " "), "-" if value is None else str(value))
        for key, value in result.items()
        if key != "backends"
    ]
    show_table(f"{result['model']} {result['variant']}: passed", VERIFIED, rows)
    backends = [
        (
            entry["backend"],
            entry["file"] if entry["present"] else "",
            f"{entry['golden_difference']:.4f}" if entry["present"] else "-",
            f"{entry['max_difference']:.4f}" if entry["present"] else "-",
            "" if entry["present"] else f"{entry['reason']}: {entry['message']}",
        )
        for entry in result["backends"]
    ]
    show_table("backends", BACKENDS, backends)


def show_bench(result: dict[str, Any]) -> None:
    """Print the result of `converter.bench.run_bench`."""
    times = [
        (form, f"{ms:.4f}", f"{result['convert_s'][form]:.0f}") for form, ms in sorted(result["ms"].items())
    ]
    show_table("time of one run on one thread", SPEEDS, times)
    rows = [
        (
            entry["what"],
            f"{entry['ratio']:.1f}",
            f"{entry['wanted']:.1f}",
            "met" if entry["met"] else "missed",
        )
        for entry in result["ratios"]
    ]
    show_table("speed ratios in this run", RATIOS, rows)


def show_report(result: dict[str, Any]) -> None:
    """Print the result of `converter.report.report`, with the noisiest layers only."""
    for title, headings, rows in _tables(result, most=WORST):
        show_table(title, headings, rows)


def write_report(path: Path, result: dict[str, Any]) -> Path:
    """Write the report as one page that loads nothing, atomically; return its path."""
    tables = [
        section(title, details("All", table(headings, rows)) if len(rows) > WORST else table(headings, rows))
        for title, headings, rows in _tables(result, most=None)
    ]
    if result["layers"]:
        tables.insert(0, section("Layers with the most quantization noise", _chart(result["layers"])))
    name = Path(result["file"]).name
    intro = f"<h1>{escape(name)}</h1><p>{escape(_summary(result))}</p>"
    with writable(path):
        return write_text(path, document(f"Report of {name}", intro, f"<article>{''.join(tables)}</article>"))


def _tables(result: dict[str, Any], *, most: int | None) -> list[Table]:
    tables: list[Table] = [
        (_summary(result), FILES, _file_rows(result)),
        (
            "speed: time of one run on one thread",
            LATENCY,
            [_latency_row(entry) for entry in result["latency"]],
        ),
    ]
    if result["difference"]:
        difference = result["difference"]
        row = (
            f"{result['inputs']['n']} ({result['inputs']['source']})",
            f"{difference['max_difference']:.4f}",
            f"{difference['mean_difference']:.4f}",
            percent(difference["agreement"]),
        )
        tables.append((f"outputs compared with {result['reference']['file']}", DIFFERENCE, [row]))
    counts: list[Row] = [(entry["operation"], str(entry["count"])) for entry in result["operations"]]
    total = sum(entry["count"] for entry in result["operations"])
    tables.append((f"{total} operations", OPERATIONS, counts))
    if result["layers"]:
        title = (
            f"{len(result['layers'])} layers compared with {result['reference']['file']}, the noisiest first"
        )
        if result["layers_unmatched"]:
            title += f"; {result['layers_unmatched']} have no counterpart there"
        tables.append((title, LAYERS, [_layer_row(entry) for entry in result["layers"][:most]]))
    return tables


def _summary(result: dict[str, Any]) -> str:
    text = f"{Path(result['file']).name}: {result['variant']}, {result['bytes'] / 1000:.0f} kB"
    if result["reference"] is None:
        return f"{text}; no float file in its directory to compare with"
    share = result["bytes"] / result["reference"]["bytes"]
    return f"{text}, {100 * share:.0f} % of {result['reference']['file']}"


def _file_rows(result: dict[str, Any]) -> list[Row]:
    labelled = result["labelled"] or {"n": None, "model": None, "reference": None}
    files = [(Path(result["file"]).name, result["bytes"], labelled["model"])]
    if result["reference"]:
        files.append((result["reference"]["file"], result["reference"]["bytes"], labelled["reference"]))
    return [
        (
            name,
            f"{size / 1000:.0f}",
            percent(figures["accuracy"] if figures else None),
            percent(figures["uar"] if figures else None),
            str(labelled["n"] or "-"),
        )
        for name, size, figures in files
    ]


def _latency_row(entry: dict[str, Any]) -> Row:
    if entry["present"]:
        return entry["backend"], entry["file"], f"{entry['ms']:.3f}", ""
    return entry["backend"], "", "-", f"{entry['reason']}: {entry['message']}"


def _layer_row(entry: dict[str, Any]) -> Row:
    added = entry["added_db"]
    return (
        entry["layer"],
        entry["operation"],
        f"{entry['sqnr_db']:.1f}",
        "-" if added is None else f"{added:+.1f}",
        f"{_noise_percent(entry):.1f}",
    )


def _chart(layers: list[dict[str, Any]]) -> str:
    bars = [(entry["layer"][-CHART_NAME:], _noise_percent(entry)) for entry in layers[:WORST]]
    caption = f"noise of the {len(bars)} noisiest layers in % of their signal; {NOISY_PERCENT:.0f} % is 20 dB"
    return figure(caption, loss_chart(bars, limit=NOISY_PERCENT, title="noise in % of the signal"))


def _noise_percent(entry: dict[str, Any]) -> float:
    """Return the noise in % of the signal, as amplitudes."""
    return float(100 * 10 ** (-entry["sqnr_db"] / 20))
