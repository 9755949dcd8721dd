"""Drafts the card of a user's own model from that of a model which reads the same and says the same."""

from __future__ import annotations

from pathlib import Path

from converter.compare import card_name
from edge.errors import ModelError
from edge.inference.backends import load_model
from edge.inference.card import Card, Source
from models.cards import draft_card


def draft_like(known: Card, target: Path) -> Card:
    """Return the card for `target`, a converted model with inputs and labels of `known`.

    Temperature is 1 and nothing is measured. Raises `ModelError` when the tensors are not those of `known`.
    """
    model = load_model(target)
    found = [info.shape for info in (*model.inputs, *model.outputs[:1])]
    if found != [known.input.shape, known.output.shape]:
        raise ModelError(
            f"{target}: its tensors are {found}, those of {known.name} are {known.input.shape} -> "
            f"{known.output.shape}; choose another --like, or leave it out"
        )
    return draft_card(
        card_name(target),
        task=known.task,
        shape=known.input.shape,
        value_range=known.input.range,
        features=known.input.features,
        temperature=1.0,
        data=[Source(name="not said", use="trained elsewhere", licence="not said")],
    )
