"""Checks a converted file against its card, and measures how much quantization changes its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converter.cards import card_of_file, variant_for, variants_beside
from converter.comparison import FLOATS, difference, predict, unavailable
from edge.errors import DeviceError, ModelError
from edge.inference.backends import BACKENDS, load_model
from edge.inference.card import Card, check_golden, golden_input
from edge.inference.classifier import open_classifier
from edge.values import Float32
from models.cards import made_input

MADE_INPUTS = 64
BACKEND_INPUTS = 8  # accelerators are slow to start and may be slow to run


def verify(target: Path) -> dict[str, Any]:
    """Check card, hash, tensors, and golden vector on each backend; compare with the float variant.

    Returns `{"file", "model", "variant", "sha256", "bytes", "golden_difference", "tolerance", "reference",
    "compared", "max_difference", "mean_difference", "agreement", "backends"}`. The keys from `reference` to
    `agreement` are null when the directory has no float variant. An unavailable backend is listed with its
    reason. Raises `ModelError` for a file that fails a check, and for a backend whose outputs differ from
    the card or from the CPU by more than the card allows.
    """
    card, variant = card_of_file(target)
    # A file that is compiled for the Edge TPU runs on nothing else.
    first = "edgetpu" if variant == "edgetpu" else "cpu"
    open_classifier(card.name, task=card.task, directory=target.parent, variant=variant, backend=first)
    model = load_model(target, backend=first)
    inputs = [made_input(card.input.shape, card.input.range, seed=seed) for seed in range(MADE_INPUTS)]
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
    outputs = predict(model, inputs)
    reference = next((kind for kind in FLOATS if kind in files and kind != variant), None)
    if reference is not None:
        exact = predict(load_model(files[reference]), inputs)
        result |= {"reference": reference, "compared": MADE_INPUTS, **difference(outputs, exact)}
    backends = BACKENDS if first == "cpu" else (first,)
    result["backends"] = [_check_backend(card, files, variant, backend, inputs) for backend in backends]
    return result


def _check_backend(
    card: Card, files: dict[str, Path], variant: str, backend: str, inputs: list[Float32]
) -> dict[str, Any]:
    """Run the golden vector and some made inputs on one backend, or return why it is unavailable."""
    used = variant_for(backend, variant, files)
    some = inputs[:BACKEND_INPUTS]
    try:
        model = load_model(files[used], backend=backend)
        outputs = predict(model, [golden_input(card), *some])
    except DeviceError as error:
        return unavailable(backend, error)
    golden = float(np.abs(outputs[0] - np.asarray(card.golden.output[used], np.float32)).max())
    on_cpu = load_model(files[variant if used == "edgetpu" else used]) if variant != "edgetpu" else model
    largest = difference(outputs[1:], predict(on_cpu, some))["max_difference"]
    for what, value in (("the golden vector", golden), ("a made input", largest)):
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
        "max_difference": largest,
    }
