"""Writes model cards: training drafts them, the converter adds files, the evaluation adds figures."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edge.files import write_json
from edge.inference.card import TASK_LABELS, Card, File, Golden, Input, Source, Task, Tensor
from edge.inference.features import Features
from edge.inference.weights import sha256
from edge.values import Float32
from models.files import replaced, writable

VERSION = "0.1.0"
# Int8 kernels round differently on other processors; the output has steps of 1/256.
GOLDEN_TOLERANCE = 0.05


def draft_card(
    name: str,
    *,
    task: Task,
    shape: tuple[int, ...],
    value_range: tuple[float, float],
    features: Features,
    temperature: float,
    data: Iterable[Source],
    held_out: Iterable[str] = (),
    embedding: int = 0,
) -> Card:
    """Return the card of a trained, unconverted model: without quantization and figures.

    `embedding` is the length of the input of the last dense layer, for models with an embedding output.
    """
    return Card(
        name=name,
        version=VERSION,
        task=task,
        labels=TASK_LABELS[task],
        input=Input(
            shape=shape, dtype="float32", scale=0, zero_point=0, range=value_range, features=features
        ),
        output=Tensor(shape=(1, len(TASK_LABELS[task])), dtype="float32", scale=0, zero_point=0),
        embedding=Tensor(shape=(1, embedding), dtype="float32", scale=0, zero_point=0) if embedding else None,
        temperature=temperature,
        files={},
        data=list(data),
        metrics={},
        golden=Golden(
            input=base64.b64encode(made_input(shape, value_range).astype("<f4").tobytes()).decode(),
            output={},
            tolerance=GOLDEN_TOLERANCE,
        ),
        held_out=tuple(held_out),
    )


def save_trained(out: Path, card: Card) -> Path:
    """Write the card of a model with its `NAME.keras` in `out`; return the path of the card."""
    files = {"keras": file_entry(out / f"{card.name}.keras")}
    return save_card(card.model_copy(update={"files": files}), out)


def save_calibration(out: Path, name: str, inputs: Float32) -> Path:
    """Write inputs (n, ...) for the int8 conversion as `NAME.calibration.npy` in `out`; return the path."""
    path = out / f"{name}.calibration.npy"
    with replaced(path) as part:
        np.save(part, inputs)
    return path


def made_input(shape: tuple[int, ...], value_range: tuple[float, float], *, seed: int = 7) -> Float32:
    """Return a synthetic input: smoothed noise in the middle of the range, determined by `seed`."""
    low, high = value_range
    noise = np.random.default_rng(seed).standard_normal(shape)
    for axis in range(1, len(shape)):
        if shape[axis] > 1:
            noise = (noise + np.roll(noise, 1, axis)) / np.sqrt(2)
    return np.clip((low + high) / 2 + noise * (high - low) / 6, low, high).astype(np.float32)


def file_entry(path: Path) -> File:
    """Return name, hash and size of a file."""
    return File(file=path.name, sha256=sha256(path), bytes=path.stat().st_size)


def save_card(card: Card, directory: Path) -> Path:
    """Write `NAME.json` into `directory`; return its path."""
    path = directory / f"{card.name}.json"
    with writable(path):
        return write_json(path, card.model_dump(mode="json"))
