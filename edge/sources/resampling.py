"""Brings live sound to 16 kHz, block by block, picks the better of several channels, and hears silence."""

from __future__ import annotations

import numpy as np
import soxr

from edge.errors import DeviceError
from edge.values import Float32

SILENT_S = 4.0  # of the same value again and again; any microphone that works has noise


class Resampler:
    """Resamples a signal that arrives in blocks, as soxr would the whole of it."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        # HQ is soxr's default; None: there is nothing to do.
        self._stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32") if from_hz != to_hz else None

    @property
    def delay(self) -> int:
        """How many output samples the input so far is still good for: the filter needs what follows."""
        return round(self._stream.delay()) if self._stream is not None else 0

    def push(self, samples: Float32) -> Float32:
        """Take (n,) float32, return what can be said for sure: (m,) float32."""
        if self._stream is None:
            return samples
        result: Float32 = self._stream.resample_chunk(np.ascontiguousarray(samples))
        return result


class Silence:
    """Tells a dead or muted microphone from a quiet room: sound that does not move at all is none."""

    def __init__(self, name: str, *, rate_hz: int) -> None:
        self._name = name
        self._limit = round(SILENT_S * rate_hz)
        self._still = 0
        self._is_alive = False

    def is_alive(self, frames: Float32) -> bool:
        """Take the next (n, channels) float32; False until there was sound.

        So a dead microphone that is opened again does not seem to recover. Raises `DeviceError` after
        `SILENT_S` without any.
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


class LouderChannel:
    """Makes mono out of many channels by following the loudest one.

    An average would cancel two microphones that are wired against each other and halve a dead one's
    neighbour. It changes channel only for one that is 6 dB louder over about a second, since every
    change is audible.
    """

    def __init__(self, channels: int) -> None:
        self._power = np.zeros(channels)
        self._channel = 0

    def pick(self, frames: Float32) -> Float32:
        """Take (n, channels) float32, return (n,) of the channel in use."""
        if not len(frames):
            return frames[:, 0]
        self._power += 0.02 * (np.mean(np.square(frames, dtype=np.float64), axis=0) - self._power)
        loudest = int(np.argmax(self._power))
        if self._power[loudest] > 4 * self._power[self._channel]:
            self._channel = loudest
        return frames[:, self._channel]
