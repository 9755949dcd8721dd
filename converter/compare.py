"""Runs files on backends and tells how far their answers lie apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.quantize import KINDS
from edge.errors import DeviceError, EdgeError
from edge.inference.backends import Model
from edge.inference.card import VARIANTS, Card
from edge.values import Float32

FLOATS = ("float32", "float16")
LATENCY_RUNS = 50
LATENCY_S = 0.5  # enough of a backend on which one run takes long
WARM_UP_RUNS = 3


def card_name(target: Path) -> str:
    """Return the name of the card of `NAME.int8.tflite`."""
    return target.name.split(".", 1)[0]


def compiled_path(source: Path) -> Path:
    """Return where `edgetpu_compiler` puts NAME.tflite: NAME_edgetpu.tflite, beside it."""
    return source.with_name(f"{source.stem}_edgetpu.tflite")


def variants_beside(target: Path, card: Card | None) -> dict[str, Path]:
    """Return the files that belong together with `target`, by variant: by its card, else by their names."""
    if card is None:
        files = {kind: target.with_name(f"{card_name(target)}.{kind}.tflite") for kind in KINDS}
        files["edgetpu"] = compiled_path(target)
    else:
        files = {kind: target.parent / file.file for kind, file in card.files.items()}
    return {kind: path for kind, path in files.items() if path.is_file()}


def variant_for(backend: str, variant: str, files: dict[str, Path]) -> str:
    """Return which variant a backend runs: a GPU one in floats, the Edge TPU what is compiled for it.

    LiteRT 2.3's GPU path has an int8 1x1 convolution with strides wrong: answers of face-cnn are 0.45 off.
    """
    return next((kind for kind in VARIANTS.get(backend, ()) if kind in files), variant)


def answers(model: Model, inputs: Sequence[Float32]) -> Float32:
    """Return the first output (n, ...) for every input; raise `EdgeError` when one is not a number."""
    outputs = np.stack([model.run(values)[0][0] for values in inputs])
    if not np.all(np.isfinite(outputs)):
        raise EdgeError(f"{model.backend}: an answer is not a number; convert the model again")
    return outputs


def difference(ours: Float32, theirs: Float32) -> dict[str, float]:
    """Return how far two sets of answers lie apart, at most and in the mean, and how often classes agree."""
    apart = np.abs(ours - theirs)
    return {
        "max_difference": round(float(apart.max()), 6),
        "mean_difference": round(float(apart.mean()), 6),
        "agreement": round(float(np.mean(ours.argmax(axis=-1) == theirs.argmax(axis=-1))), 4),
    }


def latency_ms(model: Model, values: Float32) -> float:
    """Return the median time of one run on this machine, on one thread, after a warm-up."""
    for _ in range(WARM_UP_RUNS):
        model.run(values)
    times: list[float] = []
    while len(times) < LATENCY_RUNS and sum(times) < LATENCY_S:
        before = time.perf_counter()
        model.run(values)
        times.append(time.perf_counter() - before)
    return round(1000 * float(np.median(times)), 3)


def absent(backend: str, error: DeviceError) -> dict[str, Any]:
    """Return what is told of a backend that cannot be used here: the code and the sentence of its error."""
    return {"backend": backend, "present": False, "reason": error.reason, "message": str(error)}
