"""Shut and open eyes of drawn faces are separated, and an eye that is not visible has no probability."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.errors import ModelError
from edge.face.detector import open_face_detector
from edge.face.eyes import EyeStateClassifier, cut_eye, visible_eyes
from edge.face.landmarks import LEFT_EYE
from edge.face.measurements import FaceMeasurer, open_face_measurer
from edge.inference.classifier import open_classifier
from edge.inference.weights import DETECTOR, find_weights
from edge.pipeline import FacePipeline, open_face_pipeline
from edge.settings import Config, FatigueSettings, InferenceSettings, ModelSettings
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from edge.values import FaceMeasurements, Float32, Frame
from tests.helpers.drawn_eyes import draw_face, landmarks, put_on_dark_glasses

SIZE = 24


@pytest.fixture(scope="module")
def classifier() -> EyeStateClassifier:
    """The shipped model."""
    return EyeStateClassifier(open_classifier("eye-state", task="eyes"))


def crop_of(pixels: np.ndarray, corners: Float32) -> Float32:
    """Return the crop (24, 24) of an eye that can be cut."""
    out = np.empty((SIZE, SIZE, 1), np.float32)
    assert cut_eye(pixels, corners, 0.65, out)
    return out[..., 0]


@pytest.mark.parametrize("width", [16.0, 24.0, 48.0])
def test_open_and_shut_eyes(classifier: EyeStateClassifier, width: float) -> None:
    """Open and closed eyes of a drawn face are classified correctly at any distance."""
    shut = classifier.p_closed_each(*draw_face(left_open=False, right_open=False, width=width))
    opened = classifier.p_closed_each(*draw_face(width=width))
    assert min(p for p in shut if p is not None) > 0.6
    assert max(p for p in opened if p is not None) < 0.4
    assert None not in (*shut, *opened)


def test_face_has_the_mean_of_its_eyes(classifier: EyeStateClassifier) -> None:
    """A winking face is between open and closed."""
    pixels, face = draw_face(left_open=False)
    left, right = classifier.p_closed_each(pixels, face)
    assert left is not None
    assert right is not None
    assert left > right
    assert classifier.p_closed(pixels, face) == pytest.approx((left + right) / 2)


@pytest.mark.parametrize("is_open", [True, False])
def test_sunglasses_hide_both_eyes(classifier: EyeStateClassifier, is_open: bool) -> None:
    """Eyes behind dark lenses have no probability, open or closed."""
    pixels, face = draw_face(left_open=is_open, right_open=is_open)
    assert classifier.p_closed(pixels, face) is not None
    assert classifier.p_closed(put_on_dark_glasses(pixels, face), face) is None


def test_one_eye_is_enough(classifier: EyeStateClassifier) -> None:
    """With a hand over the left eye, the face has the probability of the right one."""
    pixels, face = draw_face(left_open=False, right_open=False)
    x, y = (int(v) for v in landmarks(face)[list(LEFT_EYE)].mean(axis=0))
    cv2.ellipse(pixels, (x, y + 10), (45, 55), 20, 0, 360, (214, 172, 146), -1)
    left, right = classifier.p_closed_each(pixels, face)
    assert left is None
    assert classifier.p_closed(pixels, face) == right
    assert right is not None
    assert right > 0.6


def test_far_eye_of_a_turned_head_is_not_trusted() -> None:
    """An eye of less than 0.6 of the other's width is left out; one of exactly that width counts."""
    _, turned = draw_face(width=36, left_width=21)
    assert visible_eyes(turned)[0] is None
    assert visible_eyes(turned)[1] is not None
    _, half = draw_face(width=36, left_width=22)
    assert all(eye is not None for eye in visible_eyes(half))


def test_profile_has_no_visible_eye(classifier: EyeStateClassifier) -> None:
    """Both eyes are narrow relative to the distance to the mouth: neither counts."""
    pixels, face = draw_face()
    points = landmarks(face).copy()
    middle = points[:, 0].max() / 2 + 20
    points[:, 0] = middle + 0.4 * (points[:, 0] - middle)
    assert visible_eyes(replace(face, landmarks=points)) == (None, None)
    assert classifier.p_closed(pixels, replace(face, landmarks=points)) is None


@pytest.mark.parametrize(("width", "is_seen"), [(10.0, True), (9.5, False)])
def test_tiny_eyes_are_left_out(width: float, is_seen: bool) -> None:
    """An eye counts from ten pixels on."""
    _, face = draw_face(width=width)
    assert all((eye is not None) == is_seen for eye in visible_eyes(face))


def test_eye_outside_the_image(classifier: EyeStateClassifier) -> None:
    """A face half outside the image has the probability of the eye inside it."""
    pixels, face = draw_face(at=(38.0, 110.0), left_open=False, right_open=False)
    left, right = classifier.p_closed_each(pixels, face)
    assert left is None
    assert right is not None


def test_flat_image_has_no_eyes(classifier: EyeStateClassifier) -> None:
    """A dark image, or a wall detected as a face, has no eye state."""
    _, face = draw_face()
    assert classifier.p_closed(np.full((240, 320, 3), 9, np.uint8), face) is None


def test_face_without_landmarks_has_no_eyes(classifier: EyeStateClassifier) -> None:
    """A box alone does not place the crop of an eye."""
    pixels, face = draw_face()
    assert classifier.p_closed(pixels, replace(face, landmarks=None)) is None
    assert classifier.p_closed(pixels, replace(face, landmarks=landmarks(face)[:6])) is None


@pytest.mark.parametrize("angle", [-30, 0, 30])
@pytest.mark.parametrize("scale", [0.6, 1.0, 3.0])
def test_crop_is_the_same_at_any_size_and_tilt(angle: float, scale: float) -> None:
    """The corners of the eye place the crop, as in training."""
    pixels, face = draw_face(width=48)
    corners = landmarks(face)[list(LEFT_EYE)]
    matrix = cv2.getRotationMatrix2D((160, 110), angle, scale)
    matrix[:, 2] += (320, 370)
    moved = cv2.warpAffine(pixels, matrix, (960, 960), borderMode=cv2.BORDER_REPLICATE)
    turned = (corners @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    assert np.abs(crop_of(moved, turned) - crop_of(pixels, corners)).mean() < 0.03


def test_brightness_does_not_matter() -> None:
    """A crop at a third of the brightness is levelled to the same values."""
    pixels, face = draw_face()
    corners = landmarks(face)[list(LEFT_EYE)]
    dark = (pixels * 0.3).astype(np.uint8)
    np.testing.assert_allclose(crop_of(dark, corners), crop_of(pixels, corners), atol=0.06)


def test_model_of_something_else_is_refused() -> None:
    """A mouth model in place of the eye model is named with the remedy."""
    with pytest.raises(ModelError, match=r"mouth-state: input\.features\.kind 'lips_box': .* models\.mouth"):
        EyeStateClassifier(open_classifier("mouth-state", task="mouth"))


def test_measurements_have_track_and_time(classifier: EyeStateClassifier) -> None:
    """Measurements name their face and capture time; a value without a model is None."""
    pixels, face = draw_face(left_open=False, right_open=False)
    measurements = FaceMeasurer(classifier).measure(pixels, face, 5)
    assert (measurements.track, measurements.t_ns) == (3, 5)
    assert measurements.closed == classifier.p_closed(pixels, face)
    mesh = FaceMeasurements(3, 5, mouth=measurements.mouth, pitch_deg=measurements.pitch_deg)
    assert FaceMeasurer().measure(pixels, face, 5) == mesh


def test_pipeline_measures_the_blinks_of_the_demo_clip() -> None:
    """The drawn face closes its eyes for three frames every 3.7 s; only these measure as closed."""
    if find_weights(DETECTOR) is None:
        pytest.skip("the detector weights are not here: emotion-models fetch")
    eyes = open_face_pipeline(Config(inference=InferenceSettings(backend="cpu")))
    shut, opened = [], []
    for frame in read_video_frames(clip_path(), 0.04):
        t_s = frame.t_ns / 1e9
        if t_s > 4.4:
            break
        if t_s < 3.4:
            continue
        (face_result,) = eyes.process(frame)
        assert face_result.measurements is not None
        assert face_result.measurements.t_ns == frame.t_ns
        assert face_result.measurements.closed is not None
        # The compressed frames beside a blink are half of each.
        if 3.7 <= t_s < 3.8:
            shut.append(face_result.measurements.closed)
        elif not 3.64 < t_s < 3.9:
            opened.append(face_result.measurements.closed)
    assert len(shut) in (2, 3)
    assert min(shut) > 0.5 > max(opened)


def test_eye_model_can_be_left_out() -> None:
    """`models.eyes = "none"` opens no model, and neither does `fatigue.enabled = false`."""
    assert open_face_measurer(Config(models=ModelSettings(eyes="none"))).eyes is None
    assert open_face_measurer(Config(fatigue=FatigueSettings(enabled=False))).eyes is None
    with pytest.raises(ModelError, match=r"models\.eyes face-cnn"):
        open_face_measurer(Config(models=ModelSettings(eyes="face-cnn")))


def test_still_has_measurements_too() -> None:
    """A photograph is measured as a frame at time 0; without a measurer there are no measurements."""
    if find_weights(DETECTOR) is None:
        pytest.skip("the detector weights are not here: emotion-models fetch")
    frame: Frame = next(iter(read_video_frames(clip_path(), 0.4)))
    eyes = open_face_pipeline(Config(inference=InferenceSettings(backend="cpu")))
    (seen,) = eyes.process_still(frame.pixels)
    assert seen.measurements is not None
    assert seen.measurements.t_ns == 0
    (bare,) = FacePipeline(eyes.classifier, open_face_detector()).process_still(frame.pixels)
    assert bare.measurements is None
