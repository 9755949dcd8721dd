"""Corruptions of faces and voices have the stated strength and are the same at every call."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.face.crop import FER_CROP, FaceCropper
from edge.values import SAMPLE_RATE_HZ, Face, Float32, UInt8
from models.data.corruption import (
    JITTER,
    add_noise,
    bad_webcam,
    jitter_crop,
    jitter_spec,
    speech_power,
    telephone,
)
from tests.helpers import trees


def dot(x: int, y: int, side_px: int = 49) -> UInt8:
    """Return a black image with a white dot at (x, y)."""
    picture = np.zeros((side_px, side_px), dtype=np.uint8)
    cv2.circle(picture, (x, y), 2, 255, -1)
    return picture


def centre(picture: UInt8) -> tuple[float, float]:
    """Return the centre of brightness, x and y."""
    ys, xs = np.mgrid[: picture.shape[0], : picture.shape[1]]
    light = picture / picture.sum()
    return float((xs * light).sum()), float((ys * light).sum())


def tone(hz: float, seconds: float = 1.0) -> Float32:
    """Return a sine (n,) of amplitude 0.5."""
    t = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return np.asarray(0.5 * np.sin(2 * np.pi * hz * t), dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("box-0.85", (24 + 8 / 0.85, 24)),
        ("box-1.15", (24 + 8 / 1.15, 24)),
        ("left-0.15", (32 + 0.15 * 49, 24)),
        ("right-0.15", (32 - 0.15 * 49, 24)),
        ("up-0.15", (32, 24 + 0.15 * 49)),
        ("down-0.15", (32, 24 - 0.15 * 49)),
    ],
)
def test_box_errors_move_the_face(kind: str, expected: tuple[float, float]) -> None:
    """A smaller box enlarges the face, a box further left moves it right."""
    assert centre(jitter_crop(dot(32, 24), kind)) == pytest.approx(expected, abs=0.3)


def test_outside_the_crop_the_border_is_repeated() -> None:
    """A uniform image stays uniform for every box error, without black edges."""
    grey = np.full((48, 48), 130, dtype=np.uint8)
    assert all((jitter_crop(grey, kind) == 130).all() for kind in JITTER)


@pytest.mark.parametrize("kind", JITTER)
def test_jitter_of_crop_and_uncropped_image_agree(kind: str) -> None:
    """The same box error gives the same result for a crop and for the uncropped image."""
    whole = np.repeat(trees.face(5, 200)[..., np.newaxis], 3, axis=2)
    face = Face((60.0, 60.0, 80.0, 80.0), 1.0)
    right = np.rint(255 * FaceCropper(FER_CROP).crop(whole, face)[..., 0]).astype(np.uint8)
    wrong = 255 * FaceCropper(jitter_spec(FER_CROP, kind)).crop(whole, face)[..., 0]
    middle = (slice(12, 36), slice(12, 36))
    difference = np.abs(wrong - jitter_crop(right, kind).astype(np.float32))[middle]
    assert difference.mean() < 3


def test_bad_webcam_is_dark_noisy_and_deterministic() -> None:
    """The brightness falls to 0.4; the index determines the noise."""
    face = trees.face(3)
    corrupted = bad_webcam(face, 7)
    assert corrupted.shape == face.shape
    assert corrupted.mean() == pytest.approx(0.4 * face.mean(), rel=0.05)
    np.testing.assert_array_equal(corrupted, bad_webcam(face, 7))
    assert (corrupted != bad_webcam(face, 8)).any()


def test_babble_is_ten_decibels_under_the_speech() -> None:
    """The ratio is 10 dB for any level of the noise; a pause does not change it."""
    speech = np.concatenate([tone(200), np.zeros(SAMPLE_RATE_HZ, np.float32)])
    noise = 0.01 * np.random.default_rng(0).standard_normal(5 * SAMPLE_RATE_HZ).astype(np.float32)
    added = add_noise(speech, noise, 3) - speech
    ratio_db = 10 * np.log10(np.mean(tone(200) ** 2) / np.mean(added**2))
    assert ratio_db == pytest.approx(10, abs=0.2)


def test_babble_offset_depends_on_the_clip_and_wraps() -> None:
    """A noise shorter than the clip is repeated; the index determines its offset."""
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ // 2).astype(np.float32)
    speech = tone(200)
    first = add_noise(speech, noise, 1)
    assert first.size == speech.size
    np.testing.assert_array_equal(first, add_noise(speech, noise, 1))
    assert (first != add_noise(speech, noise, 2)).any()


@pytest.mark.parametrize("samples", [np.zeros(8000, np.float32), np.zeros(3, np.float32)])
def test_silence_stays_silent(samples: Float32) -> None:
    """Silence has no speech level, so no noise is added."""
    assert speech_power(samples) == 0
    assert not add_noise(samples, tone(300), 0).any()


@pytest.mark.parametrize(("hz", "passes"), [(100, False), (600, True), (2500, True), (5000, False)])
def test_telephone_is_band_limited(hz: float, passes: bool) -> None:
    """300 to 3400 Hz pass; other frequencies lose at least 15 dB."""
    sound = tone(hz)
    received = telephone(sound)
    assert received.shape == sound.shape
    change_db = 10 * np.log10(np.mean(received**2) / np.mean(sound**2))
    assert (change_db > -1) if passes else (change_db < -15)
