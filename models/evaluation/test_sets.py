"""Says on whom a model may be measured: held-out examples, clean and spoilt, each with the file to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.inference.card import Card
from edge.values import LABELS, Float32
from models.data.datasets import DataError, Progress
from models.evaluation.metrics import Labels

Bar = Callable[[str], AbstractContextManager[Progress]]
# Reads example i as its model takes it: None where no face is found; raises `MediaError` for a broken file.
View = Callable[[int], Float32 | None]
CLEAN = "clean"


@dataclass(frozen=True, slots=True, eq=False)
class TestSet:
    """Examples with their labels (n,), the person of each ("" where nobody is named), and ways to read them.

    `askers` (n,) index the cards: 0 is the model itself, k its fold model k - 1. `views` begin with
    `CLEAN`. `relabelled` holds other labels (n,) for the same examples, -1 where there is none.
    """

    __test__ = False  # not a class of tests, whatever its name says

    name: str
    labels: Labels
    people: tuple[str, ...]
    askers: Labels
    views: Mapping[str, View]
    relabelled: Mapping[str, Labels]

    @property
    def has_folds(self) -> bool:
        """Tell whether fold models answer, each for its own people."""
        return bool(self.askers.size and self.askers.min() > 0)


@dataclass(frozen=True, slots=True)
class Family:
    """A model with its fold models, which were trained as it was but without their held-out people."""

    card: Card
    folds: tuple[Card, ...] = ()

    @property
    def cards(self) -> tuple[Card, ...]:
        """The model first, then its folds: what `TestSet.askers` index."""
        return (self.card, *self.folds)

    def was_trained_on(self, *words: str) -> bool:
        """Tell whether the card names a data set with one of `words` in its name."""
        names = [source.name.lower() for source in self.card.data]
        return any(word in name for word in words for name in names)

    def held_out_of(self, corpus: str) -> frozenset[str]:
        """Return the people of a corpus whom the model itself never saw."""
        return frozenset(person for person in self.card.held_out if person.startswith(f"{corpus}:"))

    def fold_of_people(self, corpus: str, notes: list[str]) -> dict[str, int]:
        """Return the card (1 = first fold) that never saw each person; the first fold where two did not."""
        owner: dict[str, int] = {}
        for number, fold in enumerate(self.folds, start=1):
            for person in fold.held_out:
                if person.startswith(f"{corpus}:") and owner.setdefault(person, number) != number:
                    first = self.folds[owner[person] - 1].name
                    notes.append(f"{fold.name}: {person} is measured by {first}, which holds it out too")
        return owner


def choose_by_fold(
    family: Family, corpus: str, people: Sequence[str], labels: Labels, *, notes: list[str]
) -> Labels:
    """Return which card may be asked about each example (n,), -1 where none; `notes` say who is missing."""
    owner = family.fold_of_people(corpus, notes)
    askers = np.array([owner.get(person, -1) for person in people], dtype=np.int64)
    for number, fold in enumerate(family.folds, start=1):
        wanted = sorted(person for person in owner if owner[person] == number)
        classes = np.unique(labels[askers == number])
        if wanted and not classes.size:
            notes.append(f"{fold.name}: no example of its held-out people ({_names(wanted)}) is there")
        elif classes.size == 1:
            only = LABELS[int(classes[0])]
            notes.append(f"{fold.name}: {corpus} has only {only} of its people; it is in no mean of folds")
    note_missing(corpus, set(owner), set(people), notes=notes)
    if strangers := sorted(set(people) - set(owner)):
        notes.append(
            f"{corpus}: {len(strangers)} of {len(set(people))} people are held out by no fold model and not "
            f"measured ({_names(strangers)})"
        )
    return askers


def note_missing(corpus: str, wanted: Set[str], there: Set[str], *, notes: list[str]) -> None:
    """Say how many of the wanted people have no example, and name them."""
    if absent := sorted(wanted - there):
        notes.append(
            f"{corpus}: {len(absent)} of {len(wanted)} held-out people are missing ({_names(absent)})"
        )


def only_noted(notes: list[str], sets: Iterator[TestSet]) -> Iterator[TestSet]:
    """Pass sets on until one of them cannot be read, which becomes a note."""
    try:
        yield from sets
    except DataError as error:
        notes.append(str(error))
    except OSError as error:
        notes.append(f"{error.filename}: cannot be read ({error.strerror})")


def find_folds(name: str, directory: Path) -> list[Path]:
    """Return the cards of the fold models of `name` in order, those that are there."""
    return sorted((directory / "folds").glob(f"{name}-fold[0-9]*.json"))


def _names(people: Sequence[str]) -> str:
    shown = ", ".join(people[:4])
    return shown if len(people) <= 4 else f"{shown}, ..."
