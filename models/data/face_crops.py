"""Crops training faces as the device crops them for the shipped face model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edge.face.crop import FER_CROP, FaceCropper, level
from edge.face.detector import FaceDetector
from edge.inference.features import CropSpec
from edge.values import Face, Float32, UInt8

# The device crops tighter than FER2013 does. At this factor the base model, trained on FER2013 alone,
# recognised 75 % of the peaks of ckplus_sequences; 68 % at 1.0; 76 % at 1.15, with less margin on one side.
CLOSER = 1.08
CROP = CropSpec(
    size=FER_CROP.size,
    eyes=tuple((0.5 + CLOSER * (x - 0.5), 0.5 + CLOSER * (y - 0.5)) for x, y in FER_CROP.eyes),  # type: ignore[arg-type]
    mouth_y=0.5 + CLOSER * (FER_CROP.mouth_y - 0.5),
    levelled=True,
)
UNLEVELLED = CROP.model_copy(update={"levelled": False})
CROP_SHAPE = (CROP.size, CROP.size, 1)


def as_input(images: UInt8) -> Float32:
    """Return crops (n, 48, 48) uint8 as input of the face model: (n, 48, 48, 1) float32, levelled."""
    values = np.asarray(images[..., np.newaxis] / np.float32(255), dtype=np.float32)
    for crop in values:
        level(crop)
    return values


def grey_to_rgb(image: UInt8) -> UInt8:
    """Return a grey image (h, w) as (h, w, 3) with equal channels, as the detector needs it."""
    return np.ascontiguousarray(np.repeat(image[..., np.newaxis], 3, axis=2))


def largest_face(faces: Iterable[Face]) -> Face | None:
    """Return the face with the largest box, None if there is none."""
    return max(faces, key=lambda face: face.box_px[2] * face.box_px[3], default=None)


def crop_largest(image: UInt8, detector: FaceDetector, cropper: FaceCropper) -> UInt8 | None:
    """Return the crop (48, 48) uint8 of the largest face in a grey image (h, w), None if none is found."""
    pixels = grey_to_rgb(image)
    largest = largest_face(detector.detect(pixels))
    if largest is None:
        return None
    return np.rint(cropper.crop(pixels, largest)[..., 0] * 255).astype(np.uint8)
