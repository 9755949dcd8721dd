"""`emotion-convert bench`: how much faster each form of a network is, as ratios measured in one run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.quantize import Job, Stage, convert
from edge.inference.backends import Model, load_model
from edge.values import LABELS, Float32
from edge.voice.windows import COEFFICIENTS, frame_count
from models.recipes.report_networks import report_face, report_voice

WINDOW_S, HOP_S, WINDOWS_A_SECOND = 3.0, 0.01, 10
ROUNDS, SPELL_S = 15, 0.02
CALIBRATE = 32
SHIPPED, SECONDS = ("lstm-int8", "cnn-int8"), 60.0  # how long converting one of these may take

Report = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Ratio:
    """One comparison: how many times faster `fast` is than `slow`, and how many are wanted."""

    what: str
    slow: str
    fast: str
    wanted: float


RATIOS = (
    Ratio("unrolled int8 LSTM against the fused int8 one", "lstm-fused-int8", "lstm-int8", 5.0),
    Ratio("unrolled int8 LSTM against the float loop", "lstm-loop-float32", "lstm-int8", 1.5),
    Ratio("int8 CNN against the float one", "cnn-float32", "cnn-int8", 2.5),
    Ratio("speech a second: single steps against windows", "window-float32", "step-float32", 10.0),
)
# How often a form runs for a second of speech, where that is not once.
TIMES = {"window-float32": WINDOWS_A_SECOND, "step-float32": round(1 / HOP_S)}


def run_bench(*, report: Report) -> dict[str, Any]:
    """Make the report's networks with random weights, convert them in every form, and time them in turns.

    Returns `{"version", "ms": {form: median}, "ratios": [{"what", "ratio", "wanted", "met"}],
    "convert_s": {form: seconds}}`. Turns and medians make the ratios hold on a busy machine.
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
        ms = _in_turns({form: load_model(job.target) for form, job in jobs.items()})
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
            "what": f"converting a shipped network ({slowest:.0f} s) against {SECONDS:.0f} s",
            "ratio": round(SECONDS / slowest, 2),
            "wanted": 1.0,
            "met": slowest <= SECONDS,
        }
    )
    return {
        "version": 1,
        "ms": {form: round(value, 4) for form, value in ms.items()},
        "ratios": ratios,
        "convert_s": seconds,
    }


def _jobs(scratch: Path, report: Report) -> dict[str, Job]:
    """Save the networks and inputs to calibrate with, and return what is to be converted."""
    import keras

    report(Stage("making the networks", 0.0))
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
    # Keras's own export keeps its loop, which is what converting without this package gives.
    one = [keras.InputSpec(shape=(1, 40, 1), dtype="float32")]
    networks["lstm"][0].export(scratch / "loop", input_signature=one, verbose=False)

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


def _in_turns(models: dict[str, Model]) -> dict[str, float]:
    """Return the median time of an answer in ms, each model having its turn in every round."""
    random = np.random.default_rng(2)
    inputs: dict[str, list[Float32]] = {
        form: [random.random(info.shape, dtype=np.float32) for info in model.inputs]
        for form, model in models.items()
    }
    times: dict[str, list[float]] = {form: [] for form in models}
    for _ in range(ROUNDS):
        for form, model in models.items():
            model.run(*inputs[form])  # what the others left in the caches is not this one's time
            runs, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < SPELL_S or not runs:
                model.run(*inputs[form])
                runs += 1
            times[form].append(spent / runs * 1000)
    return {form: float(np.median(values)) for form, values in times.items()}
