"""Runs eye and mouth models on faces and clips through the landmarks, as on the device, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.face.detector import open_face_detector
from edge.face.tracking import FaceTracker
from edge.sources.media_files import read_video_frames
from edge.values import Face, UInt8
from models.data.datasets import DataError, find_set, load_ckplus_sequences, load_jaffe
from models.data.face_crops import grey_to_rgb
from models.evaluation.show import percent
from models.run import Bar

FACES = ("jaffe", "ckplus_sequences")
CLIPS = ("talking/*.mpg", "faces/*.mp4", "faces/*.avi")
EVERY_S = 0.04  # of a clip
# Returns the probability of a state for a face in an image (h, w, 3), None if it is uncertain.
Classify = Callable[[UInt8, Face], float | None]


def predict_photographs(
    classify: Classify, data: Path, notes: list[str], bar: Bar
) -> dict[str, dict[str, Any]]:
    """Return figures of predictions for photographed faces, by data set; the people look into the camera."""
    found: dict[str, dict[str, Any]] = {}
    detector = open_face_detector()
    for name in FACES:
        try:
            directory = find_set(data, name)
            faces = load_jaffe(directory) if name == "jaffe" else load_ckplus_sequences(directory)
        except DataError as error:
            notes.append(str(error))
            continue
        with bar(f"running on {name}") as progress:
            p = []
            for i, image in enumerate(faces.images):
                pixels = grey_to_rgb(image)
                p += [classify(pixels, face) for face in detector.detect(pixels)[:1]]
                progress(i + 1, len(faces))
        found[name] = _summary(p)
    return found


def predict_clips(classify: Classify, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
    """Return figures of predictions for the frames of each clip, and number and maximum length of runs."""
    try:
        media = find_set(data, "talking").parent
    except DataError as error:
        notes.append(str(error))
        return {}
    detector = open_face_detector()
    found: dict[str, dict[str, Any]] = {}
    files = [path for pattern in CLIPS for path in sorted(media.glob(pattern))]
    with bar("running on clips") as progress:
        for done, path in enumerate(files, start=1):
            tracker = FaceTracker(detector)
            p: list[float | None] = []
            times_ns: list[int] = []
            try:
                for frame in read_video_frames(path, EVERY_S):
                    p += [classify(frame.pixels, face) for face in tracker.update(frame)[:1]]
                    times_ns.append(frame.t_ns)
            except MediaError as error:
                notes.append(str(error))
            progress(done, len(files))
            if len(times_ns) < 2:
                continue
            runs = run_lengths_ms(p, float(np.median(np.diff(times_ns))) / 1e6)
            longest = round(max(runs, default=0.0))
            found[path.name] = _summary(p) | {"runs": len(runs), "longest_ms": longest}
    return found


def run_lengths_ms(p: Sequence[float | None], step_ms: float) -> list[float]:
    """Return the length in ms of each run of frames with a probability over 0.5."""
    runs = groupby(p, lambda value: (value or 0) > 0.5)
    return [step_ms * sum(1 for _ in run) for is_so, run in runs if is_so]


def share(hits: NDArray[np.bool_]) -> float:
    """Return the share of true elements, 0..1; 0 for an empty array."""
    return round(float(np.mean(hits)), 4) if hits.size else 0.0


def cells_of(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return n, the share over 0.5 and the share of uncertain predictions as cells in per cent."""
    return str(found["n"]), percent(found["share"]), percent(found["unsure"])


def _summary(p: Sequence[float | None]) -> dict[str, Any]:
    certain = np.array([value for value in p if value is not None])
    return {
        "n": len(p),
        "unsure": round(1 - certain.size / max(1, len(p)), 4),
        "share": share(certain > 0.5) if certain.size else None,
    }
