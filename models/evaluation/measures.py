"""The measures beyond the emotion of single faces and voices, one function each.

A measure returns its result as figures for programs and as tables for people.
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
    """Result of a measure: `figures` with stable names, `targets` are rows of `Target.compare`.

    `cards` holds, by model, set and variant, the figures for the card of each measured model.
    """

    figures: Mapping[str, Any]
    tables: Sequence[Table]
    targets: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    cards: Mapping[str, Mapping[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)


# Takes the directories of data sets and artifacts, and a progress bar; raises `DataError` for missing data.
Measure = Callable[[Path, Path, Bar], Measured]

# Dotted names, so that a measure's imports are loaded only when it runs.
MEASURES: dict[str, str] = {
    "video": "models.evaluation.figures.video:measure_video",
    "eye-state": "models.evaluation.figures.eyes:measure_eyes",
    "mouth-state": "models.evaluation.figures.mouth:measure_mouths",
    "fatigue": "models.evaluation.figures.fatigue:measure_fatigue",
    "fusion": "models.evaluation.figures.fusion:measure_fusion",
    "speaking": "models.evaluation.figures.active_speaker:measure_speaking",
}


# The measure of each task whose measure has another name.
MEASURED_BY = {"video": "video", "visual": "video", "multimodal": "fusion"}


def run_measure(
    name: str, data: Path, *, directory: Path, bar: Bar, write_cards: bool = False
) -> dict[str, Any]:
    """Run one of `MEASURES`; return the result as `--json` prints it.

    `write_cards` adds the figures to the cards of the measured models.
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
    """Return the figures of `sets` in the form of a card: by set and variant, with `n`."""
    return {
        name: {variant: {"n": found["n"], **found[variant]} for variant in VARIANTS if variant in found}
        for name, found in sets.items()
    }
