"""The video model: sixteen embeddings of a face over one and a half seconds -> LSTM -> seven classes.

A model a fold learns from the embeddings of the face model of the same fold, without that fold's people; the
shipped one from those of the shipped face model, with everybody. Nothing is chosen on CK+: which epoch is
kept, and the temperature, come from faces of fer2013 that no face model has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.inference.card import Card, Source, artifacts_directory, load_card
from edge.inference.classifier import open_classifier
from edge.inference.features import VideoSpec
from edge.values import LABELS, Float32
from models.cards import draft_card, save_trained
from models.data.expression_sequences import (
    CHOOSE,
    LEARN,
    PARTS,
    ExpressionSequence,
    load_expression_sequences,
)
from models.family import find_folds
from models.metrics import fit_temperature, predicted_classes
from models.run import Run
from models.training.embedding_windows import NOISE, Windows, WindowSampler
from models.training.embeddings import EmbeddedSequence, embed_sequences
from models.training.engine import Schedule, train
from models.training.torch_network import Network

STEPS, RATE_HZ = 16, 10.0  # the camera's own rate, so that most steps are pictures and not lines between them
WIDTH = 192  # of an embedding
RANGE = (0.0, 1.6)  # of its numbers; the int8 face models end between 1.4 and 1.7
SCHEDULE = Schedule(epochs=8, batch=128, rate=3e-3, decay=0.05, ema=0.99, seed=4)
AN_EPOCH, TO_CHOOSE, TO_CALIBRATE = 6_000, 2_000, 200
OWN_SHARE = 0.3  # of a still's target: what the face model says of it, the mean over its views
SEED = 3

SOURCES = (
    Source(
        name="fer2013",
        use="2,100 faces of Training and half of PublicTest, shaken, held and turned into each other as "
        "embeddings; a quarter of PublicTest chose the epoch and the temperature",
        licence="web photographs of the Kaggle 2013 challenge, research use",
    ),
    Source(name="FER+", use="votes mixed into the targets", licence="MIT (the votes)"),
    Source(
        name="ckplus48 and ckplus_sequences",
        use="trained on, filmed onsets and blended ones; the figures are from folds without the people",
        licence="CK+ research agreement",
    ),
)


def build() -> Any:
    """Return (16, 192) embeddings -> (7,) that sums to 1; the last step is now."""
    import keras
    from keras import layers

    seen = keras.Input((STEPS, WIDTH), name="seen")
    x = layers.Dense(64, activation="relu")(seen)
    x = layers.Dropout(0.3)(x)
    x = layers.LSTM(48, name="lstm")(x)
    x = layers.Dropout(0.3)(x)
    p = layers.Dense(len(LABELS), activation="softmax", name="p")(x)
    return keras.Model(seen, p, name="video-lstm")


def spec_of(face: Card) -> VideoSpec:
    """Return what a video model of this face model reads."""
    return VideoSpec(of=face.name, steps=STEPS, rate_hz=RATE_HZ)


def train_video_lstm(run: Run) -> Path:
    """Train a model a fold and the shipped one; return its card.

    Beside each lies `NAME.calibration.npy`, inputs for the int8 conversion. Needs the face models of the
    package with their folds; raises `DataError` where the data sets are not there.
    """
    artifacts = artifacts_directory()
    run.out.mkdir(parents=True, exist_ok=True)
    pictures = load_expression_sequences(run, seed=SEED)
    folds = find_folds("face-cnn", artifacts)
    for k, path in enumerate(folds):
        _learn(f"video-lstm-fold{k}", load_card(path.stem, directory=path.parent), path.parent, pictures, run)
    return _learn("video-lstm", load_card("face-cnn"), artifacts, pictures, run)


def embed_all(
    face: Card, directory: Path, pictures: Sequence[ExpressionSequence], run: Run
) -> list[EmbeddedSequence]:
    """Return all courses as the face model sees them."""
    model = open_classifier(face.name, task="face", directory=directory)
    with run.bar(f"asking {face.name}") as progress:
        return embed_sequences(model, pictures, progress)


def part(courses: Sequence[EmbeddedSequence], parts: Sequence[int]) -> list[EmbeddedSequence]:
    """Return the faces of these parts of PublicTest."""
    names = [f"fer2013:{number}" for number in parts]
    return [course for course in courses if course.person in names]


def without(courses: Sequence[EmbeddedSequence], held_out: Sequence[str]) -> list[EmbeddedSequence]:
    """Return what a model may learn from: nobody of `held_out`, and of PublicTest only `LEARN`."""
    barred = {*held_out, *(f"fer2013:{number}" for number in range(PARTS) if number not in LEARN)}
    return [_softened(course) for course in courses if course.person not in barred]


def _learn(name: str, face: Card, directory: Path, pictures: Sequence[ExpressionSequence], run: Run) -> Path:
    courses = embed_all(face, directory, pictures, run)
    spec = spec_of(face)
    film = WindowSampler(without(courses, face.held_out), spec, noise=NOISE)
    chosen = WindowSampler(part(courses, CHOOSE), spec).draw(np.random.default_rng(SEED), count=TO_CHOOSE)
    labels = chosen.targets.argmax(axis=1)
    schedule = replace(SCHEDULE, epochs=run.epochs or SCHEDULE.epochs)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        drawn = film.draw(np.random.default_rng([schedule.seed, number]), count=AN_EPOCH)
        return drawn.inputs, drawn.targets

    def scores(network: Network) -> dict[str, float]:
        p = network.predict(chosen.inputs)
        right = float(np.mean(predicted_classes(p) == labels))
        return {"score": float(np.exp(-_cross_entropy(p, chosen))), "right": right}

    still = float(np.mean(predicted_classes(chosen.p) == labels))
    run.report(f"{name}: the pictures by themselves are right in {still:.4f} of the windows to choose on")
    model = train(build, epoch_of, scores, name=name, schedule=schedule, run=run)
    calibration = film.draw(np.random.default_rng([SEED, 1]), count=TO_CALIBRATE).inputs
    np.save(run.out / f"{name}.calibration.npy", calibration)
    card = draft_card(
        name,
        task="video",
        shape=(1, STEPS, WIDTH),
        value_range=RANGE,
        features=spec,
        temperature=fit_temperature(Network(model).predict(chosen.inputs), labels),
        data=SOURCES,
        held_out=face.held_out,
    )
    return save_trained(run.out, card)


def _softened(course: EmbeddedSequence) -> EmbeddedSequence:
    """Mix into the target of a wild face what the face model says of it: its label alone is noisy."""
    if course.kind != "wild":
        return course
    targets = (1 - OWN_SHARE) * course.targets + OWN_SHARE * course.p.mean(axis=0)  # (views, 1, 7) -> (1, 7)
    return replace(course, targets=targets.astype(np.float32))


def _cross_entropy(p: Float32, windows: Windows) -> float:
    return float(-np.mean(np.sum(windows.targets * np.log(np.maximum(p, 1e-6)), axis=1)))
