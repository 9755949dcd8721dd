"""A model and its fold models: which of their cards holds out which people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.inference.card import Card, artifacts_directory, load_card


@dataclass(frozen=True, slots=True)
class Family:
    """A model with its fold models, each trained in the same way without its held-out people."""

    card: Card
    folds: tuple[Card, ...] = ()

    @property
    def cards(self) -> tuple[Card, ...]:
        """The model first, then its folds; `HeldOutSet.model_numbers` are indices into this."""
        return (self.card, *self.folds)

    def was_trained_on(self, *words: str) -> bool:
        """Return whether the card lists a data set with one of `words` in its name."""
        names = [source.name.lower() for source in self.card.data]
        return any(word in name for word in words for name in names)

    def held_out_of(self, corpus: str) -> frozenset[str]:
        """Return the people of a corpus that the model itself was not trained on."""
        return frozenset(person for person in self.card.held_out if person.startswith(f"{corpus}:"))

    def fold_of_people(self, corpus: str, notes: list[str]) -> dict[str, int]:
        """Return for each person the card (1 = first fold) that holds the person out.

        If several folds hold a person out, the first one is used and a note names the other.
        """
        owner: dict[str, int] = {}
        for number, fold in enumerate(self.folds, start=1):
            for person in fold.held_out:
                if person.startswith(f"{corpus}:") and owner.setdefault(person, number) != number:
                    first = self.folds[owner[person] - 1].name
                    notes.append(f"{fold.name}: {person} is measured by {first}, which holds it out too")
        return owner


def list_models(directory: Path | None = None) -> list[Card]:
    """Return the cards in `directory`, or those of the package."""
    directory = directory or artifacts_directory()
    return [load_card(path.stem, directory=directory) for path in sorted(directory.glob("*.json"))]


def load_family(name: str, directory: Path) -> Family:
    """Read the card of `name` and of its fold models in `folds/`; raise `ModelError` for a broken one."""
    folds = (load_card(path.stem, directory=path.parent) for path in find_folds(name, directory))
    return Family(load_card(name, directory=directory), tuple(folds))


def find_folds(name: str, directory: Path) -> list[Path]:
    """Return the cards of the fold models of `name` that exist, in order."""
    return sorted((directory / "folds").glob(f"{name}-fold[0-9]*.json"))
