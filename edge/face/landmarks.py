"""Landmarks: indices into the 468 points of the face mesh, and the eyes and mouth of any face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.values import Face, Float32

MESH_POINTS = 468
# Corners of the eyes and of the mouth among the 468 points; "left" is left in the image.
LEFT_EYE, RIGHT_EYE, MOUTH = (33, 133), (362, 263), (61, 291)


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """The points that place a crop: centres of the eyes and of the mouth, (2,) float32 pixels each."""

    left_eye: Float32
    right_eye: Float32
    mouth: Float32 | None = None


def face_anchors(face: Face) -> Anchors:
    """Return eyes and mouth of a face from 468 or 6 landmarks; without landmarks, the eyes from the box."""
    points = face.landmarks
    if points is not None and len(points) == MESH_POINTS:
        left, right, mouth = (points[list(corners)].mean(0) for corners in (LEFT_EYE, RIGHT_EYE, MOUTH))
        return Anchors(left, right, mouth)
    if points is not None:
        return Anchors(points[0], points[1], points[3])
    x, y, w, h = face.box_px
    # Position of the eyes in the box of the Haar cascade: median of the training faces of fer2013.
    at = [np.array([x + fx * w, y + fy * h], np.float32) for fx, fy in ((0.307, 0.395), (0.683, 0.395))]
    return Anchors(at[0], at[1])
