"""Brings live sound to another rate, block by block, and picks the better one of several channels."""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edge.values import Float32

_HALF_TAPS = 10  # of the slower of the two rates
_KAISER_BETA = 5.0


class Resampler:
    """Resamples a signal that arrives in blocks, as `scipy.signal.resample_poly` would the whole of it.

    The same filter (a sinc under a Kaiser window), but `scipy.signal` costs 76 MB and over a second to
    import, and it knows only whole signals. The newest `delay` samples of output wait for their
    right-hand neighbours.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        divisor = gcd(from_hz, to_hz)
        self._up, self._down = to_hz // divisor, from_hz // divisor
        slower = max(self._up, self._down)
        half = _HALF_TAPS * slower
        taps = np.sinc(np.arange(-half, half + 1) / slower) * np.kaiser(2 * half + 1, _KAISER_BETA)
        taps *= self._up / taps.sum()
        # Output m is the sum over i of input[m * down // up + i] * taps[m * down % up - i * up], so there
        # is one short filter for each remainder ("phase"), up to `reach` inputs to either side.
        self._reach = half // self._up + 1
        offsets = np.arange(-self._reach, self._reach + 1)
        at = np.arange(self._up)[:, None] - offsets * self._up + half  # (up, 2 * reach + 1)
        inside = (at >= 0) & (at < len(taps))
        self._filters = np.where(inside, taps[at.clip(0, len(taps) - 1)], 0).astype(np.float32)
        self._held = np.zeros(self._reach, np.float32)  # silence before the first sample
        self._held_at = -self._reach  # position of held[0] in the input
        self._made = 0  # output samples returned so far

    @property
    def delay(self) -> int:
        """How many output samples the input so far is still good for."""
        return (self._held_at + len(self._held)) * self._up // self._down - self._made

    def push(self, samples: Float32) -> Float32:
        """Take (n,) float32, return what can be said for sure: (m,) float32."""
        if self._up == self._down:
            self._made += len(samples)
            self._held_at += len(samples)
            return samples
        self._held = np.concatenate((self._held, samples))
        end = self._held_at + len(self._held) - self._reach  # inputs below it have all their neighbours
        sure = max(self._made, -(-end * self._up // self._down))
        if sure == self._made:
            return np.zeros(0, np.float32)
        position, phase = np.divmod(np.arange(self._made, sure) * self._down, self._up)
        windows = sliding_window_view(self._held, 2 * self._reach + 1)
        first = self._held_at + self._reach  # the input that windows[0] is centred on
        result: Float32 = np.einsum("mt,mt->m", windows[position - first], self._filters[phase])
        self._made = sure
        drop = max(0, sure * self._down // self._up - self._reach - self._held_at)
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
