"""The visual network: predictions of face and video model with their quality -> seven classes.

It is trained on predictions for people held out from both models: those of the fold models for their held-out
people, and for a quarter of PublicTest that no other model here was trained on. One network for each fold,
trained without the predictions for the fold's people, is for the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.face.combination import FacePredictions, Method, combine_predictions, network_input
from edge.inference.card import artifacts_directory, load_card
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.inference.features import VideoSpec, VisualSpec
from edge.values import LABELS, Float32
from models.cards import draft_card, save_calibration, save_trained
from models.data.datasets import DataError
from models.data.expression_sequences import COMBINE, VALIDATE, load_expression_sequences
from models.family import find_folds
from models.metrics import fit_temperature
from models.recipes.video_lstm import SEED, SOURCES, embed_all, part
from models.run import Run
from models.training.embedding_windows import WindowSampler
from models.training.embeddings import EmbeddedSequence
from models.training.engine import Schedule, train
from models.training.torch_network import Network

SCHEDULE = Schedule(epochs=12, batch=64, rate=3e-3, decay=0.01, ema=0.99, seed=6)
WILD_WINDOWS, POSED_WINDOWS = 800, 800  # of each fold
TO_CALIBRATE = 200
INPUT = 2 * len(LABELS) + 2
SIMPLE: tuple[Method, ...] = ("image", "video", "mean", "product")


def build() -> Any:
    """Return (16,), see `edge.face.combination.network_input`, -> (7,) that sums to 1."""
    import keras
    from keras import layers

    predictions = keras.Input((INPUT,), name="said")
    x = layers.Dense(24, activation="relu")(predictions)
    x = layers.Dropout(0.1)(x)
    p = layers.Dense(len(LABELS), activation="softmax", name="p")(x)
    return keras.Model(predictions, p, name="visual")


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Predictions of both models for windows, with soft targets (n, 7)."""

    predictions: tuple[FacePredictions, ...]
    targets: Float32

    def inputs(self) -> Float32:
        """Return the inputs (n, 16) of the network."""
        return np.stack([network_input(both) for both in self.predictions])

    def p(self, method: Method) -> Float32:
        """Return the predictions (n, 7) of a rule."""
        return np.stack([combine_predictions(method, both) for both in self.predictions])


def train_visual(run: Run) -> Path:
    """Train one network for each fold and the shipped one; return its card.

    Needs the video models of the package with their folds; raises `DataError` without them.
    """
    artifacts = artifacts_directory()
    run.out.mkdir(parents=True, exist_ok=True)
    sequences = load_expression_sequences(run, seed=SEED)
    training: list[Examples] = []
    validation: list[Examples] = []
    faces = [load_card(path.stem, directory=path.parent) for path in find_folds("face-cnn", artifacts)]
    for k, face in enumerate(faces):
        embedded = embed_all(face, artifacts / "folds", sequences, run)
        video = open_classifier(f"video-lstm-fold{k}", task="video", directory=artifacts / "folds")
        random = np.random.default_rng([SEED, 100 + k])
        held_out = [sequence for sequence in embedded if sequence.person in face.held_out]
        wild = part(embedded, COMBINE)
        wild_examples = _predict(video, wild, random, count=WILD_WINDOWS)
        training.append(_joined(wild_examples, _predict(video, wild + held_out, random, count=POSED_WINDOWS)))
        validation.append(_predict(video, part(embedded, VALIDATE), random, count=WILD_WINDOWS))
    if not training:
        raise DataError(
            f"{artifacts}: no fold models of face-cnn, which the visual network needs; convert them to folds/"
        )
    for k, face in enumerate(faces):
        others = [part for j, part in enumerate(training) if j != k]
        _train(f"visual-fold{k}", others, validation, face.held_out, run)
    return _train("visual", training, validation, (), run)


def _train(
    name: str, training: Sequence[Examples], validation: Sequence[Examples], held_out: Sequence[str], run: Run
) -> Path:
    train_set, validation_set = _joined(*training), _joined(*validation)
    inputs, validation_inputs = train_set.inputs(), validation_set.inputs()
    schedule = replace(SCHEDULE, epochs=run.epochs or SCHEDULE.epochs)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        order = np.random.default_rng([schedule.seed, number]).permutation(len(inputs))
        return inputs[order], train_set.targets[order]

    def scores(network: Network) -> dict[str, float]:
        return _scores(network.predict(validation_inputs), validation_set.targets)

    for method in SIMPLE:
        found = _scores(validation_set.p(method), validation_set.targets)
        run.report(f"{name}: {method} by rule: score {found['score']:.4f}, right {found['right']:.4f}")
    model = train(build, epoch_of, scores, name=name, schedule=schedule, run=run)
    save_calibration(run.out, name, inputs[:: max(1, len(inputs) // TO_CALIBRATE)])
    card = draft_card(
        name,
        task="visual",
        shape=(1, INPUT),
        value_range=(-1.0, 1.0),
        features=VisualSpec(),
        temperature=fit_temperature(
            Network(model).predict(validation_inputs), validation_set.targets.argmax(axis=1)
        ),
        data=SOURCES,
        held_out=held_out,
    )
    return save_trained(run.out, card)


def _predict(
    video: TfliteClassifier, embedded: Sequence[EmbeddedSequence], random: np.random.Generator, *, count: int
) -> Examples:
    """Sample windows and run the video model; the quality of the face is random."""
    spec = video.card.spec(VideoSpec)
    windows = WindowSampler(embedded, spec).draw(random, count=count)
    quality = random.uniform(0.4, 1.0, count)
    predictions = tuple(
        FacePredictions(p, video.classify(steps), float(q), float(share))
        for p, steps, q, share in zip(windows.p, windows.inputs, quality, windows.share, strict=True)
    )
    return Examples(predictions, windows.targets)


def _joined(*examples: Examples) -> Examples:
    predictions = tuple(both for part in examples for both in part.predictions)
    return Examples(predictions, np.concatenate([part.targets for part in examples]))


def _scores(p: Float32, targets: Float32) -> dict[str, float]:
    """Return the geometric mean probability of the targets (score) and the accuracy (right)."""
    score = float(np.exp(np.mean(np.sum(targets * np.log(np.maximum(p, 1e-6)), axis=1))))
    return {"score": score, "right": float(np.mean(p.argmax(axis=1) == targets.argmax(axis=1)))}
