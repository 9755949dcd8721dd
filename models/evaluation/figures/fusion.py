"""Measures every fusion method on held-out faces paired with held-out voices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.people.pooling import RULES, break_ties
from edge.settings import FusionSettings, ModelSettings
from edge.values import Float32
from models.evaluation.measures import Measured, Table
from models.evaluation.targets import Target
from models.metrics import Interval, calibration_error, predicted_classes
from models.run import Bar
from models.training.fusion_pairs import CONDITIONS, Condition, Pairs, find_partners, fuse_by_rule, make_pairs
from models.training.fusion_predictions import (
    PredictionSet,
    median_quality,
    predict_faces,
    predict_voices,
)

PAIRINGS = 20
RESAMPLED = 25  # bootstrap samples of the people for each pairing
SINGLES = ("face alone", "voice alone")
GAIN = Target("gain over the better one, both clean", "points", ">=", 5)
LOSS = Target("loss against the better one, any condition", "points", "<=", 1)
ECE = Target("calibration error (ECE), any condition", "", "<=", 0.05)

Method = Callable[[Pairs], Float32]


@dataclass(frozen=True, slots=True)
class Score:
    """Result of one method in one condition over all pairings.

    `won` are the shares of predictions with the label of the face and of the voice. `ece` is None if these
    labels differ.
    """

    accuracy: float
    over_pairings: Interval
    over_people: Interval
    ece: float | None
    won: tuple[float, float]


Scores = Mapping[str, Mapping[str, Score]]  # by method, then by condition


def measure_fusion(data: Path, directory: Path, bar: Bar) -> Measured:
    """Pair test faces and test voices `PAIRINGS` times and measure all rules and the multimodal model.

    If the labels of a pair differ, either is right.
    """
    notes = [
        "no data set here has image and audio of one recording: held-out faces are paired by label with "
        f"held-out voices, {PAIRINGS} times",
        "disagreeing: either label is right",
        "FER2013's own labels and the majority of the votes differ on the same images, so no model can be "
        "calibrated for both; fusion is trained on the votes",
        "a covered face has the same quality as an uncovered one; only the prediction differs",
    ]
    faces = predict_faces(data, directory, "test", notes=notes, bar=bar)
    voices = predict_voices(data, directory, "test", notes=notes, bar=bar)
    name = ModelSettings().fusion
    network = open_classifier(name, task="multimodal", directory=directory, backend="cpu")
    methods = _methods(network)
    found = {part.name: score_set(part, voices, methods, bar) for part in faces}
    counts = {part.name: len(part) for part in faces}
    figures = {name: figures_of(scores) for name, scores in found.items()}
    cards = {
        f"{part}, {condition}": {"int8": {"n": counts[part], **values}}
        for part, methods_of_part in figures.items()
        for condition, values in methods_of_part["network"].items()
    }
    default = FusionSettings().method
    return Measured(
        {
            "default": default,
            "pairings": PAIRINGS,
            "speakers": sorted(set(voices.people.tolist())),
            "n": counts,
            "sets": figures,
            "quality": {part.name: median_quality(part) for part in (*faces, voices)},
        },
        [table for name, scores in found.items() for table in tables_of(name, scores)],
        targets_of(found, default),
        notes,
        {name: cards},
    )


def score_set(
    faces: PredictionSet, voices: PredictionSet, methods: Mapping[str, Method], bar: Bar
) -> dict[str, dict[str, Score]]:
    """Pair all faces with voices `PAIRINGS` times; return the score of every method and condition."""
    results: dict[tuple[str, str], list[tuple[Pairs, Float32]]] = {}
    with bar(f"{faces.name}, paired") as progress:
        for number in range(PAIRINGS):
            partners = {
                agree: find_partners(
                    faces.labels, voices, np.random.default_rng([number, agree]), agree=agree
                )
                for agree in (True, False)
            }
            for condition in CONDITIONS:
                pairs = make_pairs(faces, voices, partners[condition.agree], condition)
                for method, fuse in methods.items():
                    results.setdefault((method, condition.name), []).append((pairs, fuse(pairs)))
            progress(number + 1, PAIRINGS)
    return {method: {c.name: _score(results[method, c.name], c) for c in CONDITIONS} for method in methods}


def figures_of(scores: Scores) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the figures of every method and condition."""
    return {
        method: {
            name: {
                "accuracy": round(score.accuracy, 4),
                "interval_95_pairings": score.over_pairings,
                "interval_95_people": score.over_people,
                "ece": None if score.ece is None else round(score.ece, 4),
                "minus_better_single": round(score.accuracy - better_single(scores, name), 4),
            }
            | {"face_wins": round(score.won[0], 4), "voice_wins": round(score.won[1], 4)}
            for name, score in conditions.items()
        }
        for method, conditions in scores.items()
    }


def better_single(scores: Scores, condition: str) -> float:
    """Return the accuracy of the better of face and voice alone."""
    return max(scores[single][condition].accuracy for single in SINGLES)


def tables_of(name: str, scores: Scores) -> list[Table]:
    """Return tables of accuracy, intervals, calibration error, and the winner if labels differ."""
    heads = ("method", *(condition.name for condition in CONDITIONS))

    def cells(of: Callable[[Score], str]) -> tuple[tuple[str, ...], ...]:
        return tuple((method, *(of(row[c.name]) for c in CONDITIONS)) for method, row in scores.items())

    def percent(interval: Interval) -> str:
        return f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"

    won = tuple(
        (method, *(f"{100 * share:.1f}" for share in (*row[c.name].won, 1 - sum(row[c.name].won))))
        for method, row in scores.items()
        for c in CONDITIONS
        if not c.agree
    )
    return [
        Table(
            f"{name}, accuracy % and its 95 % over pairings",
            heads,
            cells(lambda score: f"{100 * score.accuracy:.1f} {percent(score.over_pairings)}"),
        ),
        Table(f"{name}, 95 % over people", heads, cells(lambda score: percent(score.over_people))),
        Table(f"{name}, ECE", heads, cells(lambda score: "-" if score.ece is None else f"{score.ece:.3f}")),
        Table(f"{name}, disagreeing: who wins, %", ("method", "face", "voice", "neither"), won),
    ]


def targets_of(found: Mapping[str, Scores], default: str) -> list[Mapping[str, Any]]:
    """Compare the default method with the targets on each set."""
    rows: list[Mapping[str, Any]] = []
    for name, scores in found.items():
        gain, loss, ece = [], [], []
        for condition in CONDITIONS:
            score, where = scores[default][condition.name], condition.name
            over = 100 * (score.accuracy - better_single(scores, condition.name))
            if condition == CONDITIONS[0]:
                gain.append((where, over))
            loss.append((where, -over))
            if score.ece is not None:
                ece.append((where, score.ece))
        compared = ((GAIN, gain), (LOSS, loss), (ECE, ece))
        rows += [
            replace(target, name=f"{name}: {target.name}").compare(values) for target, values in compared
        ]
    return rows


def _methods(network: TfliteClassifier) -> dict[str, Method]:
    settings = FusionSettings()

    def rule(method: str) -> Method:
        return lambda pairs: fuse_by_rule(pairs, method, settings)

    def by_network(pairs: Pairs) -> Float32:
        p = np.stack([network.classify(features) for features in pairs.features()])
        p = break_ties(p, pairs.p)
        return np.asarray(p * pairs.is_present.max(axis=1)[:, None], np.float32)

    singles = {single: _single(side) for side, single in enumerate(SINGLES)}
    return singles | {method: rule(method) for method in RULES} | {"network": by_network}


def _single(side: int) -> Method:
    return lambda pairs: pairs.p[:, side]


def _score(results: Sequence[tuple[Pairs, Float32]], condition: Condition) -> Score:
    hits_of = [predicted_classes(p)[:, None] == pairs.labels for pairs, p in results]  # (n, 2) each
    right = [hits.max(axis=1) for hits in hits_of]
    p = np.concatenate([p for _, p in results])
    labels = np.concatenate([pairs.labels[:, 0] for pairs, _ in results])
    face, voice = np.concatenate(hits_of).mean(axis=0)
    return Score(
        float(np.mean(right)),
        _percentiles(np.mean(right, axis=1)),
        _over_people(right, [pairs.people for pairs, _ in results]),
        calibration_error(p, labels) if condition.agree else None,
        (float(face), float(voice)),
    )


def _over_people(right: Sequence[NDArray[np.bool_]], people: Sequence[NDArray[np.str_]]) -> Interval:
    """Return the 95 % bootstrap interval of the accuracy, resampling faces and speakers independently.

    The weight of a pair is the product of the counts of its face and speaker (Owen 2007, "The pigeonhole
    bootstrap"); each pairing is resampled `RESAMPLED` times.
    """
    random = np.random.default_rng(0)
    found = []
    for hits, who in zip(right, people, strict=True):
        units = [np.unique(who[:, side], return_inverse=True)[1] for side in (0, 1)]
        for _ in range(RESAMPLED):
            weight = np.ones(len(hits))
            for which in units:
                count = which.max() + 1
                weight *= np.bincount(random.integers(count, size=count), minlength=count)[which]
            if weight.any():
                found.append(float(np.average(hits, weights=weight)))
    return _percentiles(np.array(found))


def _percentiles(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]
