"""Held-out examples, clean and corrupted, each with the model that was not trained on its person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from edge.values import LABELS, Float32
from models.data.datasets import DataError
from models.family import Family
from models.metrics import Labels

# Returns the input for example i: None if no face is found; raises `MediaError` for a broken file.
View = Callable[[int], Float32 | None]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutSet:
    """Examples with labels (n,), people ("" if unknown) and views, the functions that read them.

    `model_numbers` (n,) index `Family.cards`: 0 is the model itself, k its fold model k - 1. `views` begin
    with `CLEAN`. `relabelled` holds alternative labels (n,) for the same examples, -1 for none.
    """

    name: str
    labels: Labels
    people: tuple[str, ...]
    model_numbers: Labels
    views: Mapping[str, View]
    relabelled: Mapping[str, Labels]

    @property
    def has_folds(self) -> bool:
        """Return whether fold models make the predictions, each for its own people."""
        return bool(self.model_numbers.size and self.model_numbers.min() > 0)


def fold_of_each(
    family: Family, corpus: str, people: Sequence[str], labels: Labels, *, notes: list[str]
) -> Labels:
    """Return the card for each example (n,), -1 for none; `notes` name missing people."""
    owner = family.fold_of_people(corpus, notes)
    model_numbers = np.array([owner.get(person, -1) for person in people], dtype=np.int64)
    for number, fold in enumerate(family.folds, start=1):
        wanted = sorted(person for person in owner if owner[person] == number)
        classes = np.unique(labels[model_numbers == number])
        if wanted and not classes.size:
            notes.append(f"{fold.name}: no example of its held-out people ({_names(wanted)}) in the data")
        elif classes.size == 1:
            only = LABELS[int(classes[0])]
            notes.append(
                f"{fold.name}: {corpus} has only {only} of its people; the mean of folds excludes it"
            )
    note_missing(corpus, set(owner), set(people), notes=notes)
    if others := sorted(set(people) - set(owner)):
        notes.append(
            f"{corpus}: {len(others)} of {len(set(people))} people are held out by no fold model and not "
            f"measured ({_names(others)})"
        )
    return model_numbers


def note_missing(corpus: str, wanted: Set[str], there: Set[str], *, notes: list[str]) -> None:
    """Add a note with number and names of the wanted people without examples."""
    if absent := sorted(wanted - there):
        notes.append(
            f"{corpus}: {len(absent)} of {len(wanted)} held-out people are missing ({_names(absent)})"
        )


def skip_unreadable(notes: list[str], sets: Iterator[HeldOutSet]) -> Iterator[HeldOutSet]:
    """Yield `sets`; an unreadable one ends them and becomes a note."""
    try:
        yield from sets
    except DataError as error:
        notes.append(str(error))
    except OSError as error:
        notes.append(f"{error.filename}: cannot be read ({error.strerror})")


def _names(people: Sequence[str]) -> str:
    shown = ", ".join(people[:4])
    return shown if len(people) <= 4 else f"{shown}, ..."
