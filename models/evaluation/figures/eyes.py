"""Measures the eye model on eyes of held-out people, and on faces and clips through the landmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.face.detector import open_face_detector
from edge.face.eyes import EyeStateClassifier
from edge.inference.classifier import open_classifier
from edge.inference.features import EyeSpec
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from edge.values import Float32
from models.data.datasets import DataError, find_set
from models.data.eye_sets import CLOSED, OPEN, PatchSet, load_cew, load_mrl
from models.evaluation.figures.clip_predictions import predict_clips, predict_photographs, share
from models.evaluation.figures.eye_tables import tables_of
from models.evaluation.figures.held_out_patches import held_out_patches, predict_with_folds
from models.evaluation.measures import Measured, metrics_of
from models.evaluation.targets import Target
from models.family import Family, load_family
from models.metrics import Labels, intervals_95, uar
from models.recipes.eye_state import HIDDEN, as_input
from models.run import Bar
from models.training.eye_augmentation import occlude_eye

NAME = "eye-state"
LOADERS = {"cew": load_cew, "mrl": load_mrl}
TRAITS = ("glasses", "reflections", "light", "sensor", "gender")
HIDE_SEED = 3
LATENCY_RUNS = 200


@dataclass(frozen=True, slots=True, eq=False)
class EyePredictions:
    """Predictions `p` (n, 3) of each variant, and `occluded` (n, 3) of int8 for the same eyes hidden."""

    eyes: PatchSet
    p: Mapping[str, Float32]
    occluded: Float32


def measure_eyes(data: Path, directory: Path, bar: Bar) -> Measured:
    """Return accuracy by data set and attribute, detection of hidden eyes, size, time, faces and clips."""
    family = load_family(NAME, directory)
    spec = family.card.spec(EyeSpec)
    notes: list[str] = []
    sets: dict[str, dict[str, Any]] = {}
    for name in LOADERS:
        try:
            predictions = _predict(name, family, data, directory, notes, bar)
        except DataError as error:
            notes.append(str(error))
            continue
        sets[name] = figures_of_set(predictions, spec.hidden)
    classifier = EyeStateClassifier(open_classifier(NAME, task="eyes", directory=directory))
    faces, clips = (
        predict_photographs(classifier.p_closed, data, notes, bar),
        predict_clips(classifier.p_closed, data, notes, bar),
    )
    if not sets and not faces and not clips:
        raise DataError(f"{NAME}: no data to measure it on in {data}: {'; '.join(notes)}")
    size_kb = family.card.files["int8"].bytes / 1000
    both_ms = time_classifier(classifier)
    figures = {
        "sets": sets,
        "faces": faces,
        "clips": clips,
        "int8_kb": size_kb,
        "both_eyes_ms": both_ms,
    }
    return Measured(
        figures,
        list(tables_of(sets, faces, clips)),
        _targets(sets, size_kb, both_ms),
        notes,
        {NAME: metrics_of(sets)},
    )


def figures_of_set(predictions: EyePredictions, limit: float) -> dict[str, Any]:
    """Return the figures of one set; an eye counts as right even if it is also classified as hidden."""
    eyes = predictions.eyes
    figures: dict[str, Any] = {"n": len(eyes), "people": len(set(eyes.people))}
    for variant, p in predictions.p.items():
        predicted = np.where(p[:, OPEN] > p[:, CLOSED], OPEN, CLOSED)
        accuracy, _ = intervals_95(predicted, eyes.labels, eyes.people)
        is_sure = p[:, HIDDEN] < limit
        figures[variant] = {
            "accuracy": share(predicted == eyes.labels),
            "interval_95_people": accuracy,
            "uar": round(uar(predicted, eyes.labels), 4),
            "unsure": share(~is_sure),
            "accuracy_where_sure": share((predicted == eyes.labels)[is_sure]),
            "open_called_closed": share((predicted == CLOSED)[eyes.labels == OPEN]),
            "closed_called_open": share((predicted == OPEN)[eyes.labels == CLOSED]),
        }
    predicted = np.where(predictions.p["int8"][:, OPEN] > predictions.p["int8"][:, CLOSED], OPEN, CLOSED)
    figures["hidden_found"] = share(predictions.occluded[:, HIDDEN] >= limit)
    figures["parts"] = dict(_parts(eyes, predicted))
    return figures


def time_classifier(classifier: EyeStateClassifier) -> float:
    """Return the median time in ms for both eyes of a face with crops, on one thread of this machine."""
    pixels = next(frame.pixels for frame in read_video_frames(clip_path(), 0.5))
    face, *_ = open_face_detector().detect(pixels)
    times = []
    for _ in range(LATENCY_RUNS):
        before = time.perf_counter()
        classifier.p_closed_each(pixels, face)
        times.append(time.perf_counter() - before)
    return round(1000 * float(np.median(times)), 3)


def _predict(
    name: str, family: Family, data: Path, directory: Path, notes: list[str], bar: Bar
) -> EyePredictions:
    """Predict every eye, visible and hidden, with the fold model that holds out its person."""
    with bar(f"reading {name}") as progress:
        eyes = LOADERS[name](find_set(data, name), progress=progress)
    notes += eyes.notes
    held_out = held_out_patches(family, name, eyes, notes)
    random = np.random.default_rng(HIDE_SEED)
    size = family.card.input.shape[1]
    occluded = as_input([occlude_eye(image, size, random) for image in held_out.patches.images], size)
    p = predict_with_folds(family, directory, held_out, as_input(held_out.patches.images, size), bar=bar)
    return EyePredictions(
        held_out.patches, p, predict_with_folds(family, directory, held_out, occluded, bar=bar)["int8"]
    )


def _parts(eyes: PatchSet, predicted: Labels) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield n and accuracy for each value of the attributes of the set, such as glasses and light."""
    for trait in TRAITS:
        words = np.array([traits.get(trait, "") for traits in eyes.traits])
        for word in sorted(set(words) - {""}):
            inside = words == word
            accuracy, _ = intervals_95(
                predicted[inside], eyes.labels[inside], [eyes.people[i] for i in np.flatnonzero(inside)]
            )
            yield (
                str(word),
                {
                    "n": int(inside.sum()),
                    "accuracy": share((predicted == eyes.labels)[inside]),
                    "interval_95_people": accuracy,
                },
            )


def _targets(sets: Mapping[str, Any], size_kb: float, both_ms: float) -> list[dict[str, Any]]:
    rows = []
    for name in LOADERS:
        values = [(name, 100 * sets[name]["int8"]["accuracy"])] if name in sets else []
        rows.append(Target(f"accuracy on {name}", "%", ">=", 95).compare(values))
    differences = [
        (name, 100 * abs(found["int8"]["accuracy"] - found["float16"]["accuracy"]))
        for name, found in sets.items()
        if "float16" in found
    ]
    rows.append(Target("int8 against float16", "points", "<=", 0.5).compare(differences))
    glasses = [("mrl", 100 * sets["mrl"]["parts"]["glasses"]["accuracy"])] if _has_glasses(sets) else []
    rows.append(Target("accuracy with glasses, infrared", "%", ">=", 95).compare(glasses))
    rows.append(
        Target("hidden eyes called hidden", "%", ">=", 95).compare(
            [(name, 100 * found["hidden_found"]) for name, found in sets.items()]
        )
    )
    rows.append(Target("size of the int8 file", "kB", "<", 150).compare([("int8", size_kb)]))
    rows.append(Target("time for both eyes, one core", "ms", "<", 1).compare([("int8", both_ms)]))
    return rows


def _has_glasses(sets: Mapping[str, Any]) -> bool:
    return "mrl" in sets and "glasses" in sets["mrl"]["parts"]
