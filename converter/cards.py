"""Finds, updates and drafts the card of a converted file, and finds the files that the card lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.jobs import KINDS
from edge.errors import ModelError
from edge.inference.backends import load_model
from edge.inference.card import Card, Source, Tensor, golden_input, load_card
from edge.inference.classifier import VARIANTS
from models.cards import draft_card, file_entry, save_card


def card_name(target: Path) -> str:
    """Return the name of the card of `NAME.int8.tflite`."""
    return target.name.split(".", 1)[0]


def compiled_path(source: Path) -> Path:
    """Return the output of `edgetpu_compiler` for NAME.tflite: NAME_edgetpu.tflite in the same directory."""
    return source.with_name(f"{source.stem}_edgetpu.tflite")


def find_card(target: Path, source: Path) -> Card | None:
    """Return the card in the directory of `target`, else in that of the Keras file; None without either."""
    for directory in (target.parent, source.parent):
        if (directory / f"{card_name(target)}.json").exists():
            card = load_card(card_name(target), directory=directory)
            # A card that is copied to a new directory lists only the files that are in this directory.
            here = {kind: file for kind, file in card.files.items() if (target.parent / file.file).is_file()}
            return card.model_copy(update={"files": here})
    return None


def card_of_file(target: Path) -> tuple[Card, str]:
    """Return the card that lists `target`, and the variant of `target`; raise `ModelError` without one."""
    if not target.is_file():
        raise ModelError(f"{target}: no such model file; `emotion-convert convert` makes one")
    card = load_card(card_name(target), directory=target.parent)
    variant = next((kind for kind, file in card.files.items() if file.file == target.name), None)
    if variant is None:
        raise ModelError(f"{target}: the card {card.name}.json lists no such file; convert the model again")
    return card, variant


def variants_beside(target: Path, card: Card | None) -> dict[str, Path]:
    """Return the existing variants of the model of `target`, from its card, without a card by file name."""
    if card is None:
        files = {kind: target.with_name(f"{card_name(target)}.{kind}.tflite") for kind in KINDS}
        files["edgetpu"] = compiled_path(target)
    else:
        files = {kind: target.parent / file.file for kind, file in card.files.items()}
    return {kind: path for kind, path in files.items() if path.is_file()}


def variant_for(backend: str, variant: str, files: dict[str, Path]) -> str:
    """Return the variant that a backend runs: floats on a GPU, the compiled file on an Edge TPU.

    The GPU path of LiteRT 2.3 computes int8 1x1 convolutions with strides wrongly: the probabilities of
    face-cnn are up to 0.45 off.
    """
    return next((kind for kind in VARIANTS.get(backend, ()) if kind in files), variant)


def update_card(card: Card, target: Path, kind: str, *, keep_figures: bool = False) -> Path:
    """Enter a converted file into its card: hash, size, scales and golden output; return the card's path.

    The figures of this variant belong to the previous file and are removed. `keep_figures` keeps them, for
    a file whose probabilities have not changed.
    """
    model = load_model(target)
    p = model.run(golden_input(card))[0]
    golden = card.golden.model_copy(
        update={"output": {**card.golden.output, kind: [round(float(value), 6) for value in p[0]]}}
    )
    metrics = {
        name: {variant: figures for variant, figures in variants.items() if keep_figures or variant != kind}
        for name, variants in card.metrics.items()
    }
    update: dict[str, Any] = {
        "files": {**card.files, kind: file_entry(target)},
        "golden": golden,
        "metrics": {name: variants for name, variants in metrics.items() if variants},
    }
    if kind == "int8":
        keys = ("input", "output", "embedding")
        for key, info in zip(keys, (*model.inputs, *model.outputs), strict=False):
            found: dict[str, Any] = {
                "dtype": info.dtype.name,
                "scale": info.scale,
                "zero_point": info.zero_point,
            }
            known = getattr(card, key)
            update[key] = known.model_copy(update=found) if known else Tensor(shape=info.shape, **found)
    return save_card(card.model_copy(update=update), target.parent)


def draft_card_like(known: Card, target: Path) -> Card:
    """Return a card for `target`, a converted model with the inputs, features and labels of `known`.

    The temperature is 1 and the card has no figures. Raises `ModelError` when the tensors of `target` have
    other shapes than those of `known`.
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
        data=[Source(name="not stated", use="trained elsewhere", licence="not stated")],
    )
