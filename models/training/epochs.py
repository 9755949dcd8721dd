"""Trains epoch by epoch, each followed by a checkpoint that a killed run resumes from."""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import EdgeError
from edge.values import Float32
from models.files import replaced
from models.run import Run

HISTORY = "history.json"  # beside Keras's own members of the state file

logger = logging.getLogger(__name__)

Epoch = Callable[[int], tuple[Float32, Float32]]
Score = Callable[[Float32], float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to learn: each stage is epochs and the learning rate it falls from."""

    stages: tuple[tuple[int, float], ...]
    batch: int
    seed: int = 2013

    @property
    def epochs(self) -> int:
        """All epochs of all stages."""
        return sum(epochs for epochs, _ in self.stages)

    def shortened(self, epochs: int | None) -> Recipe:
        """Return the recipe with one stage of so many epochs; None leaves it as it is."""
        return self if epochs is None else replace(self, stages=((epochs, self.stages[0][1]),))

    def stage_from(self, number: int) -> tuple[int, float] | None:
        """Return the stage that begins with epoch `number`, counted from 0, if one does."""
        for stage in self.stages:
            if number == 0:
                return stage
            number -= stage[0]
        return None


def run_epochs(
    build: Callable[[], Any],
    epoch_of: Epoch,
    inputs: Float32,
    score: Score,
    *,
    name: str,
    recipe: Recipe,
    run: Run,
    loss: Any = "categorical_crossentropy",
) -> Any:
    """Fit stage by stage; write the epoch whose `score` on validation is best, and return that model.

    `NAME.keras` has no optimizer state. After every epoch the whole state goes into one file beside it,
    `NAME.state.keras`; `run.resume` starts from there, and an epoch's examples and
    dropout depend on its number only, so a resumed run ends as the killed one would have.
    """
    import keras
    import tensorflow as tf

    use_cores(tf)
    out = run.out / f"{name}.keras"
    state = run.out / f"{name}.state.keras"
    run.out.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, float]] = []
    if run.resume and state.exists():
        with zipfile.ZipFile(state) as kept:
            done = json.loads(kept.read(HISTORY))
        model = keras.models.load_model(state)
        run.report(f"{state.name}: resumed after epoch {len(done)}")
    else:
        keras.utils.set_random_seed(recipe.seed)
        model = build()
    best = max((entry["validation"] for entry in done), default=-1.0)
    for number in range(len(done), recipe.epochs):
        x, targets = epoch_of(number)
        if stage := recipe.stage_from(number):
            epochs, learning_rate = stage
            optimizer = _optimizer(keras, epochs * -(-len(x) // recipe.batch), learning_rate)
            # XLA compiles convolutions for the CPU three times slower than oneDNN has them.
            model.compile(optimizer=optimizer, loss=loss, jit_compile=False)
        seed_dropout(model, recipe.seed, number)
        fitted = model.fit(x, targets, batch_size=recipe.batch, epochs=1, verbose=0, shuffle=False)
        found = float(fitted.history["loss"][-1])
        if not np.isfinite(found):
            raise EdgeError(f"{name}: loss {found} in epoch {number + 1}; lower its recipe's learning rate")
        entry = {
            "epoch": number + 1,
            "loss": round(found, 5),
            "validation": score(predict(model, inputs)),
        }
        done.append(entry)
        if entry["validation"] > best:
            best = entry["validation"]
            _save(_without_optimizer(model), out)
        _save(model, state, history=done)
        scored = f"loss {found:.4f}, validation {entry['validation']:.4f}"
        run.report(f"{name}: epoch {number + 1}/{recipe.epochs}, {scored}")
    return keras.models.load_model(out, compile=False)


def predict(model: Any, inputs: Float32) -> Float32:
    """Return what the Keras `model` says (n, 7) to `inputs`."""
    return np.asarray(model.predict(inputs, batch_size=256, verbose=0), dtype=np.float32)


def _optimizer(keras: Any, steps: int, learning_rate: float) -> Any:
    """Return Adam whose rate climbs for a fortieth of `steps` and falls as a cosine for the rest."""
    warmup = max(1, steps // 40)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 20, steps - warmup, alpha=0.01, warmup_target=learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


def use_cores(tf: Any) -> None:
    """Use the cores there are: TensorFlow counts those of the machine, not of the container."""
    cores = len(os.sched_getaffinity(0))
    try:
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.debug("TensorFlow is running already; its threads stay as they are")


def seed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Make an epoch's dropout depend on its number only; the .keras format does not keep where it stood."""
    for index, layer in enumerate(model.layers):
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign([seed + index, epoch << 20])


def _without_optimizer(model: Any) -> Any:
    """Return a copy that was never compiled; the .keras format always keeps what a compiled model has."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _save(model: Any, path: Path, *, history: list[dict[str, float]] | None = None) -> None:
    """Write beside, then rename, so that a killed run leaves the file before; a history goes into the zip."""
    with replaced(path) as part:
        model.save(part)
        if history is not None:
            with zipfile.ZipFile(part, "a") as archive:
                archive.writestr(HISTORY, json.dumps(history))
