"""Watches faces and clips through the landmarks, as the device does; nobody labelled what eyes do there."""

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
from models.evaluation.show import percent
from models.run import Bar

FACES = ("jaffe", "ckplus_sequences")
CLIPS = ("talking/*.mpg", "faces/*.mp4", "faces/*.avi")
EVERY_S = 0.04  # of a clip
# Says how probable it is that a face in a picture (h, w, 3) does something, None where it cannot be told.
Read = Callable[[UInt8, Face], float | None]


def predict_photographs(read: Read, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
    """Return what is said of photographed faces, by set; people in them look at the camera."""
    found: dict[str, dict[str, Any]] = {}
    detector = open_face_detector()
    for name in FACES:
        try:
            directory = find_set(data, name)
            faces = load_jaffe(directory) if name == "jaffe" else load_ckplus_sequences(directory)
        except DataError as error:
            notes.append(str(error))
            continue
        with bar(f"watching {name}") as progress:
            said = []
            for i, image in enumerate(faces.images):
                pixels = np.ascontiguousarray(np.repeat(image[..., np.newaxis], 3, axis=2))
                said += [read(pixels, face) for face in detector.detect(pixels)[:1]]
                progress(i + 1, len(faces))
        found[name] = _told(said)
    return found


def predict_clips(read: Read, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
    """Return what is said of every frame of each clip, how often it began, and how long it lasted at most."""
    try:
        media = find_set(data, "talking").parent
    except DataError as error:
        notes.append(str(error))
        return {}
    detector = open_face_detector()
    found: dict[str, dict[str, Any]] = {}
    files = [path for pattern in CLIPS for path in sorted(media.glob(pattern))]
    with bar("watching clips") as progress:
        for done, path in enumerate(files, start=1):
            tracker = FaceTracker(detector)
            said: list[float | None] = []
            times_ns: list[int] = []
            try:
                for frame in read_video_frames(path, EVERY_S):
                    said += [read(frame.pixels, face) for face in tracker.update(frame)[:1]]
                    times_ns.append(frame.t_ns)
            except MediaError as error:
                notes.append(str(error))
            progress(done, len(files))
            if len(times_ns) < 2:
                continue
            runs = run_lengths_ms(said, float(np.median(np.diff(times_ns))) / 1e6)
            longest = round(max(runs, default=0.0))
            found[path.name] = _told(said) | {"runs": len(runs), "longest_ms": longest}
    return found


def run_lengths_ms(said: Sequence[float | None], step_ms: float) -> list[float]:
    """Return how long each run of frames with a probability over one half lasted in ms."""
    runs = groupby(said, lambda p: (p or 0) > 0.5)
    return [step_ms * sum(1 for _ in run) for is_so, run in runs if is_so]


def share(hits: NDArray[np.bool_]) -> float:
    """Return how many of (n,) are true, 0..1; 0 of none."""
    return round(float(np.mean(hits)), 4) if hits.size else 0.0


def cells_of(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return n, the share over one half and the share that was not told, as cells in per cent."""
    return str(found["n"]), percent(found["share"]), percent(found["unsure"])


def _told(said: Sequence[float | None]) -> dict[str, Any]:
    told = np.array([p for p in said if p is not None])
    return {
        "n": len(said),
        "unsure": round(1 - told.size / max(1, len(said)), 4),
        "share": share(told > 0.5) if told.size else None,
    }
