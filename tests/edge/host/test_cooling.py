"""The frame rate falls in steps at the limit and rises in steps well below it."""

from __future__ import annotations

import pytest

from edge.host.cooling import DOWN_EVERY_S, FACTORS, UP_EVERY_S, CoolingController, FrameGate

LIMIT_C = 78.0
JUST = 0.001


def hot(seconds: float) -> CoolingController:
    """Return a controller at the limit from 0 s, updated every second."""
    cooler = CoolingController(LIMIT_C)
    for second in range(int(seconds) + 1):
        cooler.update(LIMIT_C, float(second))
    return cooler


@pytest.mark.parametrize(("temperature_c", "factor"), [(LIMIT_C - JUST, 1.0), (LIMIT_C, 0.5)])
def test_falls_exactly_at_the_limit(temperature_c: float, factor: float) -> None:
    """Just below the limit nothing changes; at the limit the rate is halved at once."""
    assert CoolingController(LIMIT_C).update(temperature_c, 0.0) == factor


@pytest.mark.parametrize(("after_s", "factor"), [(DOWN_EVERY_S - JUST, 0.5), (DOWN_EVERY_S, 0.25)])
def test_next_step_down_waits_for_the_first(after_s: float, factor: float) -> None:
    """The next step follows no sooner than `DOWN_EVERY_S` after the first."""
    cooler = CoolingController(LIMIT_C)
    cooler.update(LIMIT_C, 0.0)
    assert cooler.update(LIMIT_C, after_s) == factor


def test_last_step_is_the_last() -> None:
    """However long it stays hot, some frames are processed."""
    assert hot(1000).factor == FACTORS[-1] > 0


@pytest.mark.parametrize(("temperature_c", "factor"), [(LIMIT_C - 5 + JUST, 0.1), (LIMIT_C - 5, 0.25)])
def test_recovers_exactly_five_below(temperature_c: float, factor: float) -> None:
    """Between limit and recovery nothing changes, so the rate does not oscillate."""
    assert hot(100).update(temperature_c, 1000.0) == factor


@pytest.mark.parametrize(("after_s", "factor"), [(UP_EVERY_S - JUST, 0.5), (UP_EVERY_S, 1.0)])
def test_recovery_waits(after_s: float, factor: float) -> None:
    """A step up follows no sooner than a minute after the last step."""
    cooler = CoolingController(LIMIT_C)
    cooler.update(LIMIT_C, 0.0)
    assert cooler.update(20.0, after_s) == factor


def test_recovers_step_by_step() -> None:
    """From the last factor to the first, without skipping one."""
    cooler, seen = hot(50), []
    for second in range(51, 51 + 4 * int(UP_EVERY_S)):
        seen.append(cooler.update(40.0, float(second)))
    assert list(dict.fromkeys(seen)) == list(reversed(FACTORS))


def test_lost_sensor_counts_as_cool() -> None:
    """A failed sensor does not keep the camera slow."""
    assert hot(0).update(None, UP_EVERY_S) == 1.0


@pytest.mark.parametrize(("factor", "taken"), [(1.0, 100), (0.5, 50), (0.25, 25), (0.1, 10)])
@pytest.mark.parametrize("fps", [10.0, 30.0])
def test_gate_accepts_that_share(fps: float, factor: float, taken: int) -> None:
    """Of 100 frames the share is accepted, evenly, with and without jitter."""
    gate = FrameGate(fps)
    gate.set_factor(factor)
    jitter = [0, 1_000_000, -1_000_000, 500_000]
    times = [round(n * 1e9 / fps) + jitter[n % 4] for n in range(100)]
    assert sum(gate.accepts(t_ns) for t_ns in times) == pytest.approx(taken, abs=1)


def test_same_factor_does_not_reset_the_gate() -> None:
    """Setting the same factor again accepts no extra frame."""
    gate = FrameGate(10.0)
    taken = 0
    for number in range(100):
        gate.set_factor(0.1)
        taken += gate.accepts(number * 100_000_000)
    assert taken == pytest.approx(10, abs=1)
