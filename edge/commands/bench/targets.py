"""The speed and memory targets of the daemon, and whether a benchmark meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SpeedTarget:
    """An upper limit, or with `is_floor` a lower limit, of one measure; `measure` is its dotted name."""

    name: str
    measure: str
    limit: float
    is_floor: bool = False

    def evaluate(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the target with its `value`, its `ratio` to the limit, and whether it is `met`.

        A ratio below 1 is better than required; for a lower limit it is limit / value. All three are None
        without a measurement.
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
    SpeedTarget("one face, speaking, page open: memory, MB", "daemon.rss_mb", 220.0),
    SpeedTarget("30 faces: frames per second on one core", "faces.30.fps_on_one_core", 8.0, is_floor=True),
    SpeedTarget("empty room: percent of a core", "daemon.idle_cpu_percent", 5.0),
    SpeedTarget("restart to first prediction, s", "daemon.first_prediction_s", 2.0),
)


def evaluate_targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every target with its value, ratio and whether the result meets it."""
    return [target.evaluate(result) for target in TARGETS]
