"""The probability that the eyes of a face are closed, from a crop of each eye.

One eye is enough. An eye that is turned away, too small, outside the image, covered or behind dark glasses is
left out.
"""

from __future__ import annotations

import numpy as np

from edge.face.crop import cut_grey, level
from edge.face.landmarks import LEFT_EYE, MESH_POINTS, MOUTH, RIGHT_EYE
from edge.inference.classifier import TfliteClassifier
from edge.inference.features import EyeSpec
from edge.values import Face, Float32, UInt8

SMALLEST_PX = 10.0  # width of an eye; lids and iris of a smaller one cannot be separated
FLATTEST = 0.015  # standard deviation of a crop in [0, 1]; the flattest of 10,245 real eyes has 0.020
# Width of the far eye of a turned head, relative to the near eye: 0.58 at 45 degrees for eye sockets that are
# turned outwards by 15 degrees, which is usual.
FAR_EYE = 0.6
# Width of the near eye, relative to the distance from eyes to mouth: 0.43 in a frontal face, half in profile.
PROFILE_EYE = 0.22
CENTRAL = 0.7  # of the crop's side; this part must lie inside the image


class EyeStateClassifier:
    """Classifies both eyes of a face; one thread at a time. `ModelError`: the model reads something else."""

    def __init__(self, classifier: TfliteClassifier) -> None:
        self.classifier = classifier
        self._spec = classifier.card.spec(EyeSpec)
        self._crop = np.empty((self._spec.size, self._spec.size, 1), np.float32)

    def p_closed(self, pixels: UInt8, face: Face) -> float | None:
        """Return the probability 0..1 that the eyes of `face` are closed; None where no eye is visible."""
        visible = [p for p in self.p_closed_each(pixels, face) if p is not None]
        return sum(visible) / len(visible) if visible else None

    def p_closed_each(self, pixels: UInt8, face: Face) -> tuple[float | None, float | None]:
        """Return the probability for the eye on the left of the image (h, w, 3), and for the other one."""
        left, right = visible_eyes(face)
        return self._classify(pixels, left), self._classify(pixels, right)

    def _classify(self, pixels: UInt8, corners: Float32 | None) -> float | None:
        if corners is None or not cut_eye(pixels, corners, self._spec.width, self._crop):
            return None
        closed, opened, hidden = self.classifier.classify(self._crop)
        if hidden >= self._spec.hidden:
            return None
        return float(closed / (closed + opened))


def visible_eyes(face: Face) -> tuple[Float32 | None, Float32 | None]:
    """Return the corners (2, 2) of the left and of the right eye in pixels, left corner first.

    An eye that is too small or turned away is None; both are None where there are no 468 landmarks.
    """
    points = face.landmarks
    if points is None or len(points) != MESH_POINTS:
        return None, None
    eyes = [points[list(corners)] for corners in (LEFT_EYE, RIGHT_EYE)]  # (2, 2) each
    widths = [float(np.hypot(*(eye[1] - eye[0]))) for eye in eyes]
    down = float(np.hypot(*(points[list(MOUTH)].mean(axis=0) - np.concatenate(eyes).mean(axis=0))))
    least = max(SMALLEST_PX, FAR_EYE * max(widths), PROFILE_EYE * down)
    left, right = (eye if width >= least else None for eye, width in zip(eyes, widths, strict=True))
    return left, right


def cut_eye(pixels: UInt8, corners: Float32, width: float, out: Float32) -> bool:
    """Cut an eye upright out of `pixels` (h, w, 3) into `out` (size, size, 1), levelled, in [0, 1].

    The line between the `corners` (2, 2) becomes horizontal, centred, and `width` of the side long. Returns
    False where the eye is not inside the image or the crop has no contrast; `out` is then undefined.
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
