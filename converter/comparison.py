"""Runs models on backends, and measures how far their outputs differ and how long one run takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.errors import DeviceError, EdgeError
from edge.inference.tensors import Model
from edge.values import Float32

FLOATS = ("float32", "float16")
LATENCY_RUNS = 50
LATENCY_S = 0.5  # stops earlier on a backend on which one run takes long
WARM_UP_RUNS = 3


def predict(model: Model, inputs: Sequence[Float32]) -> Float32:
    """Return the first output (n, ...) for every input; raise `EdgeError` when a value is not finite."""
    outputs = np.stack([model.run(values)[0][0] for values in inputs])
    if not np.all(np.isfinite(outputs)):
        raise EdgeError(f"{model.backend}: an output is not a finite number; convert the model again")
    return outputs


def difference(outputs: Float32, reference: Float32) -> dict[str, float]:
    """Return the largest and the mean absolute difference, and the share of equal most probable classes."""
    distance = np.abs(outputs - reference)
    return {
        "max_difference": round(float(distance.max()), 6),
        "mean_difference": round(float(distance.mean()), 6),
        "agreement": round(float(np.mean(outputs.argmax(axis=-1) == reference.argmax(axis=-1))), 4),
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


def unavailable(backend: str, error: DeviceError) -> dict[str, Any]:
    """Return the JSON entry of a backend that cannot be used here: the code and the text of its error."""
    return {"backend": backend, "present": False, "reason": error.reason, "message": str(error)}
