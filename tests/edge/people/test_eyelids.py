"""Blinks, closures and PERCLOS are measured correctly at any frame rate and with missing frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edge.people.eyelids import BLINK_HZ, ENOUGH_S, GAP_S, LID_S, Eyelids
from edge.settings import FatigueSettings
from tests.helpers.lids import OPEN, SECOND, SHUT, blinks, eye_measurements, times


def lids_after(
    closures: Sequence[tuple[float, float]], *, seconds: float, hz: float = 10.0, **settings: Any
) -> Eyelids:
    """Return lids after `seconds` of measurements."""
    lids = Eyelids(FatigueSettings(**settings))
    for face in eye_measurements(closures, seconds=seconds, hz=hz):
        assert face.closed is not None
        lids.add(face.t_ns, face.closed)
    lids.expire(round(seconds * SECOND))
    return lids


@pytest.mark.parametrize("hz", [10, 15, 30])
def test_blinks_have_their_number_and_length(hz: float) -> None:
    """15 blinks of 0.2 s in a minute are counted, and their share of the time is measured."""
    lids = lids_after(blinks(60), seconds=60, hz=hz)
    assert lids.blinks_per_min == pytest.approx(15, abs=0.3)
    assert lids.blink_s == pytest.approx(0.2, abs=0.02)
    assert lids.perclos == pytest.approx(15 * (0.2 - LID_S) / 60, abs=0.002)
    assert lids.microsleeps == 0


@pytest.mark.parametrize(("frames", "microsleeps"), [(4, 0), (5, 1), (6, 1)])
def test_a_closure_is_a_microsleep_from_half_a_second_on(frames: int, microsleeps: int) -> None:
    """One frame short of 0.5 s is a blink, exactly 0.5 s and one frame over are not."""
    lids = lids_after([(3.0, frames / 10)], seconds=8)
    assert lids.microsleeps == microsleeps
    assert lids.blinks_per_min == pytest.approx(60 * (1 - microsleeps) / 7.9)


def test_a_closure_shorter_than_the_movement_of_a_lid_covers_nothing() -> None:
    """The correction for the movement of the lid is at most the closure itself."""
    lids = lids_after(blinks(20, blink_s=2 / 30), seconds=20, hz=30)
    assert lids.perclos == 0
    assert lids.blinks_per_min == pytest.approx(15, abs=0.3)


def test_a_microsleep_counts_while_it_lasts_and_once() -> None:
    """It counts before the eyes open; a long closure counts once."""
    lids = Eyelids(FatigueSettings())
    counts = []
    for face in eye_measurements([(1.0, 5.0)], seconds=8):
        lids.add(face.t_ns, face.closed or 0)
        counts.append(lids.microsleeps)
    assert counts[14] == 0
    assert counts[15] == 1  # closed since 0.95 s, half a frame before the first closed one
    assert counts[-1] == 1


@pytest.mark.parametrize(("gap_s", "share"), [(GAP_S - 0.1, 1.0), (GAP_S, 1.0), (GAP_S + 0.1, None)])
def test_a_gap_is_neither_closed_nor_open(gap_s: float, share: float | None) -> None:
    """Time between two measurements counts up to the limit of a gap, no time in a longer one."""
    lids = Eyelids(FatigueSettings())
    for k in range(12):
        lids.add(round(k * gap_s * SECOND), SHUT)
    assert lids.perclos == share
    assert lids.seen_s == pytest.approx(0 if share is None else 11 * gap_s)


def test_time_without_measurements_is_not_counted() -> None:
    """Half a minute without measurements leaves share and rate unchanged and ends a closure."""
    lids = lids_after([(19.5, 1.0)], seconds=20)
    share, closed_s = lids.perclos, lids.closed_s
    assert closed_s == pytest.approx(0.45)
    for face in eye_measurements([(50.0, 0.3)], seconds=1, start_s=50):
        lids.add(face.t_ns, face.closed or 0)
    assert lids.microsleeps == 0
    assert lids.seen_s == pytest.approx(20.8)
    assert lids.perclos == pytest.approx((0.45 + 0.25) / 20.8, abs=0.005)
    assert share == pytest.approx(0.45 / 19.9, abs=0.005)
    # A closure whose beginning fell into the gap is no blink.
    assert lids.blinks_per_min == 0


def test_dropped_frames_leave_the_figures() -> None:
    """With a third of 30 frames a second lost at random, share and number of blinks are the same."""
    lids = Eyelids(FatigueSettings())
    for k, face in enumerate(eye_measurements(blinks(60), seconds=60, hz=30)):
        if (k * 7919) % 3:
            lids.add(face.t_ns, face.closed or 0)
    assert lids.perclos == pytest.approx(15 * (0.2 - LID_S) / 60, abs=0.002)
    assert lids.blinks_per_min == pytest.approx(15, abs=0.3)


def test_three_frames_a_second_give_a_share_but_no_blinks() -> None:
    """Below five frames a second most blinks fall between two frames; the share of time is still right."""
    lids = lids_after([(t, 1.0) for t in range(5, 60, 10)], seconds=60, hz=3)
    assert lids.rate_hz == pytest.approx(3)
    assert lids.blinks_per_min is None
    assert lids.blink_s is None
    assert lids.perclos == pytest.approx(0.1, abs=0.02)
    assert lids.microsleeps == 6


@pytest.mark.parametrize(("hz", "is_counted"), [(BLINK_HZ - 0.5, False), (BLINK_HZ, True), (6.0, True)])
def test_blinks_are_counted_from_five_frames_a_second_on(hz: float, is_counted: bool) -> None:
    """Exactly five are enough."""
    assert (lids_after([], seconds=20, hz=hz).blinks_per_min is not None) == is_counted


@pytest.mark.parametrize(("measured_s", "is_known"), [(ENOUGH_S, False), (ENOUGH_S + 0.1, True)])
def test_figures_need_a_few_seconds(measured_s: float, is_known: bool) -> None:
    """Five seconds must lie between the first and the last measurement."""
    lids = lids_after([], seconds=measured_s)
    assert (lids.perclos is not None) == is_known
    assert (lids.blinks_per_min is not None) == is_known


def test_figures_cover_the_window_only() -> None:
    """Closures older than a minute are dropped."""
    lids = lids_after([(10.0, 0.2), (20.0, 2.0)], seconds=30)
    lids.expire(71 * SECOND)
    assert lids.microsleeps == 1
    assert lids.blinks_per_min == 0
    lids.expire(83 * SECOND)
    assert (lids.microsleeps, lids.perclos) == (0, 0.0)
    lids.expire(90 * SECOND)
    assert (lids.seen_s, lids.rate_hz, lids.perclos) == (0, 0, None)


def test_one_wrong_frame_of_thirty_is_no_blink() -> None:
    """No lid is that fast; at 10 frames a second one frame may be a blink."""
    assert lids_after([(5.0, 1 / 30)], seconds=10, hz=30).blinks_per_min == 0
    assert lids_after([(5.0, 2 / 30)], seconds=10, hz=30).blinks_per_min == pytest.approx(6, abs=0.1)
    assert lids_after([(5.0, 0.1)], seconds=10, hz=10).blinks_per_min == pytest.approx(6, abs=0.1)


def test_narrow_eyes_are_learnt_in_the_first_minute() -> None:
    """A person whose open eyes look half closed is not drowsy, and blinks are counted."""
    lids = Eyelids(FatigueSettings())
    for face in eye_measurements(blinks(120), seconds=120):
        lids.add(face.t_ns, 0.6 if face.closed == OPEN else 0.95)
    assert lids.baseline is not None
    assert lids.baseline.open_level == pytest.approx(0.4)
    assert lids.baseline.blinks_per_min == pytest.approx(15, abs=2)
    lids.expire(120 * SECOND)
    assert lids.perclos == pytest.approx(15 * (0.2 - LID_S) / 60, abs=0.005)


@pytest.mark.parametrize(("seconds", "is_known"), [(30.0, False), (30.1, True)])
def test_baseline_takes_its_time_and_stays(seconds: float, is_known: bool) -> None:
    """It is known after `baseline_s` of measured time and does not change afterwards."""
    lids = lids_after(blinks(30), seconds=seconds, baseline_s=30.0)
    assert (lids.baseline is not None) == is_known
    before = lids.baseline
    for t_ns in times(seconds, 60, 10):
        lids.add(t_ns, SHUT)
    assert not is_known or lids.baseline == before


def test_sleep_from_the_start_is_no_baseline() -> None:
    """Closed eyes in the first minute stay closed eyes."""
    lids = lids_after([(0.0, 90.0)], seconds=90)
    assert lids.perclos == 1
    assert lids.closed_s == pytest.approx(89.9)


def test_eyes_that_flutter_about_the_middle_do_not_blink() -> None:
    """The hysteresis keeps the eye open or closed."""
    lids = Eyelids(FatigueSettings())
    for k, t_ns in enumerate(times(0, 20, 10)):
        lids.add(t_ns, 0.52 if k % 2 else 0.48)
    assert lids.blinks_per_min == 0


def test_measurements_out_of_order_are_ignored() -> None:
    """Only newer measurements count."""
    lids = lids_after([], seconds=10)
    lids.add(5 * SECOND, SHUT)
    assert lids.closed_s == 0
    assert lids.seen_s == pytest.approx(9.9)


@pytest.mark.parametrize(("seconds", "lives"), [(39.9, True), (40.2, False)])
def test_eyes_that_stay_open_for_minutes_are_not_lifelike(seconds: float, lives: bool) -> None:
    """Before the first blink and `no_blink_s` after the last one there is no proof of a live person."""
    assert not lids_after([], seconds=10).is_lifelike
    lids = lids_after([(9.8, 0.2)], seconds=seconds, no_blink_s=30.0)
    assert lids.is_lifelike == lives
