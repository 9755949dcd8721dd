"""Tables of the figures of the eye model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from models.evaluation.evaluate import VARIANTS
from models.evaluation.figures.clip_predictions import cells_of
from models.evaluation.measures import Table
from models.evaluation.show import interval, percent

SETS = (
    "data set", "variant", "n", "people", "accuracy %", "people 95 %", "unsure %", "where sure %",
    "hidden found %",
)  # fmt: skip


def tables_of(sets: Mapping[str, Any], faces: Mapping[str, Any], clips: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the figures of sets, faces and clips as tables."""
    rows = (
        (
            name,
            variant,
            str(found["n"]),
            str(found["people"]),
            percent(found[variant]["accuracy"]),
            interval(found[variant]["interval_95_people"]),
            percent(found[variant]["unsure"]),
            percent(found[variant]["accuracy_where_sure"]),
            percent(found["hidden_found"]) if variant == "int8" else "-",
        )
        for name, found in sets.items()
        for variant in VARIANTS
        if variant in found
    )
    yield Table("held-out people", SETS, tuple(rows))
    parts = (
        (name, part, str(f["n"]), percent(f["accuracy"]), interval(f["interval_95_people"]))
        for name, found in sets.items()
        for part, f in found["parts"].items()
    )
    heads = ("data set", "part", "n", "accuracy %", "people 95 %")
    yield Table("glasses, light, sensor (int8)", heads, tuple(parts))
    yield Table(
        "faces with open eyes, through the landmarks",
        ("data set", "n", "closed %", "unsure %"),
        tuple((name, *cells_of(f)) for name, f in faces.items()),
    )
    yield Table(
        "clips, frame by frame",
        ("file", "n", "closed %", "unsure %", "times shut", "longest ms"),
        tuple((name, *cells_of(f), str(f["runs"]), str(f["longest_ms"])) for name, f in clips.items()),
    )
