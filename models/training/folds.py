"""Trains one Keras model a fold with default settings; a killed run resumes to identical numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge.errors import EdgeError
from edge.files import write_json
from edge.values import Float32
from models.files import replaced, writable
from models.metrics import Labels
from models.run import Report
from models.training.epochs import predict, seed_dropout, use_cores

History = list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Fit:
    """Training options of a fold: Adam at its default rate; the last epoch is kept."""

    epochs: int
    batch: int
    loss: Literal["categorical_crossentropy", "sparse_categorical_crossentropy"]
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Predictions `p` (n, k) for the test part of a fold, and the history with an entry an epoch."""

    p: Float32
    history: History


def fit_fold(
    build: Callable[[], Any],
    epoch_of: Callable[[int], tuple[Float32, Labels]],
    inputs: Float32,
    labels: Labels,
    *,
    fit: Fit,
    checkpoint: Path,
    report: Report,
) -> Fitted:
    """Train on `epoch_of(0)`, `epoch_of(1)`, ...; return the predictions for `inputs` after the last epoch.

    After every epoch `checkpoint` holds the complete state; an existing checkpoint is resumed. Operations are
    deterministic, and examples and dropout depend only on the epoch's number, so a resumed fold ends with the
    numbers of an uninterrupted one. `labels` are only for the history.
    """
    if (finished := _read_finished(checkpoint)) is not None:
        return finished
    model = _compiled(build, fit)
    history: History = []
    if checkpoint.exists():
        history = _restore(model, checkpoint)
        report(f"{checkpoint.stem}: resumed after epoch {len(history)}")
    classes, is_one_hot = model.output_shape[-1], fit.loss == "categorical_crossentropy"
    p = predict(model, inputs) if history else np.empty((0, classes), np.float32)
    for number in range(len(history), fit.epochs):
        x, targets = epoch_of(number)
        seed_dropout(model, fit.seed, number)
        wanted = np.eye(classes, dtype=np.float32)[targets] if is_one_hot else targets
        fitted = model.fit(x, wanted, batch_size=fit.batch, epochs=1, verbose=0, shuffle=False).history
        if not np.isfinite(fitted["loss"][-1]):
            raise EdgeError(
                f"{checkpoint.stem}: loss {fitted['loss'][-1]} in epoch {number + 1}; normalise the data"
            )
        p = predict(model, inputs)
        entry = {
            "epoch": number + 1,
            "loss": round(float(fitted["loss"][-1]), 5),
            "accuracy": round(float(fitted["accuracy"][-1]), 5),
            "val_loss": round(_cross_entropy(p, labels), 5),
            "val_accuracy": round(float(np.mean(p.argmax(axis=1) == labels)), 5),
        }
        history.append(entry)
        _keep(model, history, checkpoint)
        report(
            f"{checkpoint.stem}: epoch {number + 1}/{fit.epochs}, loss {entry['loss']:.4f}, "
            f"held out {entry['val_loss']:.4f}, accuracy {entry['val_accuracy']:.4f}"
        )
    _write(checkpoint, p=p, history=np.array(json.dumps(history)))
    return Fitted(p, history)


def _read_finished(checkpoint: Path) -> Fitted | None:
    """Return the result of a fold that was finished before, None if there is none."""
    if not checkpoint.exists():
        return None
    with np.load(checkpoint) as state:
        return Fitted(state["p"], json.loads(str(state["history"]))) if "p" in state else None


def _compiled(build: Callable[[], Any], fit: Fit) -> Any:
    """Build and compile the model with deterministic operations."""
    import keras
    import tensorflow as tf

    use_cores(tf)
    keras.backend.clear_session()
    keras.utils.set_random_seed(fit.seed)
    tf.config.experimental.enable_op_determinism()
    model = build()
    model.compile(optimizer=keras.optimizers.Adam(), loss=fit.loss, metrics=["accuracy"], jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def prepare_checkpoints(directory: Path, identity: dict[str, Any], *, resume: bool) -> None:
    """Keep the checkpoints if `resume` continues the same run; otherwise delete them."""
    file = directory / "run.json"
    with writable(file):
        if resume and file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            for key, value in identity.items():
                if before[key] != value:
                    raise EdgeError(
                        f"{directory}: the run to resume had {key} {before[key]}, this one has {value}; "
                        "start again without --resume"
                    )
            return
        for path in directory.glob("*.fold-*.npz"):
            path.unlink()
        write_json(file, identity)


def _cross_entropy(p: Float32, labels: Labels) -> float:
    return float(-np.mean(np.log(np.maximum(p[np.arange(labels.size), labels], 1e-7))))


def _variables(model: Any) -> list[Any]:
    return [*model.weights, *model.optimizer.variables]


def _keep(model: Any, history: History, path: Path) -> None:
    arrays = {f"v{i}": np.asarray(variable) for i, variable in enumerate(_variables(model))}
    _write(path, history=np.array(json.dumps(history)), **arrays)


def _restore(model: Any, path: Path) -> History:
    with np.load(path) as state:
        for i, variable in enumerate(_variables(model)):
            variable.assign(state[f"v{i}"])
        history: History = json.loads(str(state["history"]))
    return history


def _write(path: Path, **arrays: Any) -> None:
    with replaced(path) as part:
        np.savez(part, **arrays)
