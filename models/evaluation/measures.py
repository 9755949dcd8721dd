"""What is measured beside the emotions of single faces and voices, each by a function of its own.

A measure says what it found twice: as numbers for programs, and as tables for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from edge.inference.card import load_card
from models.cards import save_card
from models.evaluation.evaluate import VARIANTS
from models.run import Bar


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under `heads`, ready to print."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a measure found: `figures` are stable names with numbers, `targets` rows of `Target.judge`.

    `cards` has, by model, set and variant, what belongs into the card of each model that was measured.
    """

    figures: Mapping[str, Any]
    tables: Sequence[Table]
    targets: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    cards: Mapping[str, Mapping[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)


# Takes the directory of the data sets, the directory of the artifacts and what shows progress; raises
# `DataError` where what it needs is not there.
Measure = Callable[[Path, Path, Bar], Measured]

# By name, where the function lies: imported when it is asked for, since each brings its own weight.
MEASURES: dict[str, str] = {
    "video": "models.evaluation.figures.video:measure_video",
    "eye-state": "models.evaluation.figures.eyes:measure_eyes",
    "mouth-state": "models.evaluation.figures.mouth:measure_mouths",
    "fatigue": "models.evaluation.figures.fatigue:measure_fatigue",
    "fusion": "models.evaluation.figures.fusion:measure_fusion",
    "speaking": "models.evaluation.figures.active_speaker:measure_speaking",
}


# Models that no measure is named after, by task.
MEASURED_BY = {"video": "video", "visual": "video", "multimodal": "fusion"}


def run_measure(
    name: str, data: Path, *, directory: Path, bar: Bar, write_cards: bool = False
) -> dict[str, Any]:
    """Run one of `MEASURES`; return it as `--json` prints it, and as tables.

    `write_cards` puts the figures into the cards of the models that were measured.
    """
    measure: Measure = resolve_name(MEASURES[name])
    found = measure(data, directory, bar)
    for model, sets in found.cards.items() if write_cards else ():
        card = load_card(model, directory=directory)
        save_card(card.model_copy(update={"metrics": card.metrics | dict(sets)}), directory)
    return {
        "measure": name,
        "figures": dict(found.figures),
        "tables": [
            {"title": table.title, "heads": list(table.heads), "rows": [list(row) for row in table.rows]}
            for table in found.tables
        ],
        "targets": [dict(row) for row in found.targets],
        "notes": list(found.notes),
    }


def metrics_of(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what a card holds of sets that have `n` and, by variant, their figures."""
    return {
        name: {variant: {"n": found["n"], **found[variant]} for variant in VARIANTS if variant in found}
        for name, found in sets.items()
    }
