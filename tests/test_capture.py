"""A sensor that repeats itself is told from a quiet scene."""

from __future__ import annotations

import numpy as np
import pytest

from edge.capture import FROZEN_S, Sensor
from edge.errors import DeviceError

SHAPE = (48, 64, 3)
STEP_NS = round(FROZEN_S * 1e9 / 4)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def test_sensor_with_noise_is_alive() -> None:
    """From the second picture on, and for ever."""
    sensor = Sensor()
    assert [sensor.is_alive(noise(n), n * STEP_NS) for n in range(9)] == [False] + [True] * 8


def test_sensor_that_gets_stuck() -> None:
    """Exactly `FROZEN_S` of one picture is waited for, one nanosecond more is a fault."""
    sensor = Sensor()
    sensor.is_alive(noise(0), 0)
    assert sensor.is_alive(noise(1), 0)
    assert [sensor.is_alive(noise(1), n * STEP_NS) for n in range(1, 5)] == [True] * 4
    with pytest.raises(DeviceError, match="the same picture for 4 s; ") as caught:
        sensor.is_alive(noise(1), 4 * STEP_NS + 1)
    assert caught.value.reason == "frozen"


def test_sensor_that_is_stuck_from_the_start() -> None:
    """Opened again, a stuck camera shows nothing at all: it would seem to recover."""
    sensor = Sensor()
    assert [sensor.is_alive(noise(1), n * STEP_NS) for n in range(5)] == [False] * 5
    with pytest.raises(DeviceError):
        sensor.is_alive(noise(1), 5 * STEP_NS)


def test_one_pixel_is_life_enough() -> None:
    """A difference of one step in one pixel, between the sampled ones, counts."""
    sensor = Sensor()
    sensor.is_alive(noise(1), 0)
    changed = noise(1)
    changed[13, 17, 1] ^= 1
    assert sensor.is_alive(changed, 9 * STEP_NS)


def test_dark_room_is_not_a_fault() -> None:
    """At night all pictures may be black and the same."""
    sensor = Sensor()
    black = np.full(SHAPE, 16, np.uint8)
    assert [sensor.is_alive(black.copy(), n * STEP_NS) for n in range(20)] == [True] * 20
