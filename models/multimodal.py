"""The multimodal model: a small network that has learnt whom to believe, the face or the voice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge.card import Source, artifacts_directory
from edge.pooling import CLASSES, FEATURES, LOWEST, ORDER, RULES
from edge.settings import FusionSettings
from edge.values import Float32
from models.cards import draft_card, file_entry, save_card
from models.datasets import DataError
from models.epochs import Recipe, Run, predict, run_epochs
from models.fusionsets import Answers, Part, face_answers, voice_answers
from models.metrics import Labels, calibration_error, fit_temperature, predictions
from models.pairs import CONDITIONS, Pairs, draw_pairs, find_partners, fuse_by_rule, joined, make_pairs
from models.speech import CORPORA, HELD_OUT, SPEECH_LICENCES, VALIDATION

NAME = "multimodal"
RECIPE = Recipe(stages=((30, 2e-3),), batch=256)
WIDTH = 48
PAIRS_AN_EPOCH = 20_000
PAIRINGS = 3  # of the validation people
LABEL_SMOOTHING = 0.02
POSED_SHARE = 0.3  # of the faces learnt from; ckplus48 has fewer pictures than fer2013

SOURCES = (
    Source(
        name="fer2013",
        use="answers of face-cnn about PublicTest trained on, about a third of it chosen on",
        licence="web photographs of the Kaggle 2013 challenge, research use",
    ),
    Source(name="FER+", use="the majority of the votes is the label", licence="MIT (the votes)"),
    Source(
        name="ckplus48",
        use="answers of face-cnn's folds about a quarter of the people trained on, about another chosen on",
        licence="CK+ research agreement",
    ),
    *(
        Source(
            name=corpus,
            use="answers of voice-lstm's folds about its speakers trained on, except those held out and "
            f"those chosen on: {', '.join(who for who in VALIDATION if who.startswith(corpus)) or 'nobody'}",
            licence=SPEECH_LICENCES[corpus],
        )
        for corpus in CORPORA
    ),
)


def multimodal() -> Any:
    """Return the network: (20,) in [0, 1] -> (7,) that sums to 1."""
    import keras
    from keras import layers

    opinions = keras.Input((len(ORDER) * FEATURES,), name="opinions")
    x = layers.Dense(WIDTH, activation="relu")(opinions)
    x = layers.Dense(WIDTH, activation="relu")(x)
    x = layers.Concatenate()([opinions, x])
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(opinions, p, name=NAME)


def train_multimodal(run: Run) -> Path:
    """Train on answers about people whom neither model met, choose on others; return the card.

    Faces and voices are asked through the artifacts of the package. Beside the model it leaves inputs for
    the converter's calibration, and the card tells what every rule reaches on the validation people.
    """
    faces, voices = _answers(run, "train")
    held = validation_pairs(*_answers(run, "validation"))
    labels = np.concatenate([pairs.labels[:, 0] for pairs in held])
    inputs = np.concatenate([pairs.features() for pairs in held])
    recipe = RECIPE.shortened(run.epochs)
    shares = face_shares(faces)
    everyone = joined(faces)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        random = np.random.default_rng([recipe.seed, number])
        pairs = draw_pairs(everyone, voices, PAIRS_AN_EPOCH, random, shares=shares)
        hard = np.eye(CLASSES, dtype=np.float32)[pairs.labels[:, 0]]
        return pairs.features(), (1 - LABEL_SMOOTHING) * hard + LABEL_SMOOTHING / CLASSES

    def score(p: Float32) -> float:
        """Count a point of calibration error as much as a point of accuracy."""
        return float(np.mean(predictions(p) == labels)) - calibration_error(p, labels)

    model = run_epochs(multimodal, epoch_of, inputs, score, name=NAME, recipe=recipe, run=run)
    some = draw_pairs(everyone, voices, 1000, np.random.default_rng(recipe.seed), shares=shares)
    np.save(run.out / f"{NAME}.calibration.npy", some.features())
    p = predict(model, inputs)
    chosen = compare_methods(held, p)
    for method, figures in chosen.items():
        run.report(f"{method}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    card = draft_card(
        NAME,
        task="multimodal",
        shape=(1, len(ORDER) * FEATURES),
        value_range=(0.0, 1.0),
        features={"kind": "opinions", "order": [modality.value for modality in ORDER], "lowest": LOWEST},
        temperature=fit_temperature(p, labels),
        data=SOURCES,
        held_out=HELD_OUT,
    )
    files = {"keras": file_entry(run.out / f"{NAME}.keras")}
    return save_card(card.model_copy(update={"files": files, "metrics": {"validation": chosen}}), run.out)


def validation_pairs(faces: Sequence[Answers], voices: Answers) -> list[Pairs]:
    """Return the pairs on which choices are made: every condition with one label, `PAIRINGS` times."""
    random = np.random.default_rng(0)
    return [
        make_pairs(part, voices, find_partners(part.labels, voices, random), condition)
        for part in faces
        for condition in CONDITIONS
        if condition.agree
        for _ in range(PAIRINGS)
    ]


def compare_methods(held: Sequence[Pairs], p: Float32) -> dict[str, dict[str, Any]]:
    """Return accuracy, calibration error and temperature of every rule and of the network's `p` (n, 7).

    A rule's temperature is fitted where there are two opinions, the only place where it has a say.
    """
    settings = FusionSettings()
    labels = np.concatenate([pairs.labels[:, 0] for pairs in held])
    both = np.concatenate([pairs.both for pairs in held])
    found = {}
    for method in RULES:
        plain = np.concatenate([fuse_by_rule(pairs, method, settings, temperature=1.0) for pairs in held])
        found[method] = _figures(plain, labels) | {"temperature": fit_temperature(plain[both], labels[both])}
    found["network"] = _figures(p, labels) | {"temperature": fit_temperature(p, labels)}
    return found


def face_shares(faces: Sequence[Answers]) -> Float32:
    """Return how often each face (n,) is drawn: posed ones make up `POSED_SHARE`."""
    *wild, posed = faces
    count = sum(map(len, wild))
    each = [np.full(len(part), (1 - POSED_SHARE) / count) for part in wild]
    return np.concatenate([*each, np.full(len(posed), POSED_SHARE / len(posed))]).astype(np.float32)


def _figures(p: Float32, labels: Labels) -> dict[str, Any]:
    return {
        "n": int(labels.size),
        "accuracy": round(float(np.mean(predictions(p) == labels)), 4),
        "ece": round(calibration_error(p, labels), 4),
    }


def _answers(run: Run, part: Part) -> tuple[list[Answers], Answers]:
    """Ask about faces, by the votes and posed, and voices of one part."""
    notes: list[str] = []
    directory = artifacts_directory()
    by_votes, _, posed = face_answers(run.data, directory, part, notes=notes, bar=run.bar)
    voices = voice_answers(run.data, directory, part, notes=notes, bar=run.bar)
    for note in notes:
        run.report(note)
    if not (len(by_votes) and len(posed) and len(voices)):
        raise DataError(f"{NAME}: no example for {part}; complete the data sets")
    return [by_votes, posed], voices
