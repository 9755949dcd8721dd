"""Trains the shipped networks, an epoch at a time, each followed by a checkpoint that a killed run resumes from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import EdgeError
from edge.values import LABELS, Float32, UInt8
from models.augment import spoil_faces
from models.datasets import FaceSet, find_set, load_fer2013, need_every_class

logger = logging.getLogger(__name__)

Epoch = Callable[[int], tuple[Float32, Float32]]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast to learn."""

    epochs: int
    batch: int
    learning_rate: float
    seed: int = 2013


FACE = Recipe(epochs=18, batch=64, learning_rate=7e-4)
FER_SHARE = 0.6  # of the target; the rest are FER+ votes, which know that a face can be two things
LABEL_SMOOTHING = 0.05


def face_targets(faces: FaceSet) -> Float32:
    """Return (n, 7): the FER label, smoothed, mixed with the FER+ votes where there are any."""
    hard = np.eye(len(LABELS), dtype=np.float32)[faces.labels]
    smooth = (1 - LABEL_SMOOTHING) * hard + LABEL_SMOOTHING / len(LABELS)
    votes = faces.votes.sum(axis=1, keepdims=True)
    voted = np.divide(faces.votes, votes, out=smooth.copy(), where=votes > 0)
    return (FER_SHARE * smooth + (1 - FER_SHARE) * voted).astype(np.float32)


def unit_pixels(images: UInt8) -> Float32:
    """Return (n, h, w) uint8 as (n, h, w, 1) float32 in [0, 1], the range of the face networks."""
    return images[..., np.newaxis].astype(np.float32) / np.float32(255)


def train_face(data: Path, out: Path, *, epochs: int | None, resume: bool, report: Report) -> Path:
    """Train report-face on FER2013 Training, keep the epoch that is best on PublicTest; return its file."""
    from models import networks

    recipe = FACE if epochs is None else Recipe(epochs, FACE.batch, FACE.learning_rate)
    directory = find_set(data, "fer2013")
    training = load_fer2013(directory, "Training")
    validation = load_fer2013(directory, "PublicTest")
    for faces in (training, validation):
        need_every_class(faces.name, faces.labels)
        for note in faces.notes:
            report(note)
    images, targets = training.stacked(), face_targets(training)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        random = np.random.default_rng([recipe.seed, number])
        order = random.permutation(len(images))
        return unit_pixels(spoil_faces(images[order], random)), targets[order]

    return run_epochs(
        networks.report_face,
        epoch_of,
        (unit_pixels(validation.stacked()), validation.labels),
        recipe=recipe,
        out=out / "report-face.keras",
        resume=resume,
        report=report,
    )


def run_epochs(
    build: Callable[[], Any],
    epoch_of: Epoch,
    validation: tuple[Float32, np.ndarray[tuple[int, ...], np.dtype[np.int64]]],
    *,
    recipe: Recipe,
    out: Path,
    resume: bool,
    report: Report,
) -> Path:
    """Fit for `recipe.epochs`, write the best epoch on validation to `out` without optimizer state.

    After every epoch the whole state goes beside `out` (`.state.keras`, `.state.json`); `resume` starts
    from there, and an epoch's examples depend on its number only, so a resumed run is the same run.
    """
    import keras
    import tensorflow as tf

    _use_cores(tf)
    state, history = out.with_suffix(".state.keras"), out.with_suffix(".state.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, float]] = []
    if resume and state.exists() and history.exists():
        done = json.loads(history.read_text(encoding="utf-8"))
        model = keras.models.load_model(state)
        report(f"{state.name}: resumed after epoch {len(done)}")
    else:
        keras.utils.set_random_seed(recipe.seed)
        model = build()
    x, labels = validation
    best = max((entry["accuracy"] for entry in done), default=-1.0)
    for number in range(len(done), recipe.epochs):
        inputs, targets = epoch_of(number)
        if number == 0:
            # XLA compiles convolutions for the CPU three times slower than oneDNN has them.
            model.compile(
                optimizer=_optimizer(keras, recipe, len(inputs)),
                loss="categorical_crossentropy",
                jit_compile=False,
            )
        fitted = model.fit(inputs, targets, batch_size=recipe.batch, epochs=1, verbose=0, shuffle=False)
        p = model.predict(x, batch_size=256, verbose=0)
        entry = {
            "epoch": number + 1,
            "loss": round(float(fitted.history["loss"][-1]), 5),
            "accuracy": round(float(np.mean(p.argmax(axis=1) == labels)), 5),
        }
        if not np.isfinite(entry["loss"]):
            raise EdgeError(f"{out.name}: loss {entry['loss']} in epoch {number + 1}; lower the learning rate")
        done.append(entry)
        if entry["accuracy"] > best:
            best = entry["accuracy"]
            _save(model, out, optimizer=False)
        _save(model, state, optimizer=True)
        _write(history, json.dumps(done))
        report(
            f"epoch {number + 1}/{recipe.epochs}: loss {entry['loss']:.4f}, validation {entry['accuracy']:.4f}"
        )
    return out


def _optimizer(keras: Any, recipe: Recipe, examples: int) -> Any:
    steps = recipe.epochs * -(-examples // recipe.batch)
    warmup = max(1, steps // 40)
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 20, steps - warmup, alpha=0.01, warmup_target=recipe.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.Adam(schedule, clipnorm=1.0)


def _use_cores(tf: Any) -> None:
    """Use the cores there are: TensorFlow counts those of the machine, not of the container."""
    cores = len(os.sched_getaffinity(0))
    try:
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        logger.debug("TensorFlow is running already; its threads stay as they are")


def _save(model: Any, path: Path, *, optimizer: bool) -> None:
    """Write beside, then rename, so that a killed run leaves the file before."""
    part = path.with_name(f".{path.stem}.part.keras")
    model.save(part, include_optimizer=optimizer)
    part.replace(path)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
