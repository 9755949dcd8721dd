"""Measures the eye model: on eyes of people whom the asked file never saw, and through the landmarks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.card import TfliteClassifier, load_card, open_classifier
from edge.demo import clip_path
from edge.errors import MediaError
from edge.eyestate import EyeReader, EyeSpec
from edge.faces import FaceFinder, open_face_finder
from edge.media import read_video_frames
from edge.tracking import FaceTracker
from edge.values import Float32, UInt8
from models.datasets import DataError, find_set, load_ckplus_sequences, load_jaffe
from models.evaluate import VARIANTS, load_family
from models.eye_state import CLOSED, HIDDEN, OPEN, as_input, hide_eye
from models.eyesets import PatchSet, load_cew, load_mrl
from models.measures import Measured, Table
from models.metrics import Labels, intervals_95, uar
from models.targets import Target
from models.testsets import Bar, Family

NAME = "eye-state"
LOADERS = {"cew": load_cew, "mrl": load_mrl}
TRAITS = ("glasses", "reflections", "light", "sensor", "gender")
SEEN = ("jaffe", "ckplus_sequences")
CLIPS = ("talking/*.mpg", "faces/*.mp4", "faces/*.avi")
HIDE_SEED = 3
LATENCY_RUNS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the files say of a set: `p` (n, 3) a variant, and of the same eyes (n, 3) behind something, int8."""

    eyes: PatchSet
    p: Mapping[str, Float32]
    behind: Float32


def measure_eyes(data: Path, directory: Path, bar: Bar) -> Measured:
    """Return accuracy by set and light, what is called hidden, size and time, and faces and clips."""
    family = load_family(NAME, directory)
    spec = EyeSpec.from_features(family.card.input.features)
    notes: list[str] = []
    sets: dict[str, dict[str, Any]] = {}
    for name in LOADERS:
        try:
            answers = _ask(name, family, data, directory, notes, bar)
        except DataError as error:
            notes.append(str(error))
            continue
        sets[name] = figures_of_set(answers, spec.hidden)
    reader = EyeReader(open_classifier(NAME, task="eyes", directory=directory))
    faces, clips = _faces(reader, data, notes, bar), _clips(reader, data, notes, bar)
    if not sets and not faces and not clips:
        raise DataError(f"{NAME}: nothing to measure it on in {data}: {'; '.join(notes)}")
    size_kb = family.card.files["int8"].bytes / 1000
    both_ms = time_reader(reader)
    figures = {
        "sets": sets,
        "faces": faces,
        "clips": clips,
        "int8_kb": size_kb,
        "both_eyes_ms": both_ms,
    }
    return Measured(figures, list(_tables(sets, faces, clips)), _targets(sets, size_kb, both_ms), notes)


def figures_of_set(answers: Answers, limit: float) -> dict[str, Any]:
    """Return the figures of one set; an eye counts as right whether or not it is also called hidden."""
    eyes = answers.eyes
    figures: dict[str, Any] = {"n": len(eyes), "people": len(set(eyes.people))}
    for variant, p in answers.p.items():
        said = np.where(p[:, OPEN] > p[:, CLOSED], OPEN, CLOSED)
        accuracy, _ = intervals_95(said, eyes.labels, eyes.people)
        is_sure = p[:, HIDDEN] < limit
        figures[variant] = {
            "accuracy": _share(said == eyes.labels),
            "interval_95_people": accuracy,
            "uar": round(uar(said, eyes.labels), 4),
            "unsure": _share(~is_sure),
            "accuracy_where_sure": _share((said == eyes.labels)[is_sure]),
            "open_called_closed": _share((said == CLOSED)[eyes.labels == OPEN]),
            "closed_called_open": _share((said == OPEN)[eyes.labels == CLOSED]),
        }
    said = np.where(answers.p["int8"][:, OPEN] > answers.p["int8"][:, CLOSED], OPEN, CLOSED)
    figures["hidden_found"] = _share(answers.behind[:, HIDDEN] >= limit)
    figures["parts"] = dict(_parts(eyes, said))
    return figures


def time_reader(reader: EyeReader) -> float:
    """Return the median time in ms for both eyes of a face, crops included, on one thread of this machine."""
    pixels = next(frame.pixels for frame in read_video_frames(clip_path(), 0.5))
    face, *_ = open_face_finder().find(pixels)
    times = []
    for _ in range(LATENCY_RUNS):
        before = time.perf_counter()
        reader.each(pixels, face)
        times.append(time.perf_counter() - before)
    return round(1000 * float(np.median(times)), 3)


def runs_of(closed: Sequence[float | None], step_ms: float) -> list[float]:
    """Return how long each run of frames with shut eyes (p > 0.5) lasted in ms."""
    return [
        step_ms * sum(1 for _ in run)
        for is_closed, run in groupby(closed, lambda p: (p or 0) > 0.5)
        if is_closed
    ]


def _ask(name: str, family: Family, data: Path, directory: Path, notes: list[str], bar: Bar) -> Answers:
    """Ask every eye of the fold model that never saw its owner; who chose the model is left out."""
    with bar(f"reading {name}") as progress:
        eyes = LOADERS[name](find_set(data, name), progress=progress)
    notes += eyes.notes
    owner = family.fold_of_people(name, notes)
    eyes = eyes.take([i for i, person in enumerate(eyes.people) if person in owner])
    if not len(eyes):
        raise DataError(f"{name}: no person in it is held out by a fold model of {NAME}")
    askers = np.array([owner[person] for person in eyes.people])
    random = np.random.default_rng(HIDE_SEED)
    size = family.card.input.shape[1]
    behind = as_input([hide_eye(image, size, random) for image in eyes.images], size)
    p: dict[str, Float32] = {}
    for variant in (v for v in VARIANTS if all(v in card.files for card in family.folds)):
        files = [_open(card.name, directory / "folds", variant) for card in family.folds]
        with bar(f"{name} {variant}") as progress:
            p[variant] = _classify(files, askers - 1, as_input(eyes.images, size), progress)
            if variant == "int8":
                hidden = _classify(files, askers - 1, behind, progress)
    if "int8" not in p:
        raise DataError(f"{name}: the fold models of {NAME} have no int8 file; convert them")
    return Answers(eyes, p, hidden)


def _open(name: str, directory: Path, variant: str) -> TfliteClassifier:
    return open_classifier(
        name, task=load_card(name, directory=directory).task, directory=directory, variant=variant
    )


def _classify(files: Sequence[TfliteClassifier], askers: Labels, inputs: Float32, progress: Any) -> Float32:
    p = np.zeros((len(inputs), 3), np.float32)
    for i, features in enumerate(inputs):
        p[i] = files[int(askers[i])].classify(features)
        progress(i + 1, len(inputs))
    return p


def _parts(eyes: PatchSet, said: Labels) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give n and accuracy by glasses, light and so on, where the set says them."""
    for trait in TRAITS:
        words = np.array([traits.get(trait, "") for traits in eyes.traits])
        for word in sorted(set(words) - {""}):
            inside = words == word
            accuracy, _ = intervals_95(
                said[inside], eyes.labels[inside], [eyes.people[i] for i in np.flatnonzero(inside)]
            )
            yield (
                str(word),
                {
                    "n": int(inside.sum()),
                    "accuracy": _share((said == eyes.labels)[inside]),
                    "interval_95_people": accuracy,
                },
            )


def _faces(reader: EyeReader, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
    """Read faces that look at the camera through the landmarks: hardly one of them has its eyes shut."""
    found: dict[str, dict[str, Any]] = {}
    finder = open_face_finder()
    for name in SEEN:
        try:
            directory = find_set(data, name)
            faces = load_jaffe(directory) if name == "jaffe" else load_ckplus_sequences(directory)
        except DataError as error:
            notes.append(str(error))
            continue
        with bar(f"reading eyes of {name}") as progress:
            said = []
            for i, image in enumerate(faces.images):
                said += _read_face(
                    reader, finder, np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2))
                )
                progress(i + 1, len(faces))
        found[name] = _told(said)
    return found


def _read_face(reader: EyeReader, finder: FaceFinder, pixels: UInt8) -> list[float | None]:
    return [reader.closed(pixels, face) for face in finder.find(pixels)[:1]]


def _clips(reader: EyeReader, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
    """Read every frame of the clips: how often the eyes are shut, and for how long at a time."""
    try:
        media = find_set(data, "talking").parent
    except DataError as error:
        notes.append(str(error))
        return {}
    finder = open_face_finder()
    found: dict[str, dict[str, Any]] = {}
    files = [path for pattern in CLIPS for path in sorted(media.glob(pattern))]
    with bar("reading eyes of clips") as progress:
        for done, path in enumerate(files, start=1):
            tracker = FaceTracker(finder)
            said: list[float | None] = []
            times_ns: list[int] = []
            try:
                for frame in read_video_frames(path, 0.04):
                    said += [reader.closed(frame.pixels, face) for face in tracker.update(frame)[:1]]
                    times_ns.append(frame.t_ns)
            except MediaError as error:
                notes.append(str(error))
            progress(done, len(files))
            if len(times_ns) < 2:
                continue
            step_ms = float(np.median(np.diff(times_ns))) / 1e6
            runs = runs_of(said, step_ms)
            longest = round(max(runs, default=0.0))
            found[path.name] = _told(said) | {"runs": len(runs), "longest_ms": longest}
    return found


def _told(said: Sequence[float | None]) -> dict[str, Any]:
    told = np.array([p for p in said if p is not None])
    return {
        "n": len(said),
        "unsure": round(1 - told.size / max(1, len(said)), 4),
        "closed": _share(told > 0.5) if told.size else None,
    }


def _targets(sets: Mapping[str, Any], size_kb: float, both_ms: float) -> list[dict[str, Any]]:
    rows = []
    for name in LOADERS:
        values = [(name, 100 * sets[name]["int8"]["accuracy"])] if name in sets else []
        rows.append(Target(f"accuracy on {name}", "%", ">=", 95).judge(values))
    differences = [
        (name, 100 * abs(found["int8"]["accuracy"] - found["float16"]["accuracy"]))
        for name, found in sets.items()
        if "float16" in found
    ]
    rows.append(Target("int8 against float16", "points", "<=", 0.5).judge(differences))
    glasses = [("mrl", 100 * sets["mrl"]["parts"]["glasses"]["accuracy"])] if _has_glasses(sets) else []
    rows.append(Target("accuracy with glasses, infrared", "%", ">=", 95).judge(glasses))
    rows.append(
        Target("hidden eyes called hidden", "%", ">=", 95).judge(
            [(name, 100 * found["hidden_found"]) for name, found in sets.items()]
        )
    )
    rows.append(Target("size of the int8 file", "kB", "<", 150).judge([("int8", size_kb)]))
    rows.append(Target("time for both eyes, one core", "ms", "<", 1).judge([("int8", both_ms)]))
    return rows


def _has_glasses(sets: Mapping[str, Any]) -> bool:
    return "mrl" in sets and "glasses" in sets["mrl"]["parts"]


def _tables(sets: Mapping[str, Any], faces: Mapping[str, Any], clips: Mapping[str, Any]) -> Iterator[Table]:
    rows = [
        (
            name,
            variant,
            str(found["n"]),
            str(found["people"]),
            _percent(found[variant]["accuracy"]),
            "-".join(_percent(v) for v in found[variant]["interval_95_people"]),
            _percent(found[variant]["unsure"]),
            _percent(found[variant]["accuracy_where_sure"]),
            _percent(found["hidden_found"]) if variant == "int8" else "-",
        )
        for name, found in sets.items()
        for variant in VARIANTS
        if variant in found
    ]
    heads = ("data set", "variant", "n", "people", "accuracy %", "people 95 %", "unsure %", "where sure %")
    yield Table("people never seen", (*heads, "hidden found %"), tuple(rows))
    rows_of_parts = [
        (name, part, str(f["n"]), _percent(f["accuracy"]), "-".join(map(_percent, f["interval_95_people"])))
        for name, found in sets.items()
        for part, f in found["parts"].items()
    ]
    yield Table(
        "glasses, light, sensor (int8)",
        ("data set", "part", "n", "accuracy %", "people 95 %"),
        tuple(rows_of_parts),
    )
    yield Table(
        "faces with open eyes, through the landmarks",
        ("data set", "n", "called closed %", "unsure %"),
        tuple((name, str(f["n"]), _percent(f["closed"]), _percent(f["unsure"])) for name, f in faces.items()),
    )
    yield Table(
        "clips, frame by frame",
        ("file", "n", "closed %", "unsure %", "times shut", "longest ms"),
        tuple(
            (
                name,
                str(f["n"]),
                _percent(f["closed"]),
                _percent(f["unsure"]),
                str(f["runs"]),
                str(f["longest_ms"]),
            )
            for name, f in clips.items()
        ),
    )


def _share(hits: NDArray[np.bool_]) -> float:
    return round(float(np.mean(hits)), 4) if hits.size else 0.0


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
