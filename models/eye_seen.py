"""Reads the eyes of faces and clips through the landmarks, as the device does; nobody labelled these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.eyestate import EyeReader
from edge.faces import open_face_finder
from edge.media import read_video_frames
from edge.tracking import FaceTracker
from models.datasets import DataError, find_set, load_ckplus_sequences, load_jaffe
from models.testsets import Bar

FACES = ("jaffe", "ckplus_sequences")
CLIPS = ("talking/*.mpg", "faces/*.mp4", "faces/*.avi")
EVERY_S = 0.04  # of a clip


def read_faces(reader: EyeReader, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
    """Read faces that look at the camera through the landmarks: hardly one of them has its eyes shut."""
    found: dict[str, dict[str, Any]] = {}
    finder = open_face_finder()
    for name in FACES:
        try:
            directory = find_set(data, name)
            faces = load_jaffe(directory) if name == "jaffe" else load_ckplus_sequences(directory)
        except DataError as error:
            notes.append(str(error))
            continue
        with bar(f"reading eyes of {name}") as progress:
            said = []
            for i, image in enumerate(faces.images):
                pixels = np.ascontiguousarray(np.repeat(image[..., np.newaxis], 3, axis=2))
                said += [reader.closed(pixels, face) for face in finder.find(pixels)[:1]]
                progress(i + 1, len(faces))
        found[name] = _told(said)
    return found


def read_clips(reader: EyeReader, data: Path, notes: list[str], bar: Bar) -> dict[str, dict[str, Any]]:
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
                for frame in read_video_frames(path, EVERY_S):
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
        "closed": share(told > 0.5) if told.size else None,
    }


def runs_of(closed: Sequence[float | None], step_ms: float) -> list[float]:
    """Return how long each run of frames with shut eyes (p > 0.5) lasted in ms."""
    return [
        step_ms * sum(1 for _ in run)
        for is_closed, run in groupby(closed, lambda p: (p or 0) > 0.5)
        if is_closed
    ]


def share(hits: NDArray[np.bool_]) -> float:
    """Return how many of (n,) are true, 0..1; 0 of none."""
    return round(float(np.mean(hits)), 4) if hits.size else 0.0
