"""Compares the speed of the forms of a network (`emotion-convert bench`), as ratios measured in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.jobs import Job, Stage, convert
from edge.inference.backends import load_model
from edge.inference.tensors import Model
from edge.values import LABELS, Float32
from edge.voice.features import COEFFICIENTS, frame_count
from models.recipes.report_networks import report_face, report_voice

WINDOW_S, HOP_S, WINDOWS_HZ = 3.0, 0.01, 10
ROUNDS, TURN_S = 15, 0.02
CALIBRATE = 32
SHIPPED, CONVERT_S = ("lstm-int8", "cnn-int8"), 60.0  # limit for the conversion of one of these

Report = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One comparison of two forms: `fast` is to be at least `wanted` times faster than `slow`."""

    what: str
    slow: str
    fast: str
    wanted: float


RATIOS = (
    Ratio("unrolled int8 LSTM against the fused int8 LSTM", "lstm-fused-int8", "lstm-int8", 5.0),
    Ratio("unrolled int8 LSTM against the float loop", "lstm-loop-float32", "lstm-int8", 1.5),
    Ratio("int8 CNN against the float CNN", "cnn-float32", "cnn-int8", 2.5),
    Ratio("one second of speech: single steps against windows", "window-float32", "step-float32", 10.0),
)
# Runs per second of speech, for the forms that the last ratio compares; 1 for all others.
TIMES = {"window-float32": WINDOWS_HZ, "step-float32": round(1 / HOP_S)}


def run_bench(*, report: Report) -> dict[str, Any]:
    """Build the report's networks with random weights, convert them to every form, and time them in turns.

    Returns `{"version", "ms": {form: median}, "ratios": [{"what", "ratio", "wanted", "met"}],
    "convert_s": {form: seconds}}`. Turns and medians make the ratios reproducible on a busy machine.
    """
    with tempfile.TemporaryDirectory(prefix="emotion-edge-") as scratch:
        jobs = _jobs(Path(scratch), report)
        seconds = {}
        for number, (form, job) in enumerate(jobs.items()):
            report(Stage(f"converting {form}", 0.1 + 0.7 * number / len(jobs)))
            start = time.monotonic()
            convert(job, report=lambda _stage: None)
            seconds[form] = round(time.monotonic() - start, 1)
        report(Stage("timing", 0.8))
        ms = _median_times_ms({form: load_model(job.target) for form, job in jobs.items()})
    ratios = []
    for ratio in RATIOS:
        slow, fast = (ms[form] * TIMES.get(form, 1) for form in (ratio.slow, ratio.fast))
        ratios.append(
            {
                "what": ratio.what,
                "ratio": round(slow / fast, 2),
                "wanted": ratio.wanted,
                "met": slow / fast >= ratio.wanted,
            }
        )
    slowest = max(seconds[form] for form in SHIPPED)
    ratios.append(
        {
            "what": f"converting a shipped network ({slowest:.0f} s) against {CONVERT_S:.0f} s",
            "ratio": round(CONVERT_S / slowest, 2),
            "wanted": 1.0,
            "met": slowest <= CONVERT_S,
        }
    )
    return {
        "version": 1,
        "ms": {form: round(value, 4) for form, value in ms.items()},
        "ratios": ratios,
        "convert_s": seconds,
    }


def _jobs(scratch: Path, report: Report) -> dict[str, Job]:
    """Save the networks and their calibration inputs; return the conversion jobs by form."""
    import keras

    report(Stage("building the networks", 0.0))
    random = np.random.default_rng(1)
    frames = frame_count(WINDOW_S)
    networks = {
        "lstm": (report_voice(activation="tanh"), (40, 1)),
        "cnn": (report_face(), (48, 48, 1)),
        "frames": (_frame_voice(frames), (frames, COEFFICIENTS)),
    }
    for name, (network, shape) in networks.items():
        network.save(scratch / f"{name}.keras")
        np.save(scratch / f"{name}.npy", random.random((CALIBRATE, *shape), dtype=np.float32))
    # The export of Keras keeps the loop: this is the file that one gets without this package.
    spec = [keras.InputSpec(shape=(1, 40, 1), dtype="float32")]
    networks["lstm"][0].export(scratch / "loop", input_signature=spec, verbose=False)

    def job(form: str, source: str, kind: str, recurrent: str | None = None) -> tuple[str, Job]:
        calibrate = scratch / f"{source}.npy" if kind == "int8" else None
        path = scratch / (f"{source}.keras" if source != "loop" else source)
        return form, Job(path, scratch / f"{form}.tflite", kind, calibrate, CALIBRATE, recurrent=recurrent)

    return dict(
        [
            job("lstm-int8", "lstm", "int8", "unroll"),
            job("lstm-fused-int8", "lstm", "int8", "fused"),
            job("lstm-loop-float32", "loop", "float32"),
            job("cnn-int8", "cnn", "int8"),
            job("cnn-float32", "cnn", "float32"),
            job("window-float32", "frames", "float32", "unroll"),
            job("step-float32", "frames", "float32", "step"),
        ]
    )


def _frame_voice(frames: int) -> Any:
    """Return the report's LSTM over the frames of a window: (frames, 40) -> (7,)."""
    import keras
    from keras import layers

    voice = keras.Input((frames, COEFFICIENTS), name="voice")
    x = layers.LSTM(123, name="lstm")(voice)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dense(32, activation="relu")(x)
    return keras.Model(voice, layers.Dense(len(LABELS), activation="softmax", name="p")(x), name="frames")


def _median_times_ms(models: dict[str, Model]) -> dict[str, float]:
    """Return the median time of one run in ms; every model has one turn in every round."""
    random = np.random.default_rng(2)
    inputs: dict[str, list[Float32]] = {
        form: [random.random(info.shape, dtype=np.float32) for info in model.inputs]
        for form, model in models.items()
    }
    times: dict[str, list[float]] = {form: [] for form in models}
    for _ in range(ROUNDS):
        for form, model in models.items():
            model.run(*inputs[form])  # fills the caches, which hold the data of the previous model
            runs, start = 0, time.perf_counter()
            while (elapsed_s := time.perf_counter() - start) < TURN_S or not runs:
                model.run(*inputs[form])
                runs += 1
            times[form].append(elapsed_s / runs * 1000)
    return {form: float(np.median(values)) for form, values in times.items()}
