"""New faces are matched to lost tracks by distance, each track once."""

from __future__ import annotations

import numpy as np

from edge.face.detector import FaceDetector
from edge.face.tracking import FaceTracker, match_faces
from edge.values import Face, Frame, UInt8

S = 1_000_000_000


def face(x: float, y: float = 0.0, size: float = 100.0) -> Face:
    """Return a face with this box."""
    return Face((x, y, size, size), 1.0)


def test_face_takes_the_nearest_lost_track() -> None:
    """Of two tracks in reach the nearer one matches; one box size away is out of reach."""
    assert match_faces([face(50)], {1: face(0), 2: face(60)}) == [2]
    assert match_faces([face(99)], {1: face(0)}) == [1]
    assert match_faces([face(100)], {1: face(0)}) == [None]


def test_track_is_matched_once() -> None:
    """Of two faces near one track, the first takes it and the other one is new."""
    assert match_faces([face(10), face(20)], {1: face(0)}) == [1, None]
    assert match_faces([face(10), face(20)], {1: face(0), 2: face(90)}) == [1, 2]


def test_change_of_size_counts_as_distance() -> None:
    """A face three times as large at the same place is another person."""
    assert match_faces([face(-100, -100, 300)], {1: face(0)}) == [None]
    assert match_faces([], {1: face(0)}) == []


class Boxes:
    """A detector that returns the boxes of a script, one list a call."""

    name = "boxes"

    def __init__(self, *script: list[Face]) -> None:
        self._script = list(script)

    def detect(self, pixels: UInt8) -> list[Face]:  # noqa: ARG002 - of the protocol
        """Return the next list."""
        return self._script.pop(0)


def test_face_that_returns_keeps_its_number() -> None:
    """Within `keep_s` a face gets its old number; after that it is a new person."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    script: dict[float, list[Face]] = {0: [face(0)], 1: [], 1.5: [face(10)], 3: [], 3.1: [], 4.1: [face(10)]}
    tracker = FaceTracker(FaceDetector(Boxes(*script.values()), None), keep_s=1.5)
    frames = (Frame(pixels, round(t_s * S)) for t_s in script)
    assert [[found.track for found in tracker.update(frame)] for frame in frames] == [
        [1],
        [],
        [1],
        [],
        [],
        [2],
    ]
