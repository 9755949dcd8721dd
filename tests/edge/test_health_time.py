"""Times of messages while the system clock is set."""

from __future__ import annotations

from datetime import timedelta

import pytest

from edge.health import EPOCH, Health, StreamTime

S = 1_000_000_000
DAY = 86_400
START_S = 1_800_000_000  # in 2027


class Clock:
    """A system clock that a test sets, in seconds after `START_S`, and the health of a device with it."""

    def __init__(self, wall_s: float = 0.0) -> None:
        self.wall_s = wall_s
        self.health = Health(StreamTime(lambda: START_S * S + round(self.wall_s * 1000) * 1_000_000))

    @property
    def reasons(self) -> list[str]:
        """The reasons of the device now."""
        self.health.check_time()
        return self.health.reasons

    def times(self) -> tuple[float, float]:
        """Return the times of a state and of an event now."""
        state, event = self.health.time.now(), self.health.time.of_event(0)
        start = EPOCH + timedelta(seconds=START_S)
        return (state - start).total_seconds(), (event - start).total_seconds()


def test_clock_set_back_three_days() -> None:
    """Times go on by a millisecond a message, with a fault, until the clock has caught up."""
    clock = Clock()
    before = clock.times()
    assert clock.reasons == []
    clock.wall_s = 10 - 3 * DAY
    for count in (1, 2):
        state, event = clock.times()
        assert state == pytest.approx(before[0] + count * 0.001)
        assert event > state
    assert clock.reasons == ["time:set_back"]
    clock.wall_s = 20
    assert clock.times() == (20, 20)
    assert clock.reasons == []


def test_since_of_the_status_does_not_go_back() -> None:
    """`since` of a fault that begins after the jump is after the one before."""
    clock = Clock()
    clock.health.fault("camera", "timeout", "")
    before = clock.health.since
    clock.wall_s = -3 * DAY
    clock.health.clear("camera")
    assert clock.health.since > before


def test_clock_set_forward_is_followed() -> None:
    """A device without a battery clock starts in the past; its times are right once the clock is."""
    clock = Clock(-START_S)
    clock.times()
    clock.wall_s = 0
    assert clock.times() == (0, 0)
    assert clock.reasons == []


def test_clock_that_was_in_2099_is_followed_back() -> None:
    """Otherwise all times stayed in 2099; the jump is reported for a minute."""
    clock = Clock(73 * 365 * DAY)
    clock.times()
    clock.wall_s = 0
    assert clock.times() == (0, 0)
    clock.wall_s = 59
    assert clock.reasons == ["time:set_back"]
    clock.wall_s = 60
    assert clock.reasons == []


@pytest.mark.parametrize(("back_s", "is_followed"), [(30 * DAY, False), (30 * DAY + 1, True)])
def test_limit_of_following_back(back_s: int, is_followed: bool) -> None:
    """A clock that was ahead by 30 days is not followed back, a second more is."""
    clock = Clock()
    newest_s = (clock.health.time.now() - EPOCH).total_seconds() - START_S
    clock.wall_s = newest_s - back_s
    assert (clock.times()[0] < newest_s) is is_followed
    assert clock.reasons == ["time:set_back"]


def test_unset_clock_after_a_restart() -> None:
    """A device that boots in 1970 does not send its events there: it goes on after the last one."""
    clock = Clock(-START_S)
    clock.health.resume(EPOCH + timedelta(seconds=START_S))
    state, event = clock.times()
    assert state > 0
    assert event > 0
    assert clock.reasons == ["time:set_back"]
    clock.wall_s = 100
    assert clock.times() == (100, 100)
    assert clock.reasons == []


@pytest.mark.parametrize(("back_s", "reasons"), [(1, []), (2, ["time:set_back"])])
def test_small_steps_are_not_reported(back_s: int, reasons: list[str]) -> None:
    """Exactly the tolerance is not reported; the times go on in both cases."""
    clock = Clock()
    newest_s = (clock.health.time.now() - EPOCH).total_seconds() - START_S
    clock.wall_s = newest_s - back_s
    assert clock.reasons == reasons


def test_event_that_was_captured_before_an_earlier_one() -> None:
    """An audio window may be older than the frame whose event was recorded first: it gets a later time."""
    clock = Clock()
    first = clock.health.time.of_event(0)
    assert first < clock.health.time.of_event(S) < first + timedelta(seconds=1)
