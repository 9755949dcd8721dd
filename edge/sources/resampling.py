"""Resamples live audio block by block, selects the loudest channel, and detects a dead microphone."""

from __future__ import annotations

import numpy as np
import soxr

from edge.errors import DeviceError
from edge.values import Float32

SILENT_S = 4.0  # of one constant value; a working microphone has noise


class Resampler:
    """Resamples a signal in blocks; the result equals that of the whole signal."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        # None: the rates are equal. HQ is soxr's default quality.
        self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32") if from_hz != to_hz else None

    @property
    def delay(self) -> int:
        """Number of output samples that the filter still holds back until more input comes."""
        return round(self._stream.delay()) if self._stream is not None else 0

    def push(self, samples: Float32) -> Float32:
        """Add samples (n,) float32; return the output (m,) float32 that is complete."""
        if self._stream is None:
            return samples
        result: Float32 = self._stream.resample_chunk(np.ascontiguousarray(samples))
        return result


class SilenceDetector:
    """Distinguishes a dead or muted microphone, whose signal is constant, from a quiet room."""

    def __init__(self, name: str, *, rate_hz: int) -> None:
        self._name = name
        self._limit = round(SILENT_S * rate_hz)
        self._still = 0
        self._is_alive = False

    def is_alive(self, frames: Float32) -> bool:
        """Add samples (n, channels) float32; return False until the signal has changed.

        So a dead microphone does not seem to recover when it is reopened. Raises `DeviceError` after
        `SILENT_S` of a constant signal.
        """
        if (frames != frames[:1]).any():
            self._still, self._is_alive = 0, True
        else:
            self._still += len(frames)
            if self._still > self._limit:
                raise DeviceError(
                    f"{self._name}: perfect silence for {SILENT_S:g} s; unmute it (`alsamixer`)",
                    reason="silent",
                )
        return self._is_alive


class LoudestChannel:
    """Makes mono from several channels by selecting the loudest one.

    An average would cancel two microphones of opposite polarity, and halve the level beside a dead one. The
    channel changes only for one that is 6 dB louder over about a second, because a change is audible.
    """

    def __init__(self, channels: int) -> None:
        self._power = np.zeros(channels)
        self._channel = 0

    def select(self, frames: Float32) -> Float32:
        """Add samples (n, channels) float32; return those of the selected channel, (n,)."""
        if not len(frames):
            return frames[:, 0]
        self._power += 0.02 * (np.mean(np.square(frames, dtype=np.float64), axis=0) - self._power)
        loudest = int(np.argmax(self._power))
        if self._power[loudest] > 4 * self._power[self._channel]:
            self._channel = loudest
        return frames[:, self._channel]
