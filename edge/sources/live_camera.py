"""Fetches the pictures of a live camera, of which only the newest one waits, and sees when it is stuck."""

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

FROZEN_S = 4.0  # a camera that shows nothing new for so long is stuck, whatever its driver believes
_SPARSE = 24  # every so many pixels are compared first
_BLACK = 8  # steps of brightness: in a dark room one picture is like the other


class Driver(Protocol):
    """A camera that is open, used by one thread except for `cancel`."""

    def grab(self) -> bool:
        """Block until the next picture; False when there will be none."""

    def retrieve(self) -> UInt8 | None:
        """Convert what was grabbed to (h, w, 3) uint8 RGB; None where it is damaged."""

    def cancel(self) -> None:
        """Make `grab` return soon, where the driver has a way; called by any thread."""

    def release(self) -> None:
        """Give the device back; may hang in the driver."""


class Sensor:
    """Tells a stuck sensor from a quiet scene: noise makes every true picture another one.

    Only for pictures as a sensor gives them: a video stream repeats itself where nothing moves.
    """

    def __init__(self) -> None:
        self._last: UInt8 | None = None
        self._moved_ns: int | None = None
        self._is_alive = False

    def is_alive(self, pixels: UInt8, t_ns: int) -> bool:
        """Take the next picture (h, w, 3); False until one differed from the picture before it.

        So a stuck camera that is opened again does not seem to recover. Raises `DeviceError` after `FROZEN_S`
        of the same picture, bit by bit. A dark room is not stuck: there one picture is like the other.
        """
        last, self._last = self._last, pixels
        if self._moved_ns is None:
            self._moved_ns = t_ns
        if _is_dark(pixels) or (last is not None and not _are_same(last, pixels)):
            self._moved_ns, self._is_alive = t_ns, True
        elif t_ns - self._moved_ns > FROZEN_S * 1e9:
            raise DeviceError(
                f"the same picture for {FROZEN_S:g} s; switch the camera off and on", reason="frozen"
            )
        return self._is_alive


def _is_dark(pixels: UInt8) -> bool:
    return int(np.ptp(pixels[::_SPARSE, ::_SPARSE])) <= _BLACK


def _are_same(one: UInt8, other: UInt8) -> bool:
    if not np.array_equal(one[::_SPARSE, ::_SPARSE], other[::_SPARSE, ::_SPARSE]):
        return False
    return np.array_equal(one, other)


class LiveCamera:
    """A device whose pictures are fetched by a thread of its own, so that only the newest one waits.

    At most `fps` pictures a second are converted; the others are thrown away as the driver hands them out.
    Iterating raises `DeviceError` when the driver fails, is silent or (with `from_sensor`) repeats itself
    for `FROZEN_S`.
    """

    def __init__(self, name: str, driver: Driver, *, fps: float, from_sensor: bool = False) -> None:
        self.name = name
        self._driver = driver
        self._limiter = FrameRateLimiter(fps)
        self._sensor = Sensor() if from_sensor else None
        self._news = threading.Condition()
        self._frame: Frame | None = None
        self._dropped = 0  # since the frame that was taken last
        self._error: DeviceError | None = None
        self._closed = False
        self._grabbed_s = time.monotonic()
        self._thread = DriverThread("camera", self._grab)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._closed or self._frame or self._error, FROZEN_S / 8)
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
                    f"{self.name}: no picture for {FROZEN_S:g} s; check its cable and power", reason="timeout"
                )

    def close(self) -> None:
        """End the iteration at once and release the device; a driver that hangs is left behind."""
        with self._news:
            self._closed = True
            self._frame = None
            self._news.notify_all()
        self._driver.cancel()
        self._thread.leave()

    def _grab(self) -> None:
        try:
            while not self._closed:
                if not self._driver.grab():
                    raise DeviceError("stopped sending pictures; connect it again")
                t_ns = time.monotonic_ns()
                self._grabbed_s = t_ns / 1e9
                if self._limiter.accepts(t_ns):
                    self._show(t_ns)
        except DeviceError as error:
            self._tell(error=DeviceError(f"{self.name}: {error}", reason=error.reason))
        except Exception as error:  # the outermost loop of a thread: a driver may throw anything
            self._tell(error=DeviceError(f"{self.name}: the driver failed ({error}); connect it again"))
        finally:
            self._driver.release()

    def _show(self, t_ns: int) -> None:
        pixels = self._driver.retrieve()
        if pixels is None:
            with self._news:
                self._dropped += 1
            return
        if self._sensor is None or self._sensor.is_alive(pixels, t_ns):
            self._tell(frame=Frame(pixels, t_ns))

    def _tell(self, *, frame: Frame | None = None, error: DeviceError | None = None) -> None:
        with self._news:
            self._dropped += self._frame is not None
            self._frame, self._error = frame, error
            self._news.notify_all()
