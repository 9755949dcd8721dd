"""Checks a converted file against its card, and measures how far quantization moved its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converter.compare import FLOATS, absent, answers, card_name, difference, variant_for, variants_beside
from edge.errors import DeviceError, ModelError
from edge.inference.backends import BACKENDS, load_model
from edge.inference.card import Card, Tensor, check_golden, golden_input, load_card, open_classifier
from edge.values import Float32
from models.cards import file_entry, made_input, save_card

MADE_INPUTS = 64
BACKEND_INPUTS = 8  # accelerators are slow to start and may be slow to run


def find_card(target: Path, source: Path) -> Card | None:
    """Return the card beside `target`, else the one beside the Keras file; None where there is neither."""
    for directory in (target.parent, source.parent):
        if (directory / f"{card_name(target)}.json").exists():
            card = load_card(card_name(target), directory=directory)
            # Files that stay behind in another directory are not this card's any more.
            here = {kind: file for kind, file in card.files.items() if (target.parent / file.file).is_file()}
            return card.model_copy(update={"files": here})
    return None


def card_of_file(target: Path) -> tuple[Card, str]:
    """Return the card that lists `target`, and which variant that is; raise `ModelError` without one."""
    if not target.is_file():
        raise ModelError(f"{target}: no such model file; `emotion-convert convert` makes one")
    card = load_card(card_name(target), directory=target.parent)
    variant = next((kind for kind, file in card.files.items() if file.file == target.name), None)
    if variant is None:
        raise ModelError(f"{target}: the card {card.name}.json lists no such file; convert the model again")
    return card, variant


def update_card(card: Card, target: Path, kind: str, *, keep_figures: bool = False) -> Path:
    """Put a converted file into the card beside it: hash, size, scales and golden output.

    Figures of the variant are taken out, since they were another file's, unless it says what that one said.
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


def verify(target: Path) -> dict[str, Any]:
    """Check card, hash, tensors, and golden vector on each backend; compare with a float variant beside it.

    Returns `{"file", "model", "variant", "sha256", "bytes", "golden_difference", "tolerance", "reference",
    "compared", "max_difference", "mean_difference", "agreement", "backends"}`; those from `reference` to
    `agreement` are null where no float variant lies beside it. A backend that is not here is listed with its
    reason. Raises `ModelError` for whatever is wrong, and for a backend that answers further from the card,
    or from the CPU, than the card allows.
    """
    card, variant = card_of_file(target)
    # What is compiled for an Edge TPU runs nowhere else.
    first = "edgetpu" if variant == "edgetpu" else "cpu"
    open_classifier(card.name, task=card.task, directory=target.parent, variant=variant, backend=first)
    model = load_model(target, backend=first)
    inputs = [made_input(card.input.shape, card.input.range, seed=seed) for seed in range(MADE_INPUTS)]
    ours = answers(model, inputs)
    files = variants_beside(target, card)
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
    reference = next((kind for kind in FLOATS if kind in files and kind != variant), None)
    if reference is not None:
        theirs = answers(load_model(files[reference]), inputs)
        result |= {"reference": reference, "compared": MADE_INPUTS, **difference(ours, theirs)}
    backends = BACKENDS if first == "cpu" else (first,)
    result["backends"] = [_check_backend(card, files, variant, backend, inputs) for backend in backends]
    return result


def _check_backend(
    card: Card, files: dict[str, Path], variant: str, backend: str, inputs: list[Float32]
) -> dict[str, Any]:
    """Run the golden vector and some made inputs on one backend, or tell why it is not here."""
    used = variant_for(backend, variant, files)
    some = inputs[:BACKEND_INPUTS]
    try:
        model = load_model(files[used], backend=backend)
        theirs = answers(model, [golden_input(card), *some])
    except DeviceError as error:
        return absent(backend, error)
    golden = float(np.abs(theirs[0] - np.asarray(card.golden.output[used], np.float32)).max())
    on_cpu = load_model(files[variant if used == "edgetpu" else used]) if variant != "edgetpu" else model
    apart = difference(theirs[1:], answers(on_cpu, some))["max_difference"]
    for what, value in (("the golden vector", golden), ("a made input", apart)):
        if not value <= card.golden.tolerance:
            raise ModelError(
                f"{files[used]} on {backend}: {what} differs by {value:.3f}, {card.golden.tolerance} is "
                "allowed; set inference.backend to cpu, or convert the model again"
            )
    return {
        "backend": backend,
        "present": True,
        "file": files[used].name,
        "golden_difference": round(golden, 6),
        "max_difference": apart,
    }
