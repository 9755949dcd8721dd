"""Samples -> frames of 25 ms, one every 10 ms: 40 MFCC, the octaves above 200 Hz, and the periodicity."""

from __future__ import annotations

import numpy as np

from edge.values import SAMPLE_RATE_HZ, Float32
from edge.voice.pitch import FRAME, pitch_frames

STEP = 160  # samples, 10 ms; also the step of the voice activity detector
COEFFICIENTS = 40
COLUMNS = COEFFICIENTS + 2  # of a frame: MFCC, octaves above 200 Hz, periodicity
PREEMPHASIS = 0.97


class FrameStream:
    """Computes each frame of a stream of samples once, when it is requested.

    Pre-emphasis runs over the whole stream, so the frames do not depend on the sizes of the chunks.
    """

    def __init__(self) -> None:
        self._pending = np.empty(0, np.float32)  # from the first sample of the next frame
        self._previous = np.float32(0.0)  # the sample before them, for pre-emphasis

    @property
    def waiting(self) -> int:
        """How many frames could be computed now."""
        return max(0, (self._pending.size - FRAME) // STEP + 1)

    def add(self, samples: Float32) -> None:
        """Add `samples` (n,)."""
        self._pending = np.concatenate([self._pending, samples])

    def frames(self) -> Float32:
        """Return the waiting frames (k, 42) float32 and remove them."""
        if not self.waiting:
            return np.empty((0, COLUMNS), np.float32)
        frames = compute_frames(self._pending, previous=float(self._previous))
        self.skip(self.waiting)
        return frames

    def skip(self, count: int) -> None:
        """Remove the oldest `count` waiting frames without computing them."""
        if count > 0:
            self._previous = self._pending[count * STEP - 1]
            self._pending = self._pending[count * STEP :]


def compute_frames(samples: Float32, *, previous: float) -> Float32:
    """Return all whole frames (T, 42) of `samples` (n,), n >= 400; `previous` is the sample before them."""
    # Imported here: with scipy it takes a quarter of the import time, which would delay the first frame.
    import python_speech_features

    samples = samples[: (samples.size - FRAME) // STEP * STEP + FRAME]
    before = np.concatenate([[previous], samples[:-1]])
    mfcc = python_speech_features.mfcc(
        samples.astype(np.float64) - PREEMPHASIS * before,
        samplerate=SAMPLE_RATE_HZ,
        winlen=FRAME / SAMPLE_RATE_HZ,
        winstep=STEP / SAMPLE_RATE_HZ,
        numcep=COEFFICIENTS,
        nfilt=COEFFICIENTS,
        nfft=512,
        preemph=0,
    )
    raw = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::STEP]  # (T, 400)
    return np.concatenate([mfcc.astype(np.float32), pitch_frames(raw)], axis=1)


def frame_count(seconds: float) -> int:
    """Return how many whole frames fit into `seconds`, at least 1; 298 fit into 3 s."""
    return max(1, (round(seconds * SAMPLE_RATE_HZ) - FRAME) // STEP + 1)


def clip_frames(samples: Float32) -> Float32:
    """Return the frames (T, 42) of one clip (n,) at 16 kHz; silence extends a clip shorter than a frame."""
    short = max(0, FRAME - samples.size)
    return compute_frames(np.concatenate([samples, np.zeros(short, np.float32)]), previous=0.0)
