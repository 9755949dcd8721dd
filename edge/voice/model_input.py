"""A window -> the input of the voice model: features averaged over speech, or a normalized frame sequence."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from edge.errors import ModelError
from edge.inference.features import Features, FrameSpec, PooledMfccSpec
from edge.values import Float32
from edge.voice.activity import SPEECH_THRESHOLD
from edge.voice.features import COEFFICIENTS, frame_count
from edge.voice.windows import LOUDEST_FRAMES, Window

# Energies are natural logarithms: 1 is 4.3 dB.
ENERGY_FLOOR = np.float32(8.0)
LOUD = np.float32(4.5)
VOICED = np.float32(0.6)  # periodicity
RANGE = np.float32(4.0)  # standard deviations
MELODY, HEIGHT, PERIODICITY = 37, 38, 39  # columns of the result of `normalize_frames`


class WindowInput(Protocol):
    """Computes the input of one voice model from a window."""

    def __call__(self, window: Window) -> Float32: ...


def window_input(features: Features) -> WindowInput:
    """Return the function for a card's `input.features`; raise `ModelError` where they are not of a voice."""
    if isinstance(features, PooledMfccSpec):
        mean, std = np.asarray(features.mean, np.float32), np.asarray(features.std, np.float32)
        return lambda window: mean_over_speech(window.mfcc, window.speech, mean=mean, std=std)
    if isinstance(features, FrameSpec):
        return FrameInput(features)
    raise ModelError(
        f"input.features.kind {features.kind!r}: not features of a voice; choose another models.voice"
    )


def mean_over_speech(mfcc: Float32, speech: Float32, *, mean: Float32, std: Float32) -> Float32:
    """Average (T, 40) over the frames with speech and standardize each coefficient: (40,) float32.

    All frames count where none has speech, so that the result is always finite.
    """
    spoken = speech >= SPEECH_THRESHOLD
    frames = mfcc[spoken] if spoken.any() else mfcc
    return np.asarray((frames.mean(axis=0) - mean) / std, np.float32)


class FrameInput:
    """Computes (frames, 40) float32 in [-RANGE, RANGE]: MFCC and melody, independent of gain.

    `mean` and `std` (40,) of the spec are those of the training windows.
    """

    def __init__(self, spec: FrameSpec) -> None:
        self._count = frame_count(spec.window_s)
        self._mean = np.asarray(spec.mean, np.float32)
        self._std = np.asarray(spec.std, np.float32)

    def __call__(self, window: Window) -> Float32:
        """Return the input for `window`; of a longer one, for the stretch with most speech."""
        values = normalize_frames(select_frames(window.frames, window.speech, self._count))
        return np.asarray(np.clip((values - self._mean) / self._std, -RANGE, RANGE), np.float32)


def select_frames(frames: Float32, speech: Float32, count: int) -> Float32:
    """Return `count` of (T, 42) frames: the stretch with most speech.

    Copies of the quietest frame come first where there are fewer.
    """
    short = count - len(frames)
    if short > 0:
        quietest = frames[np.argmin(frames[:, 0])]
        return np.concatenate([np.repeat(quietest[None], short, axis=0), frames])
    total = np.concatenate([[0.0], np.cumsum(speech, dtype=np.float64)])
    start = int(np.argmax(total[count:] - total[:-count]))
    return frames[start : start + count]


def normalize_frames(frames: Float32) -> Float32:
    """Return (T, 40) values of a window's (T, 42) frames, independent of gain, line and microphone.

    0: log energy relative to the loudest frames, at least -`ENERGY_FLOOR`. 1 to 36: MFCC minus their mean
    over the loud frames. 37: octaves above the window's median pitch, 38: octaves above 200 Hz, both 0 where
    the pitch is not clear. 39: periodicity, 0..1. Columns 37 to 39 replace the three highest MFCC, which
    carry least information.
    """
    mfcc, octaves, periodicity = (
        frames[:, :COEFFICIENTS],
        frames[:, COEFFICIENTS],
        frames[:, COEFFICIENTS + 1],
    )
    energy = mfcc[:, 0]
    energy = np.maximum(energy - np.sort(energy)[-LOUDEST_FRAMES:].mean(), -ENERGY_FLOOR)
    is_loud = energy > -LOUD
    values: Float32 = mfcc - mfcc[is_loud].mean(axis=0)
    is_voiced = is_loud & (periodicity > VOICED)
    median = np.median(octaves[is_voiced]) if is_voiced.any() else np.float32(0)
    values[:, 0] = energy
    values[:, MELODY] = np.where(is_voiced, np.clip(octaves - median, -1.2, 1.2), 0)
    values[:, HEIGHT] = np.where(is_voiced, octaves, 0)
    values[:, PERIODICITY] = periodicity
    return values
