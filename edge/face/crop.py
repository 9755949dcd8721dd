"""Cuts crops out of images as the models read them: grey, in [0, 1], without aliasing, levelled.

Training and evaluation use the same code.
"""

from __future__ import annotations

import cv2
import numpy as np

from edge.face.landmarks import Anchors, face_anchors
from edge.inference.features import CropSpec
from edge.values import Face, Float32, UInt8

LEVEL_DEVIATION = 0.2  # of levelled crops in [0, 1]; fer2013's own median is 0.21


def cut_grey(pixels: UInt8, forward: Float32, scale: float, out: Float32) -> None:
    """Cut what `forward` (2, 3) maps from `pixels` (h, w, 3) onto `out` (h, w, 1), in [0, 1].

    `scale` is the smallest scale of the map, in crop pixels per image pixel.
    """
    height, width = out.shape[:2]
    # Cut a large region larger and average it down: bilinear sampling alone would alias.
    factor = int(np.clip(np.ceil(1 / scale), 1, 4))
    cut = cv2.warpAffine(
        pixels,
        forward * factor,
        (width * factor, height * factor),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    grey = cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY)
    if factor > 1:
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    np.multiply(grey[..., None], np.float32(1 / 255), out=out, casting="unsafe")


def level(crop: Float32) -> None:
    """Set the mean of a crop to 0.5 and its standard deviation to 0.2, in place, clipped to [0, 1].

    A crop of uniform grey becomes 0.5 everywhere.
    """
    deviation = max(float(crop.std()), 1e-3)
    crop -= crop.mean()
    crop *= np.float32(LEVEL_DEVIATION / deviation)
    crop += np.float32(0.5)
    np.clip(crop, 0, 1, out=crop)


# Positions of eyes and mouth in fer2013: medians of 1,082 training faces in which the face mesh finds them;
# ckplus48 is within 0.01. The images of both sets are OpenCV's Haar boxes.
FER_CROP = CropSpec(size=48, eyes=((0.3125, 0.395), (0.6875, 0.395)), mouth_y=0.765, levelled=False)


class FaceCropper:
    """Cuts faces out of frames, upright and scaled as in training; reuses its buffers."""

    def __init__(self, spec: CropSpec) -> None:
        self._spec = spec
        self._crop = np.empty((spec.size, spec.size, 1), np.float32)

    def crop(self, pixels: UInt8, face: Face) -> Float32:
        """Return (size, size, 1) float32 in [0, 1]; valid until the next call."""
        forward, scale = _alignment(face_anchors(face), self._spec)
        cut_grey(pixels, forward, scale, self._crop)
        if self._spec.levelled:
            level(self._crop)
        return self._crop

    def quality(self, face: Face) -> float:
        """Return the quality 0..1 of the crop of this face: its score, its size, and how frontal it is."""
        anchors = face_anchors(face)
        _, scale = _alignment(anchors, self._spec)
        size = min(1.0, 1 / scale)  # below 1 the crop is enlarged from fewer pixels
        return float(np.clip(face.score * size * _frontality(anchors, self._spec), 0, 1))


def _alignment(anchors: Anchors, spec: CropSpec) -> tuple[Float32, float]:
    """Return the (2, 3) similarity from image to crop, and its scale in crop pixels per image pixel.

    The eyes determine position and angle. The longer of eye distance and eye-to-mouth distance, relative to
    the spec, determines the scale, so that a turned face (eyes closer) or a bowed one is not enlarged.
    """
    (lx, ly), (rx, ry) = spec.eyes
    target = np.array([(lx + rx) / 2, (ly + ry) / 2]) * spec.size
    across = anchors.right_eye - anchors.left_eye
    length = max(float(np.hypot(*across)), 1.0)
    cos, sin = float(across[0]) / length, float(across[1]) / length
    centre = (anchors.left_eye + anchors.right_eye) / 2
    scale = (rx - lx) * spec.size / length
    if anchors.mouth is not None:
        down = max(float(np.hypot(*(anchors.mouth - centre))), 1.0)
        scale = min(scale, (spec.mouth_y - (ly + ry) / 2) * spec.size / down)
    a, b = scale * cos, scale * sin
    matrix = np.array([[a, b, 0.0], [-b, a, 0.0]], np.float32)
    matrix[:, 2] = target - matrix[:, :2] @ centre
    return matrix, scale


def _frontality(anchors: Anchors, spec: CropSpec) -> float:
    """Return eye distance over eye-to-mouth distance, relative to the spec: 1 frontal, near 0 in profile."""
    if anchors.mouth is None:
        return 1.0
    (lx, ly), (rx, ry) = spec.eyes
    expected = (rx - lx) / (spec.mouth_y - (ly + ry) / 2)
    across = float(np.hypot(*(anchors.right_eye - anchors.left_eye)))
    down = float(np.hypot(*(anchors.mouth - (anchors.left_eye + anchors.right_eye) / 2)))
    return min(1.0, across / max(down, 1.0) / expected)
