"""Cameras and microphones without hardware, to try the daemon and to provoke its failure rules.

`fake:NAME[?after=SECONDS]`. Cameras: `pattern` (a moving test card), `freeze` (one picture, then nothing),
`unplug` (fails after 2 s, or `after`), `black`. Microphones: `tone` (440 Hz), `silence`, `noise`, `unplug`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import parse_qs

import numpy as np

from edge.errors import DeviceError
from edge.replay import CHUNK, NS_PER_SAMPLE
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Float32, Frame, UInt8

TONE_HZ = 440.0


class Nothing:
    """A source that has nothing to say and ends when it is closed: the token `none`."""

    def __init__(self, name: str = "none") -> None:
        self.name = name
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame | AudioChunk]:
        self._closed.wait()
        return iter(())

    def close(self) -> None:
        self._closed.set()


class FakeCamera:
    """Frames of (height, width, 3) at `fps`, drawn."""

    def __init__(self, token: str, *, fps: float, width: int, height: int) -> None:
        self.name = token
        self._kind, self._after_s = _parse(token, CAMERAS)
        self._fps, self._width, self._height = fps, width, height
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        origin_ns = time.monotonic_ns()
        number = 0
        while True:
            t_ns = origin_ns + round(number * 1e9 / self._fps)
            if self._closed.wait(max(0.0, (t_ns - time.monotonic_ns()) / 1e9)):
                return
            if self._kind == "unplug" and t_ns - origin_ns >= self._after_s * 1e9:
                raise _unplugged(self.name)
            yield Frame(CAMERAS[self._kind](number, self._height, self._width), t_ns)
            if self._kind == "freeze":
                self._closed.wait()
                return
            # A reader that falls behind misses pictures, as with a camera.
            number = max(number + 1, int((time.monotonic_ns() - origin_ns) * self._fps / 1e9))

    def close(self) -> None:
        self._closed.set()


class FakeMicrophone:
    """Chunks of 20 ms, computed."""

    def __init__(self, token: str) -> None:
        self.name = token
        self._kind, self._after_s = _parse(token, MICROPHONES)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[AudioChunk]:
        origin_ns = time.monotonic_ns()
        first = 0
        while True:
            t_ns, end_ns = (origin_ns + n * NS_PER_SAMPLE for n in (first, first + CHUNK))
            if self._closed.wait(max(0.0, (end_ns - time.monotonic_ns()) / 1e9)):
                return
            if self._kind == "unplug" and end_ns - origin_ns >= self._after_s * 1e9:
                raise _unplugged(self.name)
            yield AudioChunk(MICROPHONES[self._kind](first), t_ns)
            first += CHUNK

    def close(self) -> None:
        self._closed.set()


def _pattern(number: int, height: int, width: int) -> UInt8:
    """Draw eight colour bars that move four pixels a frame, over a grey ramp."""
    bars = ((np.arange(width) + 4 * number) * 8 // width) % 8
    card = np.empty((height, width, 3), np.uint8)
    card[:] = np.stack([(bars >> bit & 1) * 255 for bit in (2, 1, 0)], axis=1)  # (w,) -> (w, 3)
    card[height * 3 // 4 :] = (np.arange(width) * 255 // max(1, width - 1))[:, None]
    return card


def _black(_number: int, height: int, width: int) -> UInt8:
    return np.zeros((height, width, 3), np.uint8)


def _tone(first: int) -> Float32:
    phase = 2 * np.pi * TONE_HZ / SAMPLE_RATE_HZ * np.arange(first, first + CHUNK)
    return np.asarray(0.3 * np.sin(phase), np.float32)


def _silence(_first: int) -> Float32:
    return np.zeros(CHUNK, np.float32)


def _noise(first: int) -> Float32:
    noise = np.random.default_rng(first).standard_normal(CHUNK)
    return np.asarray(np.clip(noise * 0.1, -1, 1), np.float32)


CAMERAS: dict[str, Callable[[int, int, int], UInt8]] = {
    "pattern": _pattern,
    "freeze": _pattern,
    "unplug": _pattern,
    "black": _black,
}
MICROPHONES: dict[str, Callable[[int], Float32]] = {
    "tone": _tone,
    "silence": _silence,
    "noise": _noise,
    "unplug": _tone,
}


def _parse(token: str, known: Mapping[str, object]) -> tuple[str, float]:
    kind, _, query = token.removeprefix("fake:").partition("?")
    if kind not in known:
        raise DeviceError(f"{token}: no such fake; use fake:{', fake:'.join(known)}", reason="unsupported")
    after = parse_qs(query).get("after", ["2"])[0]
    try:
        return kind, float(after)
    except ValueError:
        raise DeviceError(
            f"{token}: after={after} is not seconds; use after=2", reason="unsupported"
        ) from None


def _unplugged(token: str) -> DeviceError:
    return DeviceError(f"{token}: the device is gone; plug it in again", reason="no_device")
