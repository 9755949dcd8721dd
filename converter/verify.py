"""Checks a converted file against its card, and measures how far quantization moved its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.card import Card, check_golden, golden_input, load_card, open_classifier
from edge.errors import EdgeError, ModelError
from edge.runtime import Model, load_model
from edge.values import Float32
from models.cards import file_entry, made_input, save_card

MADE_INPUTS = 64
REFERENCES = ("float32", "float16")


def card_name(target: Path) -> str:
    """Return the name of the card of `NAME.int8.tflite`."""
    return target.name.split(".", 1)[0]


def find_card(target: Path, source: Path) -> Card | None:
    """Return the card beside `target`, else the one beside the Keras file; None where there is neither."""
    for directory in (target.parent, source.parent):
        if (directory / f"{card_name(target)}.json").exists():
            card = load_card(card_name(target), directory=directory)
            # Files that stay behind in another directory are not this card's any more.
            here = {kind: file for kind, file in card.files.items() if (target.parent / file.file).is_file()}
            return card.model_copy(update={"files": here})
    return None


def update_card(card: Card, target: Path, kind: str) -> Path:
    """Put a converted file into the card beside it: hash, size, scales and golden output.

    Figures of the variant are taken out, since they were another file's.
    """
    model = load_model(target)
    (p,) = model.run(golden_input(card))
    golden = card.golden.model_copy(
        update={"output": {**card.golden.output, kind: [round(float(value), 6) for value in p[0]]}}
    )
    metrics = {
        name: {variant: figures for variant, figures in variants.items() if variant != kind}
        for name, variants in card.metrics.items()
    }
    update: dict[str, Any] = {
        "files": {**card.files, kind: file_entry(target)},
        "golden": golden,
        "metrics": {name: variants for name, variants in metrics.items() if variants},
    }
    if kind == "int8":
        for key, info in (("input", model.inputs[0]), ("output", model.outputs[0])):
            update[key] = getattr(card, key).model_copy(
                update={"dtype": info.dtype.name, "scale": info.scale, "zero_point": info.zero_point}
            )
    return save_card(card.model_copy(update=update), target.parent)


def verify(target: Path) -> dict[str, Any]:
    """Check card, hash, tensors and golden vector of `target`; compare it with a float variant beside it.

    Returns `{"file", "model", "variant", "sha256", "bytes", "golden_difference", "tolerance", "reference",
    "compared", "max_difference", "mean_difference", "agreement"}`; the last five are null where no float
    variant lies beside it. Raises `ModelError` for whatever is wrong.
    """
    if not target.is_file():
        raise ModelError(f"{target}: no such model file; `emotion-convert convert` makes one")
    card = load_card(card_name(target), directory=target.parent)
    variant = next((kind for kind, file in card.files.items() if file.file == target.name), None)
    if variant is None:
        raise ModelError(f"{target}: the card {card.name}.json lists no such file; convert the model again")
    open_classifier(card.name, task=card.task, directory=target.parent, variant=variant)
    model = load_model(target)
    result: dict[str, Any] = {
        "file": str(target),
        "model": card.name,
        "variant": variant,
        "sha256": card.files[variant].sha256,
        "bytes": card.files[variant].bytes,
        "golden_difference": round(check_golden(card, model, variant), 6),
        "tolerance": card.golden.tolerance,
        "reference": None,
        "compared": None,
        "max_difference": None,
        "mean_difference": None,
        "agreement": None,
    }
    for reference in REFERENCES:
        path = target.parent / card.files[reference].file if reference in card.files else None
        if reference != variant and path is not None and path.is_file():
            result["reference"] = reference
            result.update(_compare(card, model, load_model(path)))
            break
    return result


def _compare(card: Card, model: Model, reference: Model) -> dict[str, Any]:
    """Run both on inputs made for the purpose; their probabilities should be the same."""
    inputs = [made_input(card.input.shape, card.input.range, seed=seed) for seed in range(MADE_INPUTS)]
    ours, theirs = _answers(model, inputs), _answers(reference, inputs)
    difference = np.abs(ours - theirs)
    return {
        "compared": MADE_INPUTS,
        "max_difference": round(float(difference.max()), 6),
        "mean_difference": round(float(difference.mean()), 6),
        "agreement": round(float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1))), 4),
    }


def _answers(model: Model, inputs: list[Float32]) -> Float32:
    answers = np.stack([model.run(values)[0][0] for values in inputs])
    if not np.all(np.isfinite(answers)):
        raise EdgeError(f"{model.backend}: an answer is not a number; convert the model again")
    return answers
