"""Judges a benchmark by what the daemon is to cost at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SpeedTarget:
    """One measure by its dotted name in the result, and what it may be at most, or must be at least."""

    name: str
    measure: str
    limit: float
    is_floor: bool = False

    def judge(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the target with its `value`, its `ratio` to the limit, and whether it was `met`.

        Below 1 a ratio is better than asked for, also for a floor, where it is limit by value. All three are
        None where nothing was measured.
        """
        value: Any = result
        for key in self.measure.split("."):
            value = value[key]
        if value is None:
            return {**asdict(self), "value": None, "ratio": None, "met": None}
        ratio = self.limit / value if self.is_floor else value / self.limit
        return {**asdict(self), "value": value, "ratio": round(ratio, 2), "met": ratio <= 1}


TARGETS = (
    SpeedTarget("one face, speaking, page open: percent of a core", "daemon.page_open_cpu_percent", 25.0),
    SpeedTarget("and memory, MB", "daemon.rss_mb", 220.0),
    SpeedTarget("30 faces: pictures a second on one core", "faces.30.fps_on_one_core", 8.0, is_floor=True),
    SpeedTarget("nobody there: percent of a core", "daemon.idle_cpu_percent", 5.0),
    SpeedTarget("restart to first prediction, s", "daemon.first_prediction_s", 2.0),
)


def judge(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every target with what the result says of it."""
    return [target.judge(result) for target in TARGETS]
