"""Brings live sound to another rate, block by block, and picks the better one of several channels."""

from __future__ import annotations

from math import gcd

import numpy as np
from scipy.signal import firwin, resample_poly

from edge.values import Float32

_HALF_TAPS = 10  # of the slower of the two rates, as scipy.signal.resample_poly chooses


class Resampler:
    """Resamples a signal that arrives in blocks, as `scipy.signal.resample_poly` would the whole of it.

    Keeps so much of the past that every output sample sees all its neighbours; the newest `delay`
    samples of output wait for their right-hand neighbours.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        divisor = gcd(from_hz, to_hz)
        self._up, self._down = to_hz // divisor, from_hz // divisor
        slower = max(self._up, self._down)
        half = _HALF_TAPS * slower
        self._taps = firwin(2 * half + 1, 1 / slower, window=("kaiser", 5.0)) if slower > 1 else None
        self._margin = -(-half // self._up) + 1  # input samples on each side of an output sample
        self._held = np.zeros(0, np.float32)
        self._held_at = 0  # position of held[0] in the input, a multiple of `down`
        self._made = 0  # output samples returned so far

    @property
    def delay(self) -> int:
        """How many output samples the input so far is still good for."""
        if self._taps is None:
            return 0
        return (self._held_at + len(self._held)) * self._up // self._down - self._made

    def push(self, samples: Float32) -> Float32:
        """Take (n,) float32, return what can be said for sure: (m,) float32."""
        if self._taps is None:
            return samples
        self._held = np.concatenate((self._held, samples))
        sure = (self._held_at + len(self._held) - self._margin) * self._up // self._down
        if sure <= self._made:
            return np.zeros(0, np.float32)
        output = resample_poly(self._held, self._up, self._down, window=self._taps)
        first = self._held_at * self._up // self._down  # exact: held_at is a multiple of down
        result: Float32 = output[self._made - first : sure - first].astype(np.float32)
        self._made = sure
        needed = sure * self._down // self._up - self._margin
        drop = max(0, (needed - self._held_at) // self._down * self._down)
        self._held, self._held_at = self._held[drop:], self._held_at + drop
        return result


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
