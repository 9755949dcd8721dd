"""Prints results: tables for people, plain lines for pipes, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from edge.commands.analyze import Analyzer
from edge.commands.tables import print_table
from edge.errors import EXIT_FAILURE, EXIT_OK, MediaError
from edge.sources.devices import Device


def print_lines(analyzer: Analyzer, files: Sequence[Path], *, every_s: float | None, as_json: bool) -> int:
    """Analyze file after file and print each line at once; return 1 when one could not be read."""
    code = EXIT_OK
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("analyze", total=len(files))
        for path in files:
            progress.update(task, description=path.name)
            try:
                for line in analyzer.analyze(path, every_s=every_s):
                    print(json.dumps(line) if as_json else _sentence(line), flush=True)
            except MediaError as error:
                code = EXIT_FAILURE
                if as_json:
                    print(json.dumps({"file": str(path), "error": str(error)}), flush=True)
                else:
                    print(f"emotion-edge: {error}", file=sys.stderr)
            progress.advance(task)
    return code


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show people on a terminal that long work goes on; pipes get nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def print_devices(devices: Sequence[Device], *, as_json: bool) -> None:
    """Print what is there, with the token to put into the config."""
    if as_json:
        print(json.dumps([dataclasses.asdict(device) for device in devices], indent=2))
        return
    rows = [
        (device.kind, device.name, device.token, "yes" if device.usable else "no", device.detail)
        for device in devices
    ]
    print_table(("kind", "name", "token", "usable", "detail"), rows)


def print_bench(result: dict[str, Any], *, as_json: bool) -> None:
    """Print the stages, the models on each backend, then the daemon as a whole; beside it the last run."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    ratios = (result["compared"] or {"ratios": {}})["ratios"]

    def since_last(*name: str) -> str:
        ratio = ratios.get(".".join(name))
        return "-" if ratio is None else f"x{ratio:.2f}"

    print_table(
        ("stage", "p50 ms", "p95 ms", "last run"),
        [
            (name, *_times(stage), since_last("stages", name, "p50_ms"))
            for name, stage in result["stages"].items()
        ],
    )
    print_table(
        ("faces", "p50 ms", "p95 ms", "pictures/s on one core", "last run"),
        [
            (count, *_times(crowd), str(crowd["fps_on_one_core"]), since_last("faces", count, "p50_ms"))
            for count, crowd in result["faces"].items()
        ],
    )
    print_table(
        ("backend", "model", "p50 ms", "p95 ms", "last run", "why not"),
        [
            (
                backend,
                model,
                *_times(figures),
                since_last("backends", backend, model, "p50_ms"),
                figures.get("detail", ""),
            )
            for backend, models in result["backends"].items()
            for model, figures in models.items()
        ],
    )
    rest = [(part, name, value) for part in ("speech", "daemon") for name, value in result[part].items()]
    print_table(
        ("measure", "value", "last run"),
        [(name, _or_dash(value), since_last(part, name)) for part, name, value in rest],
    )
    print_table(
        ("target", "limit", "here", "of the limit", "met"),
        [
            (
                target["name"],
                f"{'>=' if target['is_floor'] else '<='} {target['limit']:g}",
                _or_dash(target["value"]),
                _or_dash(target["ratio"]),
                {True: "yes", False: "no", None: "not measured"}[target["met"]],
            )
            for target in result["targets"]
        ],
    )
    if result["compared"]:
        print(f"last run: {result['compared']['time']}; x2.00 is twice as slow or large as then")


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _times(figures: dict[str, Any]) -> tuple[str, str]:
    """Return p50 and p95 of a model, or the reason code and nothing."""
    if "reason" in figures:
        return figures["reason"], "-"
    return f"{figures['p50_ms']:.2f}", f"{figures['p95_ms']:.2f}"


def _sentence(line: dict[str, Any]) -> str:
    fused, faces = line["fused"], len(line["faces"])
    when = f" at {line['t_s']:.1f} s" if line["kind"] == "video" else ""
    voice = "speech" if line["voice"] else "no speech"
    who = f"{faces} face{'' if faces == 1 else 's'}"
    return f"{line['file']}{when}: {fused['emotion']} {fused['confidence']:.2f} ({who}, {voice})"
