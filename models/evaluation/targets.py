"""Target figures of the shipped models; a missed target is reported and is not an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

ACCURACY_PERCENT = {
    "fer2013-private": 70,
    "fer2013-private-ferplus": 84,
    "ckplus48-six": 92,
    "jaffe-detected": 71,
    "tess-folds": 75,  # the mean of its two speakers
}
UAR_PERCENT = {"ravdess-folds": 60, "nemo-folds": 60}
JITTER_LOSS, BABBLE_LOSS = 3, 8  # points, of accuracy and of UAR
Result = dict[str, Any]
# Pairs of data set and value in the target's unit.
Values = Iterator[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for the worst of several values; `sign` is >=, <= or <."""

    name: str
    unit: str
    sign: str
    limit: float
    values: Callable[[Result], Values] = lambda _result: iter(())

    def check(self, result: Result) -> dict[str, Any]:
        """Compare the values of an evaluation with the limit, see `compare`."""
        return self.compare(list(self.values(result)))

    def compare(self, values: Sequence[tuple[str, float]]) -> dict[str, Any]:
        """Return the worst value, its data set and whether the target is met; None without values."""
        row = {"target": self.name, "unit": self.unit, "wanted": f"{self.sign} {self.limit:g}"}
        if not values:
            return row | {"measured": None, "where": None, "met": None, "missed_by": None}
        at_least = self.sign == ">="
        where, value = (min if at_least else max)(values, key=lambda value: value[1])
        worst = round(value, 3) + 0.0  # no -0
        met = {">=": worst >= self.limit, "<=": worst <= self.limit, "<": worst < self.limit}[self.sign]
        missed_by = None if met else round(abs(worst - self.limit), 3)
        return row | {"measured": worst, "where": where, "met": met, "missed_by": missed_by}


def check_targets(result: Result) -> list[dict[str, Any]]:
    """Compare an evaluation with the targets of its task, in the order of `TARGETS`."""
    return [target.check(result) for target in TARGETS[result["task"]]]


def _figure(pattern: str, *keys: str, factor: float = 1.0) -> Callable[[Result], Values]:
    """Return a function that yields a figure of the int8 file for every set that matches `pattern`."""

    def values(result: Result) -> Values:
        for name, variants in result["sets"].items():
            figure: Any = variants.get("int8")
            if figure is not None and fnmatchcase(name, pattern):
                for key in keys:
                    figure = figure[key]
                yield name, factor * figure

    return values


def _percent(pattern: str, *keys: str) -> Callable[[Result], Values]:
    return _figure(pattern, *keys, factor=100)


def _quantization(result: Result) -> Values:
    for name, difference in result["int8_minus_float"].items():
        yield name, abs(difference["accuracy"])


def _size_kb(result: Result) -> Values:
    if "int8" in result["files"]:
        yield result["files"]["int8"]["file"], result["files"]["int8"]["bytes"] / 1000


def _latency(result: Result) -> Values:
    if "int8" in result["latency_ms"]:
        yield "int8", result["latency_ms"]["int8"]


def _accuracy(name: str) -> Target:
    return Target(f"accuracy on {name}", "%", ">=", ACCURACY_PERCENT[name], _percent(name, "accuracy"))


def _uar(name: str) -> Target:
    return Target(f"UAR on {name}", "%", ">=", UAR_PERCENT[name], _percent(name, "uar"))


TARGETS: dict[str, tuple[Target, ...]] = {
    "face": (
        _accuracy("fer2013-private"),
        _accuracy("fer2013-private-ferplus"),
        _accuracy("ckplus48-six"),
        _accuracy("jaffe-detected"),
        Target("loss when the box is wrong", "points", "<", JITTER_LOSS,
               _figure("*-crop-jitter", "loss_points")),
        Target("int8 against float16", "points", "<=", 0.5, _quantization),
        Target("calibration error (ECE)", "", "<=", 0.05, _figure("fer2013-private", "ece")),
        Target("size of the int8 file", "kB", "<", 2000, _size_kb),
        Target("time a face, one core", "ms", "<", 3, _latency),
    ),
    "voice": (
        _uar("ravdess-folds"),
        Target("accuracy on tess-folds, mean of speakers", "%", ">=", ACCURACY_PERCENT["tess-folds"],
               _percent("tess-folds", "mean_of_groups", "accuracy")),
        _uar("nemo-folds"),
        Target("UAR lost in babble", "points", "<=", BABBLE_LOSS, _figure("*-babble-10db", "loss_points")),
        Target("int8 against float16", "points", "<=", 1, _quantization),
        Target("calibration error (ECE)", "", "<=", 0.06, _figure("*-folds", "ece")),
        Target("size of the int8 file", "kB", "<", 500, _size_kb),
        Target("time a window, one core", "ms", "<", 4, _latency),
    ),
}  # fmt: skip
