"""The pitch of the voice in every frame: its melody carries more of the emotion than the spectrum does.

Autocorrelation after Boersma 1993 ("Accurate short-term analysis of the fundamental frequency"), divided by
that of the window. The pitch is the shortest strong period.
"""

from __future__ import annotations

import numpy as np

from edge.values import SAMPLE_RATE_HZ, Float32

REFERENCE_HZ = 200.0
SHORTEST, LONGEST = 32, 230  # samples: 500 down to 70 Hz
PER_SAMPLE = np.float32(0.0015)  # penalty of a period for each sample of its length
TINY = np.float32(1e-7)
FRAME = 400  # samples, 25 ms, as in the MFCC frames
_SIZE = 640  # of the transform: a frame and the longest period, without wrapping
_HANN = np.hanning(FRAME).astype(np.float32)
_SPECTRUM = np.abs(np.fft.rfft(_HANN, _SIZE)) ** 2
_WINDOW = (np.fft.irfft(_SPECTRUM)[: LONGEST + 2] / np.fft.irfft(_SPECTRUM)[0]).astype(np.float32)
_GAIN = (1 - PER_SAMPLE * np.arange(LONGEST + 2, dtype=np.float32)).astype(np.float32)


def pitch_frames(frames: Float32) -> Float32:
    """Return (T, 2) float32 for frames (T, 400): octaves above 200 Hz, and the periodicity 0..1.

    Both are 0 in a frame without a period, such as silence.
    """
    from scipy import fft  # imported here for the reason in `edge.voice.features.compute_frames`

    shaped = (frames - frames.mean(axis=1, keepdims=True)) * _HANN
    spectrum = fft.rfft(shaped, _SIZE, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    correlation = fft.irfft(power, _SIZE, axis=1)[:, : LONGEST + 2]
    correlation = correlation / np.maximum(correlation[:, :1], TINY) / _WINDOW
    score = correlation * _GAIN
    inside = score[:, SHORTEST:LONGEST]
    is_peak = (inside >= score[:, SHORTEST - 1 : LONGEST - 1]) & (
        inside >= score[:, SHORTEST + 1 : LONGEST + 1]
    )
    peaks = np.where(is_peak, inside, -1)
    period = peaks.argmax(axis=1) + SHORTEST
    row = np.arange(len(frames))
    before, at, after = (correlation[row, period + k] for k in (-1, 0, 1))
    shift = np.clip(0.5 * (before - after) / (before - 2 * at + after - 1e-9), -0.5, 0.5)  # of a parabola
    octaves = np.log2(SAMPLE_RATE_HZ / (period + shift) / REFERENCE_HZ)
    is_found = peaks.max(axis=1) > 0
    return np.where(is_found[:, None], np.stack([octaves, np.clip(at, 0, 1)], axis=1), 0).astype(np.float32)
