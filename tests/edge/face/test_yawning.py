"""A gaping mouth of a drawn face is separated from a shut one at any size and tilt."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.errors import ModelError
from edge.face.landmarks import MOUTH
from edge.face.yawning import LIPS, YawnClassifier, cut_mouth
from edge.inference.classifier import open_classifier
from edge.values import Face, Float32, UInt8
from tests.helpers.drawn_eyes import SKIN


@pytest.fixture(scope="module")
def classifier() -> YawnClassifier:
    """The shipped model."""
    return YawnClassifier(open_classifier("mouth-state", task="mouth"))


def draw_mouth(*, opening: float, width: float = 60.0) -> tuple[UInt8, Face]:
    """Return an image (240, 320, 3) of a mouth, `opening` over its width, and the landmarks of its lips."""
    big = 4  # drawn larger and averaged down, as a lens does
    drawn = np.full((240 * big, 320 * big, 3), SKIN, np.uint8)
    centre, wide = (160 * big, 120 * big), width * big
    high = width * (0.36 + opening) / 2
    cv2.ellipse(drawn, centre, (round(wide / 2), round(high * big)), 0, 0, 360, (172, 108, 100), -1)
    gap = (round(0.4 * wide), round(opening * wide / 2))
    cv2.ellipse(drawn, centre, gap, 0, 0, 360, (38, 14, 16), -1)
    if opening > 0.3:
        teeth = (round(0.3 * wide), round(0.08 * wide))
        cv2.ellipse(
            drawn, (centre[0], centre[1] - round(0.8 * gap[1])), teeth, 0, 0, 180, (225, 222, 210), -1
        )
    pixels = cv2.resize(drawn, (320, 240), interpolation=cv2.INTER_AREA).astype(np.uint8)
    points = np.zeros((468, 2), np.float32)
    angles = np.linspace(np.pi, -np.pi, len(LIPS), endpoint=False)
    for index, angle in zip(LIPS, angles, strict=True):
        points[index] = (160 + np.cos(angle) * width / 2, 120 + np.sin(angle) * high)
    points[MOUTH[0]], points[MOUTH[1]] = (160 - width / 2, 120), (160 + width / 2, 120)
    return pixels, Face((60, 0, 200, 240), 1.0, points, track=1)


def crop_of(pixels: UInt8, face: Face) -> Float32:
    """Return the crop (24, 32) of a mouth that can be cut."""
    out = np.empty((24, 32, 1), np.float32)
    assert cut_mouth(pixels, face, out)
    return out[..., 0]


@pytest.mark.parametrize("width", [24.0, 60.0, 110.0])
def test_gaping_and_shut_mouths(classifier: YawnClassifier, width: float) -> None:
    """A wide open mouth has a higher probability than a shut one at any distance."""
    gaping = classifier.p_yawning(*draw_mouth(opening=0.7, width=width))
    shut = classifier.p_yawning(*draw_mouth(opening=0.02, width=width))
    assert gaping is not None
    assert shut is not None
    assert gaping > 0.5 > shut


@pytest.mark.parametrize("angle", [-25, 25])
@pytest.mark.parametrize("scale", [0.5, 2.5])
def test_crop_is_the_same_at_any_size_and_tilt(angle: float, scale: float) -> None:
    """The lips fill the crop, upright."""
    pixels, face = draw_mouth(opening=0.5)
    matrix = cv2.getRotationMatrix2D((160, 120), angle, scale)
    matrix[:, 2] += (240, 280)
    moved = cv2.warpAffine(pixels, matrix, (800, 800), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
    assert face.landmarks is not None
    points = (face.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    difference = crop_of(moved, replace(face, landmarks=points)) - crop_of(pixels, face)
    assert np.abs(difference).mean() < 0.05


def test_mouth_that_is_not_visible(classifier: YawnClassifier) -> None:
    """No landmarks, a tiny mouth, and one at the edge of the image are None."""
    pixels, face = draw_mouth(opening=0.5)
    assert face.landmarks is not None
    assert classifier.p_yawning(pixels, replace(face, landmarks=None)) is None
    assert classifier.p_yawning(*draw_mouth(opening=0.5, width=11.0)) is None
    assert classifier.p_yawning(pixels, replace(face, landmarks=face.landmarks - (150, 0))) is None


def test_model_of_something_else_is_refused() -> None:
    """An eye model in place of the mouth model is named with the remedy."""
    with pytest.raises(ModelError, match=r"eye-state: input\.features\.kind 'eye_crop': .* models\.eyes"):
        YawnClassifier(open_classifier("eye-state", task="eyes"))
