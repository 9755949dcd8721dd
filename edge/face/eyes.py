"""Tells whether the eyes of a face are closed, from crops that hang on the corners of each eye.

An eye that cannot be judged (turned away, too small, out of the picture, covered, behind dark glasses) says
nothing; one eye is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.errors import ModelError
from edge.face.crop import cut_grey, level
from edge.face.detector import LEFT_EYE, MOUTH, RIGHT_EYE
from edge.inference.card import TfliteClassifier
from edge.values import Face, Float32, UInt8

SMALLEST_PX = 10.0  # width of an eye; below, lids and iris are one blot
FLATTEST = 0.015  # standard deviation of a crop in [0, 1]; the flattest of 10,245 real eyes has 0.020
# The far eye of a turned head: its width against the other's is 0.58 at 45 degrees where the sockets look 15
# degrees outwards, as most do.
FAR_EYE = 0.6
# The near eye against the way from eyes to mouth: 0.43 in a face from the front, half of that in profile.
PROFILE_EYE = 0.22
CENTRAL = 0.7  # of the crop's side; this part must lie inside the picture


@dataclass(frozen=True, slots=True)
class EyeSpec:
    """The crop that an eye model reads: its side in pixels, and the share of it from corner to corner.

    An eye counts as hidden from the probability `hidden` on, which was chosen with the model.
    """

    size: int
    width: float
    hidden: float

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> EyeSpec:
        """Read a card's `input.features`; raise `ModelError` for an unknown kind."""
        if features.get("kind") != "eye_crop":
            raise ModelError(
                f"input.features.kind {features.get('kind')!r}: unknown eye features; "
                "update emotion-edge or choose another models.eyes"
            )
        return cls(int(features["size"]), float(features["width"]), float(features["hidden"]))

    def to_features(self) -> dict[str, Any]:
        """Return what `from_features` reads, for a card."""
        return {"kind": "eye_crop", "size": self.size, "width": self.width, "hidden": self.hidden}


class EyeStateClassifier:
    """Judges both eyes of a face; one thread at a time. `ModelError` tells of a model that reads no eyes."""

    def __init__(self, classifier: TfliteClassifier) -> None:
        self.classifier = classifier
        self._spec = EyeSpec.from_features(classifier.card.input.features)
        self._crop = np.empty((self._spec.size, self._spec.size, 1), np.float32)

    def closed(self, pixels: UInt8, face: Face) -> float | None:
        """Return the probability 0..1 that the eyes of `face` are closed; None where no eye can be judged."""
        told = [p for p in self.each(pixels, face) if p is not None]
        return sum(told) / len(told) if told else None

    def each(self, pixels: UInt8, face: Face) -> tuple[float | None, float | None]:
        """Return the same of the eye left in the picture (h, w, 3), and of the right one."""
        left, right = visible_eyes(face)
        return self._judge(pixels, left), self._judge(pixels, right)

    def _judge(self, pixels: UInt8, corners: Float32 | None) -> float | None:
        if corners is None or not cut_eye(pixels, corners, self._spec.width, self._crop):
            return None
        closed, opened, hidden = self.classifier.classify(self._crop)
        if hidden >= self._spec.hidden:
            return None
        return float(closed / (closed + opened))


def visible_eyes(face: Face) -> tuple[Float32 | None, Float32 | None]:
    """Return the corners (2, 2) of the left and of the right eye in pixels, left corner first.

    None stands for an eye that is too small or turned away, and for both where there are no 468 landmarks.
    """
    points = face.landmarks
    if points is None or len(points) != 468:
        return None, None
    eyes = [points[list(corners)] for corners in (LEFT_EYE, RIGHT_EYE)]  # (2, 2) each
    widths = [float(np.hypot(*(eye[1] - eye[0]))) for eye in eyes]
    down = float(np.hypot(*(points[list(MOUTH)].mean(axis=0) - np.concatenate(eyes).mean(axis=0))))
    least = max(SMALLEST_PX, FAR_EYE * max(widths), PROFILE_EYE * down)
    left, right = (eye if width >= least else None for eye, width in zip(eyes, widths, strict=True))
    return left, right


def cut_eye(pixels: UInt8, corners: Float32, width: float, out: Float32) -> bool:
    """Cut an eye upright out of `pixels` (h, w, 3) into `out` (size, size, 1), levelled, in [0, 1].

    The line between the `corners` (2, 2) becomes level and `width` of the side, its middle the centre.
    Returns False, and leaves something or other in `out`, where that is not in the picture or is flat.
    """
    size = out.shape[0]
    across = corners[1] - corners[0]
    length = float(np.hypot(*across))
    scale = width * size / length
    centre = corners.mean(axis=0)
    if not _is_inside(centre, CENTRAL * size / scale / 2, pixels.shape):
        return False
    a, b = scale * across / length
    matrix = np.array([[a, b, 0.0], [-b, a, 0.0]], np.float32)
    matrix[:, 2] = size / 2 - matrix[:, :2] @ centre
    cut_grey(pixels, matrix, scale, out)
    if float(out.std()) < FLATTEST:
        return False
    level(out)
    return True


def _is_inside(centre: Float32, reach: float, shape: tuple[int, ...]) -> bool:
    height, width = shape[:2]
    x, y = float(centre[0]), float(centre[1])
    return reach <= x <= width - reach and reach <= y <= height - reach
