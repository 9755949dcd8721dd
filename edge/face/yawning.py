"""Tells a mouth that yawns from one that smiles, speaks or is shut, from the crop that its lips fill.

One picture cannot tell a yawn from a shout: whoever uses this asks for seconds of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import ModelError
from edge.face.crop import cut_grey, level
from edge.inference.card import TfliteClassifier
from edge.values import Face, Float32, UInt8

# The outer edge of both lips among the 468 points.
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185,
)  # fmt: skip
LEFT, RIGHT = LIPS.index(61), LIPS.index(291)
SMALLEST_PX = 12.0  # width of a mouth; below, teeth and lips are one blot
CENTRAL = 0.9  # of the lips' box; this part must lie inside the picture


@dataclass(frozen=True, slots=True)
class MouthSpec:
    """The crop that a mouth model reads: height and width in pixels, which the lips fill."""

    height: int
    width: int

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> MouthSpec:
        """Read a card's `input.features`; raise `ModelError` for an unknown kind."""
        if features.get("kind") != "lips_box":
            raise ModelError(
                f"input.features.kind {features.get('kind')!r}: unknown mouth features; "
                "update emotion-edge or choose another models.mouth"
            )
        return cls(int(features["height"]), int(features["width"]))

    def to_features(self) -> dict[str, Any]:
        """Return what `from_features` reads, for a card."""
        return {"kind": "lips_box", "height": self.height, "width": self.width}


class YawnClassifier:
    """Judges the mouth of a face; one thread at a time. `ModelError` tells of a model of something else."""

    def __init__(self, classifier: TfliteClassifier) -> None:
        self.classifier = classifier
        spec = MouthSpec.from_features(classifier.card.input.features)
        self._crop = np.empty((spec.height, spec.width, 1), np.float32)

    def yawning(self, pixels: UInt8, face: Face) -> float | None:
        """Return the probability 0..1 that the mouth is as open as in a yawn; None where it is not seen."""
        if not cut_mouth(pixels, face, self._crop):
            return None
        return float(self.classifier.classify(self._crop)[1])


def cut_mouth(pixels: UInt8, face: Face, out: Float32) -> bool:
    """Cut the box of the lips, upright, out of `pixels` (h, w, 3) into `out` (h, w, 1), levelled, in [0, 1].

    Returns False where there are no 468 landmarks, or the mouth is tiny or not in the picture.
    """
    points = face.landmarks
    if points is None or len(points) != 468:
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
