"""Trains a Keras model epoch by epoch with checkpoints, from which a killed run resumes."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import EdgeError
from edge.values import Float32
from models.files import replaced
from models.run import Run, available_cores

HISTORY = "history.json"  # added to the members of Keras's state file

logger = logging.getLogger(__name__)

Epoch = Callable[[int], tuple[Float32, Float32]]
Score = Callable[[Float32], float]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training schedule: each stage has its epochs and initial learning rate."""

    stages: tuple[tuple[int, float], ...]
    batch: int
    seed: int = 2013

    @property
    def epochs(self) -> int:
        """The number of epochs of all stages."""
        return sum(epochs for epochs, _ in self.stages)

    def shortened(self, epochs: int | None) -> Recipe:
        """Return the recipe with one stage of `epochs`; unchanged for None."""
        return self if epochs is None else replace(self, stages=((epochs, self.stages[0][1]),))

    def stage_from(self, number: int) -> tuple[int, float] | None:
        """Return the stage that begins with epoch `number` (from 0), None if none does."""
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
    """Train stage by stage; save the epoch with the best `score` on validation; return that model.

    `NAME.keras` has no optimizer state. After every epoch `NAME.state.keras` holds the complete state, from
    which `run.resume` continues. Examples and dropout of an epoch depend only on its number, so a resumed run
    ends like an uninterrupted one.
    """
    import keras
    import tensorflow as tf

    use_cores(tf)
    out = run.out / f"{name}.keras"
    state = run.out / f"{name}.state.keras"
    run.out.mkdir(parents=True, exist_ok=True)
    model, history = _open_model(build, state, recipe, run)
    best = max((entry["validation"] for entry in history), default=-1.0)
    for number in range(len(history), recipe.epochs):
        x, targets = epoch_of(number)
        if stage := recipe.stage_from(number):
            epochs, learning_rate = stage
            optimizer = _optimizer(keras, epochs * -(-len(x) // recipe.batch), learning_rate)
            # On the CPU convolutions compiled by XLA are three times slower than oneDNN's.
            model.compile(optimizer=optimizer, loss=loss, jit_compile=False)
        seed_dropout(model, recipe.seed, number)
        fitted = model.fit(x, targets, batch_size=recipe.batch, epochs=1, verbose=0, shuffle=False)
        found = float(fitted.history["loss"][-1])
        if not np.isfinite(found):
            raise EdgeError(
                f"{name}: loss {found} in epoch {number + 1}; lower the learning rate of its recipe"
            )
        entry = {
            "epoch": number + 1,
            "loss": round(found, 5),
            "validation": score(predict(model, inputs)),
        }
        history.append(entry)
        if entry["validation"] > best:
            best = entry["validation"]
            _save(_without_optimizer(model), out)
        _save(model, state, history=history)
        scored = f"loss {found:.4f}, validation {entry['validation']:.4f}"
        run.report(f"{name}: epoch {number + 1}/{recipe.epochs}, {scored}")
    return keras.models.load_model(out, compile=False)


def _open_model(
    build: Callable[[], Any], state: Path, recipe: Recipe, run: Run
) -> tuple[Any, list[dict[str, float]]]:
    """Return the model and history of the checkpoint that `run` resumes, else a new model."""
    import keras

    if run.resume and state.exists():
        with zipfile.ZipFile(state) as checkpoint:
            history: list[dict[str, float]] = json.loads(checkpoint.read(HISTORY))
        run.report(f"{state.name}: resumed after epoch {len(history)}")
        return keras.models.load_model(state), history
    keras.utils.set_random_seed(recipe.seed)
    return build(), []


def predict(model: Any, inputs: Float32) -> Float32:
    """Return the predictions (n, 7) of the Keras `model`."""
    return np.asarray(model.predict(inputs, batch_size=256, verbose=0), dtype=np.float32)


def _optimizer(keras: Any, steps: int, learning_rate: float) -> Any:
    """Return Adam with warm-up over 1/40 of `steps`, then cosine decay."""
    warmup = max(1, steps // 40)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 20, steps - warmup, alpha=0.01, warmup_target=learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


def use_cores(tf: Any) -> None:
    """Use the available cores: TensorFlow counts those of the machine, not of the container."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(available_cores())
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.debug("TensorFlow has started already; its number of threads stays unchanged")


def seed_dropout(model: Any, seed: int, epoch: int) -> None:
    """Seed dropout by the epoch's number: the .keras format does not store the generator's state."""
    for index, layer in enumerate(model.layers):
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign([seed + index, epoch << 20])


def _without_optimizer(model: Any) -> Any:
    """Return an uncompiled copy: the .keras format always stores the optimizer of a compiled model."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy


def _save(model: Any, path: Path, *, history: list[dict[str, float]] | None = None) -> None:
    """Save the model atomically, with `history` as an additional member of the file."""
    with replaced(path) as part:
        model.save(part)
        if history is not None:
            with zipfile.ZipFile(part, "a") as archive:
                archive.writestr(HISTORY, json.dumps(history))
