"""Keeps the last benchmark of this device and compares the next one with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.config import state_directory
from edge.files import write_json

log = logging.getLogger(__name__)

# Keys of the result to compare; less is better in each.
MEASURES = {"p50_ms", "p95_ms", "mean_ms", "real_time_factor", "ms_per_window", "first_prediction_s"} | {
    "cpu_share_of_core", "page_open_cpu_percent", "idle_cpu_percent", "rss_mb", "event_latency_p95_ms"
}  # fmt: skip


def history_path() -> Path:
    """Return the file of the last run, in the state directory."""
    return state_directory() / "bench.json"


def compare(result: Mapping[str, Any], last: Mapping[str, Any]) -> dict[str, float]:
    """Return new / old by dotted name for each measure of both runs: 2 means twice as slow."""
    before = dict(measures(last))
    return {
        name: round(value / before[name], 2)
        for name, value in measures(result)
        if value > 0 and before.get(name, 0) > 0
    }


def measures(part: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Yield each measure with its dotted name, such as `stages.detect.p50_ms`."""
    for key, value in part.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from measures(value, f"{name}.")
        elif key in MEASURES and isinstance(value, int | float):
            yield name, float(value)


def with_history(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the result with `compared` to the last run (None without one), and save it for the next run."""
    last = _load(path)
    compared = None
    if last is not None:
        compared = {"time": str(last.get("time", "")), "ratios": compare(result, last)}
    _save(path, result)
    return {**result, "compared": compared}


def _load(path: Path) -> dict[str, Any] | None:
    try:
        last = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: the last benchmark cannot be read (%s); this one replaces it", path, error)
        return None
    return last if isinstance(last, dict) else None


def _save(path: Path, result: Mapping[str, Any]) -> None:
    try:
        write_json(path, result)
    except OSError as error:
        log.warning("%s: not kept for the next run (%s); set XDG_STATE_HOME", path, error.strerror)
