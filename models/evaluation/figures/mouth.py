"""Measures the mouth model on held-out clusters and people, and on clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.face.yawning import YawnClassifier
from edge.inference.classifier import open_classifier
from edge.values import Float32
from models.data.datasets import DataError, find_set
from models.data.eye_sets import STILL, YAWNING, PatchSet, load_yawns
from models.evaluation.figures.clip_predictions import cells_of, predict_clips, predict_photographs, share
from models.evaluation.figures.held_out_patches import held_out_patches, predict_with_folds
from models.evaluation.measures import Measured, Table, metrics_of
from models.evaluation.show import interval, percent
from models.evaluation.targets import Target
from models.family import load_family
from models.metrics import intervals_95
from models.recipes.mouth_state import as_input, ckplus_mouths
from models.run import Bar

NAME = "mouth-state"
YAWN_MS = 2000  # speech does not keep the mouth this open for this long
YAWN_PREFIX = "yawn"  # of the names of clips with a yawn


def measure_mouths(data: Path, directory: Path, bar: Bar) -> Measured:
    """Return accuracy by data set, and durations of mouths classified as yawning in clips and photographs."""
    family, notes = load_family(NAME, directory), list[str]()
    sets: dict[str, dict[str, Any]] = {}
    for name in ("yawn", "ckplus"):
        try:
            mouths = load_yawns(find_set(data, name)) if name == "yawn" else ckplus_mouths(data)
            notes += mouths.notes
            held_out = held_out_patches(family, name, mouths, notes)
            p = predict_with_folds(family, directory, held_out, as_input(held_out.patches.images), bar=bar)
        except DataError as error:
            notes.append(str(error))
            continue
        sets[name] = {"n": len(held_out.patches), "clusters": len(set(held_out.patches.people))} | {
            variant: _figures(probabilities, held_out.patches) for variant, probabilities in p.items()
        }
    classifier = YawnClassifier(open_classifier(NAME, task="mouth", directory=directory))
    faces = predict_photographs(classifier.p_yawning, data, notes, bar)
    clips = predict_clips(classifier.p_yawning, data, notes, bar)
    if not sets and not faces and not clips:
        raise DataError(f"{NAME}: no data to measure it on in {data}: {'; '.join(notes)}")
    size_kb = family.card.files["int8"].bytes / 1000
    figures = {"sets": sets, "faces": faces, "clips": clips, "int8_kb": size_kb}
    targets = _targets(clips, size_kb)
    return Measured(figures, _tables(sets, faces, clips), targets, notes, {NAME: metrics_of(sets)})


def _figures(p: Float32, mouths: PatchSet) -> dict[str, Any]:
    predicted = np.where(p[:, YAWNING] > 0.5, YAWNING, STILL)
    accuracy, _ = intervals_95(predicted, mouths.labels, mouths.people)
    return {
        "accuracy": share(predicted == mouths.labels),
        "interval_95_people": accuracy,
        "still_called_yawning": share((predicted == YAWNING)[mouths.labels == STILL]),
    }


def _targets(clips: dict[str, Any], size_kb: float) -> list[dict[str, Any]]:
    yawns = [(name, found["longest_ms"]) for name, found in clips.items() if name.startswith(YAWN_PREFIX)]
    others = [
        (name, found["longest_ms"]) for name, found in clips.items() if not name.startswith(YAWN_PREFIX)
    ]
    return [
        Target("yawn found: longest open mouth", "ms", ">=", YAWN_MS).compare(yawns),
        Target("no yawn found: longest open mouth", "ms", "<", YAWN_MS).compare(others),
        Target("size of the int8 file", "kB", "<", 150).compare([("int8", size_kb)]),
    ]


def _tables(sets: dict[str, Any], faces: dict[str, Any], clips: dict[str, Any]) -> list[Table]:
    rows = tuple(
        (
            name,
            variant,
            str(found["n"]),
            str(found["clusters"]),
            percent(found[variant]["accuracy"]),
            interval(found[variant]["interval_95_people"]),
            percent(found[variant]["still_called_yawning"]),
        )
        for name, found in sets.items()
        for variant in ("int8", "float16")
        if variant in found
    )
    heads = ("data set", "variant", "n", "clusters", "accuracy %", "clusters 95 %", "still called yawning %")
    return [
        Table("held-out clusters and people", heads, rows),
        Table(
            "photographed faces, through the landmarks",
            ("data set", "n", "yawning %", "unsure %"),
            tuple((name, *cells_of(found)) for name, found in faces.items()),
        ),
        Table(
            "clips, frame by frame",
            ("file", "n", "yawning %", "unsure %", "times open", "longest ms"),
            tuple(
                (name, *cells_of(found), str(found["runs"]), str(found["longest_ms"]))
                for name, found in clips.items()
            ),
        ),
    ]
