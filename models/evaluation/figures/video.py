"""Measures the video models on held-out people: accuracy at the peak, earliness in the onset, stability.

CK+'s sequences are predicted by the fold models that hold out their people, JAFFE and the clips by the
shipped models. `image-mean` is the mean of the face model over all frames of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.face.detector import open_face_detector
from edge.inference.card import Card, load_card
from edge.inference.weights import DETECTOR, LANDMARKS, find_weights
from edge.values import Float32
from models.data.datasets import IMAGE_SUFFIXES, DataError, find_set, label_of
from models.evaluation.evaluate import latency_ms
from models.evaluation.figures.onsets import (
    METHODS,
    OnsetPredictions,
    VisualModels,
    label_changes,
    open_visual_models,
    predict_ckplus_onset,
    predict_jaffe_ramps,
)
from models.evaluation.measures import Measured, Table
from models.evaluation.targets import Target
from models.family import find_folds
from models.metrics import RESAMPLES
from models.run import Bar

CLIP_STEP_S = 0.1
SIZE = Target("size of the int8 file", "kB", "<", 300)
TIME = Target("time of a face and step, one core", "ms", "<", 1)
CLIPS = (".mp4", ".avi", ".mkv", ".mov", ".mpg")


def measure_video(data: Path, directory: Path, bar: Bar) -> Measured:
    """Measure on CK+'s sequences, JAFFE and clips; raise `DataError` if `data` has none of them."""
    if find_weights(DETECTOR) is None or find_weights(LANDMARKS) is None:
        raise DataError("video: not measured without the detector weights; run `emotion-models fetch`")
    notes: list[str] = []
    figures: dict[str, Any] = {}
    tables: list[Table] = []
    shipped = open_visual_models(directory)
    onsets = {
        "ckplus-sequences": _ckplus(data, directory, notes, bar),
        "jaffe-ramps": _jaffe(data, shipped, notes, bar),
    }
    for name, predictions in onsets.items():
        if predictions:
            figures[name] = onset_figures(predictions)
            tables.append(_onset_table(name, figures[name]))
    if clips := _clips(data, shipped, notes, bar):
        figures["clips"] = clips
        tables.append(_clip_table(clips))
    if not figures:
        raise DataError(f"video: no data to measure it on in {data}: {'; '.join(notes)}")
    if ramps := onsets["jaffe-ramps"]:
        exact = _jaffe(data, open_visual_models(directory, variant="float16"), [], bar)
        figures["int8_minus_float"] = _int8_minus_float(ramps, exact)
    figures["models"] = costs = {
        one.card.name: _cost(one.card, latency_ms(one)) for one in (shipped.video, shipped.network)
    }
    targets = [
        SIZE.compare([(name, cost["kb"]) for name, cost in costs.items()]),
        TIME.compare([(name, cost["ms"]) for name, cost in costs.items()]),
    ]
    sets = {name: figures[name] for name, predictions in onsets.items() if predictions}
    cards = {
        model: {name: {"int8": {"n": found["n"], **found["methods"][method]}} for name, found in sets.items()}
        for model, method in ((shipped.video.card.name, "video"), (shipped.network.card.name, "network"))
    }
    return Measured(figures, tables, targets, notes, cards)


def onset_figures(predictions: Sequence[OnsetPredictions]) -> dict[str, Any]:
    """Return for each method accuracy at the end with its 95 % interval over people, and earliness.

    `early` is the mean position 0..1 from which a sequence is right until its end, 1 if never.
    """
    labels = np.array([onset.label for onset in predictions])
    people = [onset.person for onset in predictions]
    found: dict[str, Any] = {"n": len(predictions), "people": len(set(people)), "methods": {}}
    means = np.stack([onset.p["image"].mean(axis=0) for onset in predictions])
    found["methods"]["image-mean"] = _accuracy(means.argmax(axis=1) == labels, people)
    for method in METHODS:
        last = np.array([onset.p[method][-1].argmax() for onset in predictions])
        starts = np.array([_right_from(onset.p[method], onset.way, onset.label) for onset in predictions])
        low, high = interval_over(people, starts)
        found["methods"][method] = _accuracy(last == labels, people) | {
            "early": round(float(starts.mean()), 4),
            "early_interval_95": [low, high],
        }
    return found


def interval_over(people: Sequence[str], values: NDArray[Any]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of `values` (n,), resampling whole people."""
    random = np.random.default_rng(0)
    names = sorted(set(people))
    sums = np.array([sum(values[i] for i, who in enumerate(people) if who == name) for name in names], float)
    counts = np.array([people.count(name) for name in names])
    drawn = random.integers(len(names), size=(RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _right_from(p: Float32, way: NDArray[np.float64], label: int) -> float:
    """Return the position from which `p` (k, 7) predicts `label` until the end; 1 if the end is wrong."""
    wrong = np.flatnonzero(p.argmax(axis=1) != label)
    first = 0 if not wrong.size else int(wrong[-1]) + 1
    return 1.0 if first == len(p) else float(way[first])


def _accuracy(right: NDArray[np.bool_], people: list[str]) -> dict[str, Any]:
    low, high = interval_over(people, right.astype(float))
    return {"accuracy": round(float(right.mean()), 4), "interval_95_people": [low, high]}


def _ckplus(data: Path, directory: Path, notes: list[str], bar: Bar) -> list[OnsetPredictions]:
    try:
        root = find_set(data, "ckplus_sequences")
    except DataError as error:
        notes.append(str(error))
        return []
    owner = {
        person: f"-fold{k}"
        for k, path in enumerate(find_folds("face-cnn", directory))
        for person in load_card(path.stem, directory=path.parent).held_out
    }
    found = {path.parent for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES}
    folders = sorted(folder for folder in found if label_of(folder.parent.name))
    detector, predictions, models_of = (
        open_face_detector(),
        list[OnsetPredictions](),
        dict[str, VisualModels](),
    )
    with bar("running on ckplus_sequences") as progress:
        for done, folder in enumerate(folders, start=1):
            suffix = owner.get(f"ckplus:{folder.name.split('_')[0]}")
            if suffix is None:
                notes.append(f"ckplus_sequences: {folder.name} is held out by no fold model; not measured")
                continue
            if suffix not in models_of:
                models_of[suffix] = open_visual_models(directory, suffix)
            one = predict_ckplus_onset(folder, models_of[suffix], detector)
            if one is None:
                notes.append(f"ckplus_sequences: no face found in {folder.name}; not measured")
            else:
                predictions.append(one)
            progress(done, len(folders))
    return predictions


def _jaffe(data: Path, models: VisualModels, notes: list[str], bar: Bar) -> list[OnsetPredictions]:
    try:
        root = find_set(data, "jaffe")
    except DataError as error:
        notes.append(str(error))
        return []
    with bar("blending jaffe") as progress:
        predictions = []
        for one in predict_jaffe_ramps(root, models, open_face_detector()):
            predictions.append(one)
            progress(len(predictions), 183)
    return predictions


def _clips(data: Path, models: VisualModels, notes: list[str], bar: Bar) -> dict[str, Any]:
    """Return label changes a minute by method, for each clip of `media/faces` and in total."""
    root = data / "media" / "faces"
    paths = sorted(path for path in root.glob("*") if path.suffix.lower() in CLIPS) if root.is_dir() else []
    if not paths:
        notes.append(f"{root}: no clips of faces; label changes are not measured")
        return {}
    result: dict[str, Any] = {}
    minutes, total = 0.0, dict.fromkeys(METHODS, 0)
    detector = open_face_detector()
    with bar("running on clips") as progress:
        for done, path in enumerate(paths, start=1):
            seen, changes = label_changes(path, models, detector, every_s=CLIP_STEP_S)
            if seen:
                result[path.name] = _a_minute(changes, seen)
            minutes += seen
            total = {method: total[method] + changes[method] for method in METHODS}
            progress(done, len(paths))
    return result | ({"all": _a_minute(total, minutes)} if minutes else {})


def _a_minute(changes: Mapping[Any, int], minutes: float) -> dict[str, float]:
    return {"minutes": round(minutes, 3)} | {name: round(n / minutes, 1) for name, n in changes.items()}


def _int8_minus_float(
    int8: Sequence[OnsetPredictions], float16: Sequence[OnsetPredictions]
) -> dict[str, float]:
    """Return the accuracy of the int8 minus the float16 models at the end of JAFFE's ramps, in points."""
    ours, theirs = onset_figures(int8)["methods"], onset_figures(float16)["methods"]
    return {
        method: round(100 * (ours[method]["accuracy"] - theirs[method]["accuracy"]), 2)
        for method in METHODS
        if method != "image"
    }


def _cost(card: Card, ms: float) -> dict[str, float]:
    return {"kb": card.files["int8"].bytes / 1000, "ms": ms}


def _onset_table(name: str, figures: Mapping[str, Any]) -> Table:
    rows = []
    for method, found in figures["methods"].items():
        low, high = (100 * bound for bound in found["interval_95_people"])
        early = f"{found['early']:.2f}" if "early" in found else "-"
        spread = "{:.2f}-{:.2f}".format(*found["early_interval_95"]) if "early" in found else "-"
        rows.append((method, f"{100 * found['accuracy']:.1f}", f"{low:.1f}-{high:.1f}", early, spread))
    title = f"{name}: {figures['n']} onsets of {figures['people']} people"
    heads = ("method", "right at the end %", "95 %, people", "right from", "95 %, people")
    return Table(title, heads, tuple(rows))


def _clip_table(clips: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [(name, *(f"{found[key]:g}" for key in ("minutes", *METHODS))) for name, found in clips.items()]
    return Table("label changes a minute, 10 pictures a second", ("clip", "minutes", *METHODS), tuple(rows))
