"""Tracks faces from frame to frame: each person keeps a number, and detection runs once a second only.

Between detections the face mesh of each track finds its face again, at a quarter of the cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.face.detector import FaceDetector, is_same_face
from edge.values import Face, Frame

DETECT_EVERY_S = 1.0
KEEP_S = 1.5
# In box sizes, as `_distance` returns it.
MAX_MATCH_DISTANCE = 1.0  # between a lost track and a new face
MAX_FRAME_DISTANCE = 0.7  # of one face between two frames


@dataclass(slots=True)
class _Track:
    face: Face
    seen_ns: int


class FaceTracker:
    """Gives each face in view a stable number; a face hidden for less than `keep_s` keeps it."""

    def __init__(
        self, detector: FaceDetector, *, detect_every_s: float = DETECT_EVERY_S, keep_s: float = KEEP_S
    ) -> None:
        self._detector = detector
        self._detect_every_ns = int(detect_every_s * 1e9)
        self._keep_ns = int(keep_s * 1e9)
        self._tracks: dict[int, _Track] = {}
        self._next = 1
        self._detected_ns: int | None = None

    def update(self, frame: Frame) -> list[Face]:
        """Return the faces in `frame`, each with its `track`; frames must come in time order."""
        now = frame.t_ns
        visible = self._refind(frame)
        due = self._detected_ns is None or now - self._detected_ns >= self._detect_every_ns
        if due or len(visible) < len(self._tracks):
            self._detected_ns = now
            self._detect(frame, visible)
        for face in visible.values():
            self._tracks[face.track] = _Track(face, now)
        self._tracks = {n: track for n, track in self._tracks.items() if now - track.seen_ns <= self._keep_ns}
        return list(visible.values())

    def _refind(self, frame: Frame) -> dict[int, Face]:
        """Find the tracked faces again without detection; of two tracks on one face the older one stays."""
        if self._detector.landmarker is None:
            # Without landmarks, boxes stay where they are until the next detection.
            detected_ns = self._detected_ns or 0
            if frame.t_ns - detected_ns >= self._detect_every_ns:
                return {}
            return {n: track.face for n, track in self._tracks.items() if track.seen_ns >= detected_ns}
        visible: dict[int, Face] = {}
        for number, track in sorted(self._tracks.items()):
            for face in self._detector.refine(frame.pixels, [track.face]):
                if _is_plausible(track.face, face) and not _is_among(face, visible.values()):
                    visible[number] = face
        return visible

    def _detect(self, frame: Frame, visible: dict[int, Face]) -> None:
        """Add the faces that detection finds beside the `visible` ones, each with its old or a new number."""
        detected = self._detector.detector.detect(frame.pixels)
        found = [face for face in detected if not _is_among(face, visible.values())]
        new: list[Face] = []
        for face in self._detector.refine(frame.pixels, found):
            if not _is_among(face, (*visible.values(), *new)):
                new.append(face)
        lost = {number: track.face for number, track in self._tracks.items() if number not in visible}
        for face, matched in zip(new, match_faces(new, lost), strict=True):
            number = matched
            if number is None:
                number, self._next = self._next, self._next + 1
            visible[number] = replace(face, track=number)


def match_faces(faces: Sequence[Face], lost: Mapping[int, Face]) -> list[int | None]:
    """Match each face to a lost track, by number; None is a new person.

    In the order of `faces`, each takes the nearest track that is left and at most `MAX_MATCH_DISTANCE` away.
    """
    left = dict(lost)
    matches: list[int | None] = []
    for face in faces:
        near = [(_distance(last, face), number) for number, last in left.items()]
        near = [(distance, number) for distance, number in near if distance < MAX_MATCH_DISTANCE]
        number = min(near)[1] if near else None
        if number is not None:
            del left[number]
        matches.append(number)
    return matches


def _is_among(face: Face, others: Iterable[Face]) -> bool:
    return any(is_same_face(face, other) for other in others)


def _distance(a: Face, b: Face) -> float:
    """Return the distance between two boxes in box sizes; a change of size adds to it."""
    (x, y, w, h), (u, v, s, t) = a.box_px, b.box_px
    size = (w + h + s + t) / 4
    moved = float(np.hypot(x + w / 2 - u - s / 2, y + h / 2 - v - t / 2)) / max(size, 1.0)
    return moved + abs(float(np.log(max(s + t, 1.0) / max(w + h, 1.0))))


def _is_plausible(before: Face, after: Face) -> bool:
    """Return whether a face can move so far in one frame; otherwise its landmarks drifted off the face."""
    return _distance(before, after) < MAX_FRAME_DISTANCE
