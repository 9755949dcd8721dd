"""The multimodal model: a small network that learns how to weight face and voice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.card import Source, artifacts_directory
from edge.inference.features import FusionSpec
from edge.people.pooling import CLASSES, FEATURES, LOWEST, ORDER, RULES, soften_joint
from edge.settings import FusionSettings
from edge.values import Float32
from models.cards import draft_card, save_calibration, save_trained
from models.data.datasets import DataError
from models.data.speech import CORPORA, HELD_OUT, SPEECH_LICENCES, VALIDATION
from models.metrics import calibration_error, fit_temperature, predicted_classes
from models.run import Run
from models.training.epochs import Recipe, predict, run_epochs
from models.training.fusion_pairs import (
    CONDITIONS,
    Pairs,
    draw_pairs,
    exchange_labels,
    find_partners,
    fuse_by_rule,
    joined,
    make_pairs,
)
from models.training.fusion_predictions import Part, PredictionSet, predict_faces, predict_voices

NAME = "multimodal"
RECIPE = Recipe(stages=((30, 2e-3),), batch=256)
PAIRS_AN_EPOCH = 20_000
PAIRINGS = 3  # of the validation people
LABEL_SMOOTHING = 0.02
DISAGREEING = 0.3  # of the training pairs: different labels, of which either is right
POSED_SHARE = 0.3  # of the training faces; ckplus48 has fewer images than fer2013

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


def train_multimodal(run: Run) -> Path:
    """Train on predictions for people held out from both models, validate on others; return the card.

    The shipped models of the package make the predictions. Also writes inputs for the int8 calibration, and
    reports the validation accuracy of every fusion rule.
    """
    from models.recipes.multimodal_network import build, either_label_loss

    faces, voices = _predictions(run, "train")
    held = validation_pairs(*_predictions(run, "validation"))
    labels = np.concatenate([pairs.labels[:, 0] for pairs in held])
    one = np.concatenate([pairs.labels[:, 0] == pairs.labels[:, 1] for pairs in held])
    inputs = np.concatenate([pairs.features() for pairs in held])
    recipe = RECIPE.shortened(run.epochs)
    shares = face_shares(faces)
    everyone = joined(faces)

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        return _epoch(everyone, voices, shares, np.random.default_rng([recipe.seed, number]))

    def score(p: Float32) -> float:
        """Return accuracy minus calibration error."""
        return accuracy(p, held) - calibration_error(p[one], labels[one])

    model = run_epochs(
        build, epoch_of, inputs, score, name=NAME, recipe=recipe, run=run, loss=either_label_loss
    )
    some = draw_pairs(everyone, voices, 1000, np.random.default_rng(recipe.seed), shares=shares)
    save_calibration(run.out, NAME, some.features())
    p = predict(model, inputs)
    for method, figures in compare_methods(held, p).items():
        run.report(f"{method}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    card = draft_card(
        NAME,
        task="multimodal",
        shape=(1, len(ORDER) * FEATURES),
        value_range=(0.0, 1.0),
        features=FusionSpec(order=tuple(modality.value for modality in ORDER), lowest=LOWEST),
        temperature=fit_temperature(p[one], labels[one]),
        data=SOURCES,
        held_out=HELD_OUT,
    )
    return save_trained(run.out, card)


def validation_pairs(faces: Sequence[PredictionSet], voices: PredictionSet) -> list[Pairs]:
    """Return the validation pairs: every condition, `PAIRINGS` times."""
    random = np.random.default_rng(0)
    return [
        make_pairs(part, voices, find_partners(part.labels, voices, random, agree=condition.agree), condition)
        for part in faces
        for condition in CONDITIONS
        for _ in range(PAIRINGS)
    ]


def compare_methods(held: Sequence[Pairs], p: Float32) -> dict[str, dict[str, Any]]:
    """Return accuracy, calibration error and temperature of every rule and of the network's `p` (n, 7).

    The calibration error is that after temperature scaling. The temperature of a rule is fitted on pairs with
    both modalities, the only ones that it applies to.
    """
    settings = FusionSettings()
    labels = np.concatenate([pairs.labels[:, 0] for pairs in held])
    one = np.concatenate([pairs.labels[:, 0] == pairs.labels[:, 1] for pairs in held])
    both = one & np.concatenate([pairs.both for pairs in held])

    def figures(p: Float32, fitted: NDArray[np.bool_]) -> dict[str, Any]:
        temperature = fit_temperature(p[fitted], labels[fitted])
        softened = soften_joint(p[fitted].astype(np.float64), temperature).astype(np.float32)
        return {
            "n": int(labels.size),
            "accuracy": round(accuracy(p, held), 4),
            "ece": round(calibration_error(softened, labels[fitted]), 4),
            "temperature": temperature,
        }

    found = {}
    for method in RULES:
        plain = [fuse_by_rule(pairs, method, settings, temperature=1.0) for pairs in held]
        found[method] = figures(np.concatenate(plain), both)
    found["network"] = figures(p, one)
    return found


def accuracy(p: Float32, held: Sequence[Pairs]) -> float:
    """Return the accuracy of `p` (n, 7); if the labels of a pair differ, either is right."""
    labels = np.concatenate([pairs.labels for pairs in held])
    return float(np.mean((predicted_classes(p)[:, None] == labels).max(axis=1)))


def face_shares(faces: Sequence[PredictionSet]) -> Float32:
    """Return the sampling probability of each face (n,); posed ones are `POSED_SHARE` in total."""
    *wild, posed = faces
    count = sum(map(len, wild))
    each = [np.full(len(part), (1 - POSED_SHARE) / count) for part in wild]
    return np.concatenate([*each, np.full(len(posed), POSED_SHARE / len(posed))]).astype(np.float32)


def _epoch(
    faces: PredictionSet, voices: PredictionSet, shares: Float32, random: np.random.Generator
) -> tuple[Float32, Float32]:
    """Return inputs and targets of an epoch with randomly permuted classes: all are equally likely.

    The network thus cannot learn the class frequencies of a data set, and 500 voices give more examples.
    """
    count = round(DISAGREEING * PAIRS_AN_EPOCH)
    selected = faces.select(random.choice(len(faces), count, p=shares / shares.sum()))
    partners = find_partners(selected.labels, voices, random, agree=False)
    parts = [
        draw_pairs(faces, voices, PAIRS_AN_EPOCH - count, random, shares=shares),
        make_pairs(selected, voices, partners, next(c for c in CONDITIONS if not c.agree)),
    ]
    parts = [exchange_labels(pairs, random) for pairs in parts]
    hot = np.eye(CLASSES, dtype=np.float32)
    targets = np.concatenate([hot[pairs.labels].max(axis=1) for pairs in parts])
    order = random.permutation(len(targets))
    inputs = np.concatenate([pairs.features() for pairs in parts])
    smooth = (1 - LABEL_SMOOTHING) * targets[order] + LABEL_SMOOTHING / CLASSES
    return inputs[order], np.asarray(smooth, np.float32)


def _predictions(run: Run, part: Part) -> tuple[list[PredictionSet], PredictionSet]:
    """Predict the faces (labelled by votes, and posed) and voices of one part."""
    notes: list[str] = []
    directory = artifacts_directory()
    by_votes, _, posed = predict_faces(run.data, directory, part, notes=notes, bar=run.bar)
    voices = predict_voices(run.data, directory, part, notes=notes, bar=run.bar)
    for note in notes:
        run.report(note)
    if not (len(by_votes) and len(posed) and len(voices)):
        raise DataError(f"{NAME}: no example for {part}; complete the data sets")
    return [by_votes, posed], voices
