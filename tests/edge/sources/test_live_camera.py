"""A live camera counts the frames that it drops; a stuck sensor is distinguished from a still scene."""

from __future__ import annotations

import queue
from contextlib import closing

import numpy as np
import pytest

from edge.errors import DeviceError
from edge.sources.live_camera import FROZEN_S, FrozenDetector, LiveCamera
from tests.helpers.brokers import wait_until

SHAPE = (48, 64, 3)
STEP_NS = round(FROZEN_S * 1e9 / 4)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def test_sensor_with_noise_is_alive() -> None:
    """Frames that differ are accepted from the second one on."""
    detector = FrozenDetector()
    assert [detector.is_alive(noise(n), n * STEP_NS) for n in range(9)] == [False] + [True] * 8


def test_sensor_that_gets_stuck() -> None:
    """`FROZEN_S` of one frame is accepted; one nanosecond more is a fault."""
    detector = FrozenDetector()
    detector.is_alive(noise(0), 0)
    assert detector.is_alive(noise(1), 0)
    assert [detector.is_alive(noise(1), n * STEP_NS) for n in range(1, 5)] == [True] * 4
    with pytest.raises(DeviceError, match="the same frame for 4 s; ") as caught:
        detector.is_alive(noise(1), 4 * STEP_NS + 1)
    assert caught.value.reason == "frozen"


def test_sensor_that_is_stuck_from_the_start() -> None:
    """A stuck camera that is reopened delivers no frame, so it does not seem to recover."""
    detector = FrozenDetector()
    assert [detector.is_alive(noise(1), n * STEP_NS) for n in range(5)] == [False] * 5
    with pytest.raises(DeviceError):
        detector.is_alive(noise(1), 5 * STEP_NS)


def test_one_pixel_is_enough() -> None:
    """A difference of one step in one pixel between the sampled ones counts."""
    detector = FrozenDetector()
    detector.is_alive(noise(1), 0)
    changed = noise(1)
    changed[13, 17, 1] ^= 1
    assert detector.is_alive(changed, 9 * STEP_NS)


def test_dark_room_is_not_a_fault() -> None:
    """Black frames may be equal."""
    detector = FrozenDetector()
    black = np.full(SHAPE, 16, np.uint8)
    assert [detector.is_alive(black.copy(), n * STEP_NS) for n in range(20)] == [True] * 20


class Handed:
    """A driver that delivers the frames of a test: a number is a brightness, None a damaged frame."""

    def __init__(self) -> None:
        self._pictures: queue.Queue[int | None] = queue.Queue()
        self._handed = self._asked = 0
        self._next: int | None = None

    def grab(self) -> bool:
        self._asked += 1
        self._next = self._pictures.get()
        return True

    def retrieve(self) -> np.ndarray | None:
        return None if self._next is None else np.full(SHAPE, self._next, np.uint8)

    def cancel(self) -> None:
        self._pictures.put(None)

    def release(self) -> None:
        """It holds no device."""

    def hand(self, *pictures: int | None) -> None:
        """Deliver these frames and wait until the camera asks for the next one."""
        for picture in pictures:
            self._pictures.put(picture)
        self._handed += len(pictures)
        wait_until(lambda: self._asked > self._handed, "the camera took them all")


def test_frames_that_are_not_read_are_counted() -> None:
    """The newest frame waits; its `dropped` counts those that it replaced and the damaged ones."""
    driver = Handed()
    with closing(LiveCamera("handed", driver, fps=1e9)) as camera:
        frames = iter(camera)
        seen = []
        for pictures in [(1,), (2, 3), (4, None, 5), (6, None), (7,)]:
            driver.hand(*pictures)
            frame = next(frames)
            seen.append((int(frame.pixels[0, 0, 0]), frame.dropped))
    assert seen == [(1, 0), (3, 1), (5, 2), (6, 1), (7, 0)]


def test_frames_beyond_the_wanted_rate_do_not_count() -> None:
    """At one frame an hour, the skipped frames are not counted as dropped."""
    driver = Handed()
    with closing(LiveCamera("handed", driver, fps=1 / 3600)) as camera:
        driver.hand(1, 2, 3)
        frame = next(iter(camera))
    assert (int(frame.pixels[0, 0, 0]), frame.dropped) == (1, 0)
