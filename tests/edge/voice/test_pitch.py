"""The pitch of a voice is found where there is one, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from edge.values import Float32
from edge.voice.features import clip_frames
from edge.voice.pitch import pitch_frames


def voice(hz: float, *, seconds: float = 0.5, noise: float = 0.0) -> Float32:
    """Return a tone with ten harmonics, as vocal folds produce it."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    tone = sum(np.sin(2 * np.pi * hz * k * t + k) / k for k in range(1, 11))
    hiss = np.random.default_rng(1).normal(0, noise, t.size)
    return np.asarray(0.1 * tone + hiss, dtype=np.float32)


@pytest.mark.parametrize("hz", [80, 110, 150, 220, 330, 450])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_pitch_of_a_voice_is_found(hz: float, noise: float) -> None:
    """The pitch is within a semitone in nine of ten frames, with and without noise."""
    octaves, periodicity = clip_frames(voice(hz, noise=noise))[:, 40:].T
    found = 200 * 2.0**octaves
    assert np.mean(np.abs(found / hz - 1) < 0.06) > 0.9
    assert np.median(periodicity) > 0.6


def test_noise_has_little_periodicity() -> None:
    """White noise is not periodic."""
    hiss = np.random.default_rng(2).normal(0, 0.1, 16_000).astype(np.float32)
    assert np.median(clip_frames(hiss)[:, 41]) < 0.5


def test_silence_has_no_pitch() -> None:
    """Digital silence is 0 and 0, without a division by zero."""
    np.testing.assert_array_equal(pitch_frames(np.zeros((3, 400), np.float32)), np.zeros((3, 2), np.float32))


def test_pitch_does_not_depend_on_gain() -> None:
    """A quiet voice has the pitch of a loud one."""
    loud = clip_frames(voice(180))[:, 40:]
    np.testing.assert_allclose(clip_frames(voice(180) * np.float32(0.01))[:, 40:], loud, atol=1e-3)
