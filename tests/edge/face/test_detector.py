"""Faces are found, followed and cropped as in training."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.face.crop import FER_CROP, FaceCropper, level
from edge.face.detector import FaceDetector, HaarCascade, iou, open_face_detector
from edge.face.landmarks import face_anchors
from edge.face.tracking import FaceTracker
from edge.inference.weights import DETECTOR, find_weights
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from edge.values import Face, Frame


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Two seconds of the drawn face."""
    return [frame for frame in read_video_frames(clip_path(), 0.2) if frame.t_ns < 2_000_000_000]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    """BlazeFace with landmarks."""
    if find_weights(DETECTOR) is None:
        pytest.skip("the detector weights are not here: emotion-models fetch")
    return open_face_detector()


def test_track_is_stable_through_short_occlusion(frames: list[Frame], detector: FaceDetector) -> None:
    """A face that is covered for two frames keeps its number."""
    tracker = FaceTracker(detector)
    seen = []
    for number, frame in enumerate(frames):
        pixels = np.zeros_like(frame.pixels) if number in (4, 5) else frame.pixels
        seen.append([face.track for face in tracker.update(Frame(pixels, frame.t_ns))])
    assert seen[4] == seen[5] == []
    assert [tracks for number, tracks in enumerate(seen) if number not in (4, 5)] == [[1]] * (len(seen) - 2)


@pytest.mark.parametrize("angle", [-25, 0, 25])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_crop_places_the_eyes_as_in_training(
    frames: list[Frame], detector: FaceDetector, angle: float, scale: float
) -> None:
    """The crop does not depend on size and tilt of the face."""
    cropper = FaceCropper(FER_CROP)
    straight = frames[0].pixels
    (face,) = detector.detect(straight)
    expected = cropper.crop(straight, face).copy()
    height, width = straight.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
    turned = cv2.warpAffine(straight, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    (face, *_) = detector.detect(np.asarray(turned, np.uint8))
    crop = cropper.crop(np.asarray(turned, np.uint8), face)
    assert crop.shape == (48, 48, 1)
    assert float(np.abs(crop - expected).mean()) < 0.06


def test_haar_cascade_replaces_missing_weights(frames: list[Frame]) -> None:
    """The cascade finds the same face, and the box alone gives its eyes."""
    (face,) = HaarCascade().detect(frames[0].pixels)
    anchors = face_anchors(face)
    assert 250 < anchors.left_eye[0] < anchors.right_eye[0] < 400


def test_small_faces_are_found_in_stills(frames: list[Frame], detector: FaceDetector) -> None:
    """A face of 25 pixels in a large image is found in tiles only."""
    small = cv2.resize(frames[0].pixels, (107, 80), interpolation=cv2.INTER_AREA)
    wall = np.full((1000, 1400, 3), 190, np.uint8)
    wall[700:780, 1100:1207] = small
    assert detector.detect(wall) == []
    (face,) = detector.detect_small(wall)
    assert iou(face.box_px, (1138, 719, 31, 40)) > 0.3


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (48, 48, 3)])
def test_tiny_and_thin_images_have_no_face(detector: FaceDetector, shape: tuple[int, int, int]) -> None:
    """Images of extreme shapes raise no error."""
    assert detector.detect_small(np.zeros(shape, np.uint8)) == []


def test_quality_falls_with_size() -> None:
    """A face of few pixels has a lower quality."""
    cropper = FaceCropper(FER_CROP)
    large, small = (Face((0.0, 0.0, side, side), 1.0) for side in (100.0, 24.0))
    assert cropper.quality(large) == pytest.approx(1.0)
    assert cropper.quality(small) == pytest.approx(0.5, abs=0.05)


def test_levelled_crops_do_not_depend_on_light_and_gain() -> None:
    """Half the contrast and other light give the same crop, with mean 0.5 and standard deviation 0.2."""
    bright = np.random.default_rng(6).uniform(0.3, 0.8, (48, 48, 1)).astype(np.float32)
    dark = (bright * 0.5 - 0.1).astype(np.float32)
    level(bright)
    level(dark)
    np.testing.assert_allclose(bright, dark, atol=1e-5)
    assert float(bright.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(bright.std()) == pytest.approx(0.2, abs=0.01)


def test_levelled_crop_of_uniform_grey_is_finite() -> None:
    """A covered lens gives 0.5 everywhere, without a division by zero."""
    flat = np.full((48, 48, 1), 0.1, np.float32)
    level(flat)
    np.testing.assert_allclose(flat, 0.5, atol=1e-4)
