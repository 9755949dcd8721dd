"""The probability that a mouth is open as in a yawn, from the crop that its lips fill.

One frame cannot separate a yawn from a shout: `edge.people.gestures` requires seconds of it.
"""

from __future__ import annotations

import numpy as np

from edge.face.crop import cut_grey, level
from edge.face.landmarks import MESH_POINTS
from edge.inference.classifier import TfliteClassifier
from edge.inference.features import MouthSpec
from edge.values import Face, Float32, UInt8

# The outer edge of both lips among the 468 points.
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
LEFT, RIGHT = LIPS.index(61), LIPS.index(291)
SMALLEST_PX = 12.0  # width of a mouth; teeth and lips of a smaller one cannot be separated
CENTRAL = 0.9  # of the lips' box; this part must lie inside the image


class YawnClassifier:
    """Classifies the mouth of a face; one thread at a time. `ModelError`: the model reads something else."""

    def __init__(self, classifier: TfliteClassifier) -> None:
        self.classifier = classifier
        spec = classifier.card.spec(MouthSpec)
        self._crop = np.empty((spec.height, spec.width, 1), np.float32)

    def p_yawning(self, pixels: UInt8, face: Face) -> float | None:
        """Return the probability 0..1 that the mouth is open as in a yawn; None where it is not visible."""
        if not cut_mouth(pixels, face, self._crop):
            return None
        return float(self.classifier.classify(self._crop)[1])


def cut_mouth(pixels: UInt8, face: Face, out: Float32) -> bool:
    """Cut the box of the lips, upright, out of `pixels` (h, w, 3) into `out` (h, w, 1), levelled, in [0, 1].

    Returns False where there are no 468 landmarks, or where the mouth is too small or outside the image.
    """
    points = face.landmarks
    if points is None or len(points) != MESH_POINTS:
        return False
    lips = points[list(LIPS)]  # (20, 2)
    across = lips[RIGHT] - lips[LEFT]
    length = float(np.hypot(*across))
    if length < SMALLEST_PX:
        return False
    cos, sin = across / length
    turn = np.array([[cos, sin], [-sin, cos]], np.float32)
    level_lips = lips @ turn.T
    low, high = level_lips.min(axis=0), level_lips.max(axis=0)
    if not _is_inside(lips, pixels.shape):
        return False
    height, width = out.shape[:2]
    scale = np.array([width, height], np.float32) / np.maximum(high - low, 1.0)
    matrix = np.empty((2, 3), np.float32)
    matrix[:, :2] = scale[:, None] * turn
    matrix[:, 2] = -scale * low
    cut_grey(pixels, matrix, float(scale.min()), out)
    level(out)
    return True


def _is_inside(lips: Float32, shape: tuple[int, ...]) -> bool:
    centre = lips.mean(axis=0)
    near = centre + CENTRAL * (lips - centre)
    return bool((near >= 0).all() and (near <= (shape[1], shape[0])).all())
