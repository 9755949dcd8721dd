"""The visual network: what picture and video say of a face, and how good both are -> seven classes.

It learns from answers about people whom the two models have never seen: those of the fold models about their
held-out people, and about a quarter of PublicTest that nothing else here was trained on. A network a fold,
without the answers about the fold's people, stands behind the figures.
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
from models.cards import draft_card, save_trained
from models.data.datasets import DataError
from models.data.expression_sequences import CHOOSE, COMBINE, load_expression_sequences
from models.family import find_folds
from models.metrics import fit_temperature
from models.recipes.video_lstm import SEED, SOURCES, embed_all, part
from models.run import Run
from models.training.embedding_windows import WindowSampler
from models.training.embeddings import EmbeddedSequence
from models.training.engine import Schedule, train
from models.training.torch_network import Network

SCHEDULE = Schedule(epochs=12, batch=64, rate=3e-3, decay=0.01, ema=0.99, seed=6)
WILD_WINDOWS, POSED_WINDOWS = 800, 800  # a fold
TO_CALIBRATE = 200
INPUT = 2 * len(LABELS) + 2
SIMPLE: tuple[Method, ...] = ("image", "video", "mean", "product")


def build() -> Any:
    """Return (16,) as `edge.face.combination.visual_input` makes it -> (7,) that sums to 1."""
    import keras
    from keras import layers

    said = keras.Input((INPUT,), name="said")
    x = layers.Dense(24, activation="relu")(said)
    x = layers.Dropout(0.1)(x)
    p = layers.Dense(len(LABELS), activation="softmax", name="p")(x)
    return keras.Model(said, p, name="visual")


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What both models said of windows, with soft targets (n, 7)."""

    said: tuple[FacePredictions, ...]
    targets: Float32

    def inputs(self) -> Float32:
        """Return (n, 16) as the network reads them."""
        return np.stack([network_input(opinions) for opinions in self.said])

    def p(self, method: Method) -> Float32:
        """Return (n, 7) by one of the rules."""
        return np.stack([combine_predictions(method, opinions) for opinions in self.said])


def train_visual(run: Run) -> Path:
    """Train a network a fold and the shipped one; return its card.

    Needs the video models with their folds in the package; raises `DataError` without them.
    """
    artifacts = artifacts_directory()
    run.out.mkdir(parents=True, exist_ok=True)
    pictures = load_expression_sequences(run, seed=SEED)
    learnt: list[Answers] = []
    chosen: list[Answers] = []
    faces = [load_card(path.stem, directory=path.parent) for path in find_folds("face-cnn", artifacts)]
    for k, face in enumerate(faces):
        courses = embed_all(face, artifacts / "folds", pictures, run)
        video = open_classifier(f"video-lstm-fold{k}", task="video", directory=artifacts / "folds")
        random = np.random.default_rng([SEED, 100 + k])
        unseen = [course for course in courses if course.person in face.held_out]
        wild = part(courses, COMBINE)
        strangers = _ask(video, wild, random, count=WILD_WINDOWS)
        learnt.append(_joined(strangers, _ask(video, wild + unseen, random, count=POSED_WINDOWS)))
        chosen.append(_ask(video, part(courses, CHOOSE), random, count=WILD_WINDOWS))
    if not learnt:
        raise DataError(
            f"{artifacts}: no fold models of face-cnn, from whose answers the visual network learns"
        )
    for k, face in enumerate(faces):
        others = [answers for j, answers in enumerate(learnt) if j != k]
        _learn(f"visual-fold{k}", others, chosen, face.held_out, run)
    return _learn("visual", learnt, chosen, (), run)


def _learn(
    name: str, learnt: Sequence[Answers], chosen: Sequence[Answers], held_out: Sequence[str], run: Run
) -> Path:
    mine, judged = _joined(*learnt), _joined(*chosen)
    inputs, asked = mine.inputs(), judged.inputs()
    schedule = replace(SCHEDULE, epochs=run.epochs or SCHEDULE.epochs)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        order = np.random.default_rng([schedule.seed, number]).permutation(len(inputs))
        return inputs[order], mine.targets[order]

    def scores(network: Network) -> dict[str, float]:
        return _scores(network.predict(asked), judged.targets)

    for method in SIMPLE:
        found = _scores(judged.p(method), judged.targets)
        run.report(f"{name}: {method} by rule: score {found['score']:.4f}, right {found['right']:.4f}")
    model = train(build, epoch_of, scores, name=name, schedule=schedule, run=run)
    np.save(run.out / f"{name}.calibration.npy", inputs[:: max(1, len(inputs) // TO_CALIBRATE)])
    card = draft_card(
        name,
        task="visual",
        shape=(1, INPUT),
        value_range=(-1.0, 1.0),
        features=VisualSpec(),
        temperature=fit_temperature(Network(model).predict(asked), judged.targets.argmax(axis=1)),
        data=SOURCES,
        held_out=held_out,
    )
    return save_trained(run.out, card)


def _ask(
    video: TfliteClassifier, courses: Sequence[EmbeddedSequence], random: np.random.Generator, *, count: int
) -> Answers:
    """Draw windows and ask the video model; a crop that came without a picture has any quality."""
    spec = video.card.spec(VideoSpec)
    windows = WindowSampler(courses, spec).draw(random, count=count)
    quality = random.uniform(0.4, 1.0, count)
    said = tuple(
        FacePredictions(p, video.classify(steps), float(q), float(share))
        for p, steps, q, share in zip(windows.p, windows.inputs, quality, windows.share, strict=True)
    )
    return Answers(said, windows.targets)


def _joined(*answers: Answers) -> Answers:
    said = tuple(opinions for some in answers for opinions in some.said)
    return Answers(said, np.concatenate([some.targets for some in answers]))


def _scores(p: Float32, targets: Float32) -> dict[str, float]:
    """Return the geometric mean of what the targets get, and how often the likeliest class is right."""
    score = float(np.exp(np.mean(np.sum(targets * np.log(np.maximum(p, 1e-6)), axis=1))))
    return {"score": score, "right": float(np.mean(p.argmax(axis=1) == targets.argmax(axis=1)))}
