"""Follows faces from frame to frame, so that a person keeps a number and detection can be rare.

Between detections each known face is found again by its own landmarks, at a quarter of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge.face.detector import FaceDetector, is_same_face
from edge.values import Face, Frame

DETECT_EVERY_S = 1.0
KEEP_S = 1.5


@dataclass(slots=True)
class _Track:
    face: Face
    seen_ns: int


class FaceTracker:
    """Gives each face in view a stable number; a face hidden for less than `keep_s` keeps it."""

    def __init__(
        self, detector: FaceDetector, *, detect_every_s: float = DETECT_EVERY_S, keep_s: float = KEEP_S
    ) -> None:
        self._finder = detector
        self._detect_every_ns = int(detect_every_s * 1e9)
        self._keep_ns = int(keep_s * 1e9)
        self._tracks: dict[int, _Track] = {}
        self._next = 1
        self._detected_ns: int | None = None

    def update(self, frame: Frame) -> list[Face]:
        """Return the faces visible in `frame`, each with its `track`; frames must come in time order."""
        now = frame.t_ns
        visible = self._follow(frame)
        due = self._detected_ns is None or now - self._detected_ns >= self._detect_every_ns
        if due or len(visible) < len(self._tracks):
            self._detected_ns = now
            self._detect(frame, visible)
        for face in visible.values():
            self._tracks[face.track] = _Track(face, now)
        self._tracks = {n: track for n, track in self._tracks.items() if now - track.seen_ns <= self._keep_ns}
        return list(visible.values())

    def _follow(self, frame: Frame) -> dict[int, Face]:
        """Find the faces of the last frame again; two that fell onto one face leave the older number."""
        if self._finder.landmarker is None:
            # Boxes cannot be refined: they stand until the next detection.
            detected_ns = self._detected_ns or 0
            if frame.t_ns - detected_ns >= self._detect_every_ns:
                return {}
            return {n: track.face for n, track in self._tracks.items() if track.seen_ns >= detected_ns}
        visible: dict[int, Face] = {}
        for number, track in sorted(self._tracks.items()):
            for face in self._finder.refine(frame.pixels, [track.face]):
                if _is_plausible(track.face, face) and not any(
                    is_same_face(face, other) for other in visible.values()
                ):
                    visible[number] = face
        return visible

    def _detect(self, frame: Frame, visible: dict[int, Face]) -> None:
        found = [
            face
            for face in self._finder.detector.detect(frame.pixels)
            if not any(is_same_face(face, other) for other in visible.values())
        ]
        for face in self._finder.refine(frame.pixels, found):
            if any(is_same_face(face, other) for other in visible.values()):
                continue
            number = self._lost_near(face, visible)
            if number is None:
                number, self._next = self._next, self._next + 1
            visible[number] = replace(face, track=number)

    def _lost_near(self, face: Face, visible: dict[int, Face]) -> int | None:
        """Return the number of the nearest face that is out of view and could have moved here."""
        lost = [
            (_distance(track.face, face), number)
            for number, track in self._tracks.items()
            if number not in visible
        ]
        near = [(distance, number) for distance, number in lost if distance < 1.0]
        return min(near)[1] if near else None


def _distance(a: Face, b: Face) -> float:
    """Return how far apart two boxes are, in box sizes; a change of size counts as distance."""
    (x, y, w, h), (u, v, s, t) = a.box_px, b.box_px
    size = (w + h + s + t) / 4
    moved = float(np.hypot(x + w / 2 - u - s / 2, y + h / 2 - v - t / 2)) / max(size, 1.0)
    return moved + abs(float(np.log(max(s + t, 1.0) / max(w + h, 1.0))))


def _is_plausible(before: Face, after: Face) -> bool:
    """Tell whether a face could have moved so in one frame; landmarks may slide off onto the background."""
    return _distance(before, after) < 0.7
