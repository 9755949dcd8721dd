"""The video model: 16 embeddings of a face over 1.5 s -> LSTM -> seven classes.

The model of a fold is trained on embeddings of the face model of the same fold, without its people; the
shipped one on those of the shipped face model, with all people. The epoch and the temperature are
validation on faces of FER2013 that no face model was trained on, not on CK+.
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
from models.cards import draft_card, save_calibration, save_trained
from models.data.expression_sequences import (
    PARTS,
    TRAIN,
    VALIDATE,
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

STEPS, RATE_HZ = (
    16,
    10.0,
)  # the frame rate of the camera, so that most steps are frames and few are interpolated
WIDTH = 192  # of an embedding
RANGE = (0.0, 1.6)  # of its elements; the maxima of the int8 face models are 1.4 to 1.7
SCHEDULE = Schedule(epochs=8, batch=128, rate=3e-3, decay=0.05, ema=0.99, seed=4)
PER_EPOCH, VALIDATION, CALIBRATION = 6_000, 2_000, 200
PREDICTION_SHARE = 0.3  # of the target of a still face: the face model's mean prediction over its views
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
    """Return (16, 192) embeddings -> (7,) that sums to 1; the last step is the newest."""
    import keras
    from keras import layers

    embeddings = keras.Input((STEPS, WIDTH), name="seen")
    x = layers.Dense(64, activation="relu")(embeddings)
    x = layers.Dropout(0.3)(x)
    x = layers.LSTM(48, name="lstm")(x)
    x = layers.Dropout(0.3)(x)
    p = layers.Dense(len(LABELS), activation="softmax", name="p")(x)
    return keras.Model(embeddings, p, name="video-lstm")


def spec_of(face: Card) -> VideoSpec:
    """Return the input of a video model for this face model."""
    return VideoSpec(of=face.name, steps=STEPS, rate_hz=RATE_HZ)


def train_video_lstm(run: Run) -> Path:
    """Train one model for each fold and the shipped one; return its card.

    Also writes `NAME.calibration.npy`, inputs for the int8 conversion. Needs the face models of the package
    with their folds; raises `DataError` if data sets are missing.
    """
    artifacts = artifacts_directory()
    run.out.mkdir(parents=True, exist_ok=True)
    sequences = load_expression_sequences(run, seed=SEED)
    folds = find_folds("face-cnn", artifacts)
    for k, path in enumerate(folds):
        _train(
            f"video-lstm-fold{k}", load_card(path.stem, directory=path.parent), path.parent, sequences, run
        )
    return _train("video-lstm", load_card("face-cnn"), artifacts, sequences, run)


def embed_all(
    face: Card, directory: Path, sequences: Sequence[ExpressionSequence], run: Run
) -> list[EmbeddedSequence]:
    """Return embeddings and predictions of the face model for all sequences."""
    model = open_classifier(face.name, task="face", directory=directory)
    with run.bar(f"running {face.name}") as progress:
        return embed_sequences(model, sequences, progress)


def part(embedded: Sequence[EmbeddedSequence], parts: Sequence[int]) -> list[EmbeddedSequence]:
    """Return the sequences of these parts of PublicTest."""
    names = [f"fer2013:{number}" for number in parts]
    return [sequence for sequence in embedded if sequence.person in names]


def training_sequences(
    embedded: Sequence[EmbeddedSequence], held_out: Sequence[str]
) -> list[EmbeddedSequence]:
    """Return the training sequences: without `held_out`, and of PublicTest only the parts `TRAIN`."""
    excluded = {*held_out, *(f"fer2013:{number}" for number in range(PARTS) if number not in TRAIN)}
    return [_softened(sequence) for sequence in embedded if sequence.person not in excluded]


def _train(name: str, face: Card, directory: Path, sequences: Sequence[ExpressionSequence], run: Run) -> Path:
    embedded = embed_all(face, directory, sequences, run)
    spec = spec_of(face)
    sampler = WindowSampler(training_sequences(embedded, face.held_out), spec, noise=NOISE)
    validation = WindowSampler(part(embedded, VALIDATE), spec).draw(
        np.random.default_rng(SEED), count=VALIDATION
    )
    labels = validation.targets.argmax(axis=1)
    schedule = replace(SCHEDULE, epochs=run.epochs or SCHEDULE.epochs)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        drawn = sampler.draw(np.random.default_rng([schedule.seed, number]), count=PER_EPOCH)
        return drawn.inputs, drawn.targets

    def scores(network: Network) -> dict[str, float]:
        p = network.predict(validation.inputs)
        right = float(np.mean(predicted_classes(p) == labels))
        return {"score": float(np.exp(-_cross_entropy(p, validation))), "right": right}

    still = float(np.mean(predicted_classes(validation.p) == labels))
    run.report(f"{name}: the face model alone has an accuracy of {still:.4f} on the validation windows")
    model = train(build, epoch_of, scores, name=name, schedule=schedule, run=run)
    calibration = sampler.draw(np.random.default_rng([SEED, 1]), count=CALIBRATION).inputs
    save_calibration(run.out, name, calibration)
    card = draft_card(
        name,
        task="video",
        shape=(1, STEPS, WIDTH),
        value_range=RANGE,
        features=spec,
        temperature=fit_temperature(Network(model).predict(validation.inputs), labels),
        data=SOURCES,
        held_out=face.held_out,
    )
    return save_trained(run.out, card)


def _softened(sequence: EmbeddedSequence) -> EmbeddedSequence:
    """Mix the face model's prediction into the target of a wild face, whose label is noisy."""
    if sequence.kind != "wild":
        return sequence
    targets = (1 - PREDICTION_SHARE) * sequence.targets + PREDICTION_SHARE * sequence.p.mean(
        axis=0
    )  # (views, 1, 7) -> (1, 7)
    return replace(sequence, targets=targets.astype(np.float32))


def _cross_entropy(p: Float32, windows: Windows) -> float:
    return float(-np.mean(np.sum(windows.targets * np.log(np.maximum(p, 1e-6)), axis=1)))
