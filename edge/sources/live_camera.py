"""Reads a live camera: keeps only the newest frame, and detects a camera that is stuck."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from edge.errors import DeviceError
from edge.sources.driver_threads import DriverThread
from edge.sources.rate import FrameRateLimiter
from edge.values import Frame, UInt8

FROZEN_S = 4.0  # a camera without a new frame for this long is stuck, whatever its driver reports
_SPARSE = 24  # step of the pixels that are compared first
_BLACK = 8  # range of brightness in a dark room, where frames may be equal


class Driver(Protocol):
    """An open camera; one thread uses it, except for `cancel`."""

    def grab(self) -> bool:
        """Block until the next frame; return False when no more will come."""

    def retrieve(self) -> UInt8 | None:
        """Convert the grabbed frame to (h, w, 3) uint8 RGB; None if it is damaged."""

    def cancel(self) -> None:
        """Make `grab` return soon, if the driver can; may be called from any thread."""

    def release(self) -> None:
        """Release the device; may hang in the driver."""


class FrozenDetector:
    """Distinguishes a stuck sensor from a still scene: because of noise, two real frames are never equal.

    Only for the raw frames of a sensor: a video stream repeats frames while nothing moves.
    """

    def __init__(self) -> None:
        self._last: UInt8 | None = None
        self._moved_ns: int | None = None
        self._is_alive = False

    def is_alive(self, pixels: UInt8, t_ns: int) -> bool:
        """Add a frame (h, w, 3); return False until one differed from the frame before it.

        So a stuck camera does not seem to recover when it is reopened. Raises `DeviceError` after `FROZEN_S`
        of identical frames. Dark frames are never stuck, because they may be equal.
        """
        last, self._last = self._last, pixels
        if self._moved_ns is None:
            self._moved_ns = t_ns
        if _is_dark(pixels) or (last is not None and not _are_same(last, pixels)):
            self._moved_ns, self._is_alive = t_ns, True
        elif t_ns - self._moved_ns > FROZEN_S * 1e9:
            raise DeviceError(
                f"the same frame for {FROZEN_S:g} s; switch the camera off and on", reason="frozen"
            )
        return self._is_alive


def _is_dark(pixels: UInt8) -> bool:
    return int(np.ptp(pixels[::_SPARSE, ::_SPARSE])) <= _BLACK


def _are_same(one: UInt8, other: UInt8) -> bool:
    if not np.array_equal(one[::_SPARSE, ::_SPARSE], other[::_SPARSE, ::_SPARSE]):
        return False
    return np.array_equal(one, other)


class LiveCamera:
    """A camera read by a thread of its own, so that only the newest frame waits.

    At most `fps` frames a second are converted; the others are dropped before. Iterating raises `DeviceError`
    when the driver fails, or sends no frame or (with `from_sensor`) the same frame for `FROZEN_S`.
    """

    def __init__(self, name: str, driver: Driver, *, fps: float, from_sensor: bool = False) -> None:
        self.name = name
        self._driver = driver
        self._limiter = FrameRateLimiter(fps)
        self._frozen = FrozenDetector() if from_sensor else None
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._dropped = 0  # since the last frame that was read
        self._error: DeviceError | None = None
        self._closed = False
        self._grabbed_s = time.monotonic()
        self._thread = DriverThread("camera", self._grab)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._frame or self._error, FROZEN_S / 8)
                if self._closed:
                    return
                frame, self._frame = self._frame, None
                error = self._error
                if frame is not None:
                    frame, self._dropped = replace(frame, dropped=self._dropped), 0
            if frame is not None:
                yield frame
            elif error is not None:
                raise error
            elif time.monotonic() - self._grabbed_s > FROZEN_S:
                raise DeviceError(
                    f"{self.name}: no frame for {FROZEN_S:g} s; check its cable and power", reason="timeout"
                )

    def close(self) -> None:
        """End the iteration at once and release the device; a driver that hangs is abandoned."""
        with self._changed:
            self._closed = True
            self._frame = None
            self._changed.notify_all()
        self._driver.cancel()
        self._thread.leave()

    def _grab(self) -> None:
        try:
            while not self._closed:
                if not self._driver.grab():
                    raise DeviceError("stopped sending frames; connect it again")
                t_ns = time.monotonic_ns()
                self._grabbed_s = t_ns / 1e9
                if self._limiter.accepts(t_ns):
                    self._convert(t_ns)
        except DeviceError as error:
            self._offer(error=DeviceError(f"{self.name}: {error}", reason=error.reason))
        except Exception as error:  # outermost loop of a thread: a driver may raise anything
            self._offer(error=DeviceError(f"{self.name}: the driver failed ({error}); connect it again"))
        finally:
            self._driver.release()

    def _convert(self, t_ns: int) -> None:
        pixels = self._driver.retrieve()
        if pixels is None:
            with self._changed:
                self._dropped += 1
            return
        if self._frozen is None or self._frozen.is_alive(pixels, t_ns):
            self._offer(frame=Frame(pixels, t_ns))

    def _offer(self, *, frame: Frame | None = None, error: DeviceError | None = None) -> None:
        with self._changed:
            self._dropped += self._frame is not None
            self._frame, self._error = frame, error
            self._changed.notify_all()
