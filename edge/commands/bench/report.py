"""Prints the results of `emotion-edge bench`, each beside its ratio to the last run."""

from __future__ import annotations

import json
from typing import Any

from edge.commands.console import print_table

MET = {True: "yes", False: "no", None: "not measured"}


def print_bench(result: dict[str, Any], *, as_json: bool) -> None:
    """Print stages, crowds of faces, models on each backend, the whole daemon, and the targets."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    ratios = result["compared"]["ratios"] if result["compared"] else {}
    _print_stages(result, ratios)
    _print_backends(result["backends"], ratios)
    _print_measures(result, ratios)
    _print_targets(result["targets"])
    if result["compared"]:
        print(f"last run: {result['compared']['time']}; x2.00 means twice as slow or as large as then")


def _print_stages(result: dict[str, Any], ratios: dict[str, float]) -> None:
    print_table(
        ("stage", "p50 ms", "p95 ms", "last run"),
        [
            (name, *_times(stage), _ratio(ratios, "stages", name, "p50_ms"))
            for name, stage in result["stages"].items()
        ],
    )
    print_table(
        ("faces", "p50 ms", "p95 ms", "frames/s on one core", "last run"),
        [
            (count, *_times(crowd), str(crowd["fps_on_one_core"]), _ratio(ratios, "faces", count, "p50_ms"))
            for count, crowd in result["faces"].items()
        ],
    )


def _print_backends(backends: dict[str, dict[str, Any]], ratios: dict[str, float]) -> None:
    print_table(
        ("backend", "model", "p50 ms", "p95 ms", "last run", "why not"),
        [
            (
                backend,
                model,
                *_times(figures),
                _ratio(ratios, "backends", backend, model, "p50_ms"),
                figures.get("detail", ""),
            )
            for backend, models in backends.items()
            for model, figures in models.items()
        ],
    )


def _print_measures(result: dict[str, Any], ratios: dict[str, float]) -> None:
    measures = [(part, name, value) for part in ("speech", "daemon") for name, value in result[part].items()]
    print_table(
        ("measure", "value", "last run"),
        [(name, _or_dash(value), _ratio(ratios, part, name)) for part, name, value in measures],
    )


def _print_targets(targets: list[dict[str, Any]]) -> None:
    print_table(
        ("target", "limit", "here", "of the limit", "met"),
        [
            (
                target["name"],
                f"{'>=' if target['is_floor'] else '<='} {target['limit']:g}",
                _or_dash(target["value"]),
                _or_dash(target["ratio"]),
                MET[target["met"]],
            )
            for target in targets
        ],
    )


def _ratio(ratios: dict[str, float], *name: str) -> str:
    """Return the ratio of a measure to the last run, such as `x1.05`."""
    ratio = ratios.get(".".join(name))
    return "-" if ratio is None else f"x{ratio:.2f}"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _times(figures: dict[str, Any]) -> tuple[str, str]:
    """Return p50 and p95, or the reason code of a backend that does not run."""
    if "reason" in figures:
        return figures["reason"], "-"
    return f"{figures['p50_ms']:.2f}", f"{figures['p95_ms']:.2f}"
