"""Writes one self-contained HTML page of an evaluation: figures, charts, targets, peers, licences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from html import escape
from pathlib import Path
from typing import Any

from edge.files import write_text
from edge.values import LABELS
from models.evaluation import show
from models.evaluation.page.charts import Mark, confusion_chart, interval_chart, loss_chart, reliability_chart
from models.evaluation.page.markup import details, document, figure, raw_table, section, table, table_row
from models.evaluation.targets import ACCURACY_PERCENT, BABBLE_LOSS, JITTER_LOSS
from models.files import writable


def write_page(
    path: Path, results: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]] = ()
) -> Path:
    """Write the page of evaluations and measures atomically; return its path."""
    with writable(path):
        return write_text(path, render_page(results, measured))


def render_page(results: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]] = ()) -> str:
    """Return the page as HTML, which loads no external resource."""
    titles = [*(result["model"] for result in results), *(result["measure"] for result in measured)]
    names = ", ".join(titles)
    links = "".join(f'<a href="#{_id(title)}">{escape(title)}</a>' for title in titles)
    intro = (
        f"<h1>Evaluation</h1><nav>{links}</nav><p>Figures of the int8 TFLite files unless another "
        "variant is named, on held-out people. Intervals are 95 % bootstrap intervals; "
        f"chance is {100 / len(LABELS):.0f} %.</p>"
    )
    parts = [*map(_model, results), *map(_measure, measured)]
    return document(f"Evaluation of {names}", intro, "\n".join(parts))


def _model(result: dict[str, Any]) -> str:
    sections = [_head(result), _targets(result), _overview(result), _corrupted(result), _parts(result)]
    sections += [_errors(name, variants["int8"]) for name, variants in _clean_sets(result)]
    sections += [_peers(result), _origin(result), _notes(result)]
    return f'<article id="{_id(result["model"])}">{"".join(sections)}</article>'


def _measure(result: dict[str, Any]) -> str:
    tables = [section(part["title"], table(part["heads"], part["rows"])) for part in result["tables"]]
    sections = [f"<h2>{escape(result['measure'])}</h2>", _targets(result), *tables, _notes(result)]
    return f'<article id="{_id(result["measure"])}">{"".join(sections)}</article>'


def _head(result: dict[str, Any]) -> str:
    int8 = result["files"].get("int8")
    facts = [("task", result["task"]), ("version", result["version"])]
    if int8:
        facts += [("int8 file", f"{int8['bytes'] / 1000:.0f} kB"), ("sha256", int8["sha256"][:12])]
    facts += [
        (f"median inference, {variant}", f"{ms:.2f} ms") for variant, ms in result["latency_ms"].items()
    ]
    if result["folds"]:
        facts.append(("fold models", str(len(result["folds"]))))
    cells = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(value)}</dd></div>" for key, value in facts)
    return f'<h2>{escape(result["model"])}</h2><dl class="facts">{cells}</dl>'


def _targets(result: dict[str, Any]) -> str:
    if not result["targets"]:
        return ""
    met = sum(row["met"] is True for row in result["targets"])
    unknown = sum(row["met"] is None for row in result["targets"])
    summary = f"{met} of {len(result['targets'])} met" + (f", {unknown} not measured" if unknown else "")
    rows = []
    for row in result["targets"]:
        *cells, verdict = map(escape, show.target_cells(row))
        kind = {True: "met", False: "missed", None: "unknown"}[row["met"]]
        rows.append(table_row(show.TARGETS, (*cells, f'<span class="chip {kind}">{verdict}</span>')))
    return section(f"Targets: {summary}", raw_table(show.TARGETS, rows))


def _overview(result: dict[str, Any]) -> str:
    wanted = {name: percent / 100 for name, percent in ACCURACY_PERCENT.items()}
    marks = [
        Mark(
            name,
            figures["accuracy"],
            figures["interval_95"],
            figures["uar"],
            figures["uar_interval_95"],
            wanted.get(name),
        )
        for name, figures in ((name, variants["int8"]) for name, variants in _clean_sets(result))
    ]
    legend = (
        '<p class="legend"><span class="dot main"></span>accuracy <span class="dot second"></span>UAR '
        '<span class="tick"></span>wanted accuracy <span class="dash"></span>chance</p>'
    )
    chart = interval_chart(marks) + legend if marks else ""
    sets = result["sets"]
    rows = [
        (name, variant, *show.main_cells(figures), *intervals[2:])
        for (name, variant, figures), intervals in zip(
            ((n, v, f) for n, variants in sets.items() for v, f in variants.items()),
            show.interval_rows(sets),
            strict=True,
        )
    ]
    tables = details("All figures", table((*show.FIGURES, *show.INTERVALS[2:]), rows))
    difference = list(show.quantization_rows(result))
    if difference:
        tables += details("Difference of int8 to float16", table(show.QUANTIZATION, difference))
    return section("Accuracy on held-out people", chart + tables)


def _corrupted(result: dict[str, Any]) -> str:
    sets = result["sets"]
    charts = []
    for name, variants in sets.items():
        figures = variants.get("int8", {})
        if "kinds" in figures:
            losses = [(kind, part["loss_points"]) for kind, part in figures["kinds"].items()]
            losses.append(("mean", figures["loss_points"]))
            charts.append(figure(name, loss_chart(losses, limit=JITTER_LOSS)))
    for title, pattern, limit in (
        ("bad webcam", "*-bad-webcam", None),
        ("babble 10 dB below the speech", "*-babble-10db", BABBLE_LOSS),
        ("telephone", "*-telephone", None),
    ):
        losses = [
            (name, variants["int8"]["loss_points"])
            for name, variants in sets.items()
            if fnmatchcase(name, pattern) and "int8" in variants
        ]
        if losses:
            charts.append(figure(title, loss_chart(losses, limit=limit)))
    if not charts:
        return ""
    what = "accuracy" if result["task"] == "face" else "UAR"
    numbers = details("As a table", table(show.CORRUPTED, list(show.corrupted_rows(sets))))
    title = f"Loss of {what} in points with corrupted input"
    return section(title, f'<div class="grid">{"".join(charts)}</div>{numbers}')


def _parts(result: dict[str, Any]) -> str:
    rows = list(show.part_rows(result["sets"]))
    return section("Speakers and folds", table(show.PARTS, rows)) if rows else ""


def _errors(name: str, figures: dict[str, Any]) -> str:
    """Return the errors on one set: confusion, reliability, recall and precision of each class."""
    rows = [
        (label, show.percent(figures["recall"][label]), show.percent(figures["precision"][label]))
        for label in LABELS
    ]
    charts = (
        figure("confusion, rows are true", confusion_chart(figures["confusion"]))
        + figure(f"reliability, ECE {figures['ece']:.3f}", reliability_chart(figures["reliability"]))
        + figure("per class", table(("class", "recall %", "precision %"), rows))
    )
    accuracy, average = show.percent(figures["accuracy"]), show.percent(figures["uar"])
    head = f"{name}: {accuracy} % of {figures['n']}, UAR {average} %"
    return f'<details class="set"><summary>{escape(head)}</summary><div class="grid">{charts}</div></details>'


def _peers(result: dict[str, Any]) -> str:
    if "peers" not in result:
        return ""
    rows = [
        table_row(show.PEERS, tuple(map(escape, show.peer_cells(row))), kind=row["how"])
        for row in result["peers"]["rows"]
    ]
    method = f'<p class="small">{escape(result["peers"]["method"])}</p>'
    return section("Comparison with other recognisers", raw_table(show.PEERS, rows) + method)


def _origin(result: dict[str, Any]) -> str:
    data = [(source["name"], source["use"], source["licence"]) for source in result["data"]]
    files = [
        (variant, file["file"], f"{file['bytes']:,}", file["sha256"])
        for variant, file in result["files"].items()
    ]
    return section(
        "Data, licences and files",
        table(("data set", "use", "terms"), data) + table(("variant", "file", "bytes", "SHA-256"), files),
    )


def _notes(result: dict[str, Any]) -> str:
    if not result["notes"]:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in result["notes"])
    return section("Notes", f"<ul>{items}</ul>")


def _clean_sets(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, variants in result["sets"].items():
        if "int8" in variants and "loss_points" not in variants["int8"]:
            yield name, variants


def _id(title: str) -> str:
    return escape(title, quote=True)
