"""Cameras and microphones without hardware, to try the daemon and to simulate failures.

`fake:NAME[?after=SECONDS]`. Cameras: `pattern` (a moving test card), `black`, `still` (repeats one frame),
`freeze` (one frame, then none), `unplug` (fails after 2 s, or `after`), `hang` (one frame, then a call that
never returns). Microphones: `tone` (440 Hz), `noise`, `silence`, `unplug`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import parse_qs

import numpy as np

from edge.errors import DeviceError
from edge.sources.live_camera import LiveCamera
from edge.sources.rate import CHUNK, NS_PER_SAMPLE
from edge.sources.resampling import SilenceDetector
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Float32, Frame, UInt8

TONE_HZ = 440.0


class EmptySource:
    """A source without items, which ends when it is closed: the token `none`."""

    def __init__(self, name: str = "none") -> None:
        self.name = name
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Frame | AudioChunk]:
        self._closed.wait()
        return iter(())

    def close(self) -> None:
        self._closed.set()


class FakeDriver:
    """A driver that draws frames (height, width, 3) at `fps`."""

    def __init__(self, token: str, *, fps: float, width: int, height: int) -> None:
        self._kind, self._after_s = _parse(token, CAMERAS)
        self._fps, self._width, self._height = fps, width, height
        self._cancelled = threading.Event()
        self._origin_s = time.monotonic()
        self._number = -1

    def grab(self) -> bool:
        if self._number >= 0 and self._kind == "hang":
            threading.Event().wait()
        if self._number >= 0 and self._kind == "freeze":
            self._cancelled.wait()
        # A slow reader misses frames, as with a camera.
        self._number = max(self._number + 1, int((time.monotonic() - self._origin_s) * self._fps))
        due_s = self._number / self._fps
        self._cancelled.wait(max(0.0, self._origin_s + due_s - time.monotonic()))
        return self._kind != "unplug" or due_s < self._after_s

    def retrieve(self) -> UInt8:
        return CAMERAS[self._kind](self._number, self._height, self._width)

    def cancel(self) -> None:
        self._cancelled.set()

    def release(self) -> None:
        """A fake holds no device."""


class FakeMicrophone:
    """A microphone that computes chunks of 20 ms."""

    def __init__(self, token: str) -> None:
        self.name = token
        self._kind, self._after_s = _parse(token, MICROPHONES)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[AudioChunk]:
        origin_ns = time.monotonic_ns()
        first = 0
        silence = SilenceDetector(self.name, rate_hz=SAMPLE_RATE_HZ)
        while True:
            t_ns, end_ns = (origin_ns + n * NS_PER_SAMPLE for n in (first, first + CHUNK))
            if self._closed.wait(max(0.0, (end_ns - time.monotonic_ns()) / 1e9)):
                return
            if self._kind == "unplug" and end_ns - origin_ns >= self._after_s * 1e9:
                raise DeviceError(f"{self.name}: the device is gone; plug it in again")
            samples = MICROPHONES[self._kind](first)
            if silence.is_alive(samples[:, None]):
                yield AudioChunk(samples, t_ns)
            first += CHUNK

    def close(self) -> None:
        self._closed.set()


def open_fake_camera(token: str, *, fps: float, width: int, height: int) -> LiveCamera:
    """Open a fake camera; only `still` is checked for repeated frames, or `freeze` would deliver none."""
    driver = FakeDriver(token, fps=fps, width=width, height=height)
    return LiveCamera(token, driver, fps=fps, from_sensor=token == "fake:still")


def _pattern(number: int, height: int, width: int) -> UInt8:
    """Draw eight colour bars that move four pixels a frame, above a grey ramp."""
    bars = ((np.arange(width) + 4 * number) * 8 // width) % 8
    card = np.empty((height, width, 3), np.uint8)
    card[:] = np.stack([(bars >> bit & 1) * 255 for bit in (2, 1, 0)], axis=1)  # (w,) -> (w, 3)
    card[height * 3 // 4 :] = (np.arange(width) * 255 // max(1, width - 1))[:, None]
    return card


def _black(_number: int, height: int, width: int) -> UInt8:
    return np.zeros((height, width, 3), np.uint8)


def _still(_number: int, height: int, width: int) -> UInt8:
    return _pattern(0, height, width)


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
    "black": _black,
    "still": _still,
    "freeze": _pattern,
    "unplug": _pattern,
    "hang": _pattern,
}
MICROPHONES: dict[str, Callable[[int], Float32]] = {
    "tone": _tone,
    "noise": _noise,
    "silence": _silence,
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
