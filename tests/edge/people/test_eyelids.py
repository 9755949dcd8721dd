"""Blinks, closures and PERCLOS are counted as they were, whatever the frame rate and whatever is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edge.people.eyelids import BLINK_HZ, ENOUGH_S, GAP_S, LID_S, Eyelids
from edge.settings import FatigueSettings
from tests.helpers.lids import OPEN, SECOND, SHUT, blinks, looks, times


def lids_after(
    closures: Sequence[tuple[float, float]], *, seconds: float, hz: float = 10.0, **settings: Any
) -> Eyelids:
    """Return lids that were looked at for so long."""
    lids = Eyelids(FatigueSettings(**settings))
    for reading in looks(closures, seconds=seconds, hz=hz):
        assert reading.closed is not None
        lids.add(reading.t_ns, reading.closed)
    lids.expire(round(seconds * SECOND))
    return lids


@pytest.mark.parametrize("hz", [10, 15, 30])
def test_blinks_have_their_number_and_length(hz: float) -> None:
    """15 blinks of 0.2 s in a minute are found as such, and make their share of the time."""
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


def test_a_closure_shorter_than_the_way_of_a_lid_covers_nothing() -> None:
    """What is taken back for the way of the lid is never more than there was."""
    lids = lids_after(blinks(20, blink_s=2 / 30), seconds=20, hz=30)
    assert lids.perclos == 0
    assert lids.blinks_per_min == pytest.approx(15, abs=0.3)


def test_a_microsleep_counts_while_it_lasts_and_once() -> None:
    """Nobody waits for eyes to open; a long closure is one."""
    lids = Eyelids(FatigueSettings())
    counts = []
    for reading in looks([(1.0, 5.0)], seconds=8):
        lids.add(reading.t_ns, reading.closed or 0)
        counts.append(lids.microsleeps)
    assert counts[14] == 0
    assert counts[15] == 1  # closed since 0.95 s, half a picture before it was seen
    assert counts[-1] == 1


@pytest.mark.parametrize(("gap_s", "share"), [(GAP_S - 0.1, 1.0), (GAP_S, 1.0), (GAP_S + 0.1, None)])
def test_a_gap_is_neither_closed_nor_open(gap_s: float, share: float | None) -> None:
    """Eyes closed before and after a long gap were not seen in between; after a short one they were."""
    lids = Eyelids(FatigueSettings())
    for k in range(12):
        lids.add(round(k * gap_s * SECOND), SHUT)
    assert lids.perclos == share
    assert lids.seen_s == pytest.approx(0 if share is None else 11 * gap_s)


def test_time_away_is_not_counted() -> None:
    """Half a minute without looks leaves the share and the rate as they were, and ends a closure."""
    lids = lids_after([(19.5, 1.0)], seconds=20)
    share, closed_s = lids.perclos, lids.closed_s
    assert closed_s == pytest.approx(0.45)
    for reading in looks([(50.0, 0.3)], seconds=1, start_s=50):
        lids.add(reading.t_ns, reading.closed or 0)
    assert lids.microsleeps == 0
    assert lids.seen_s == pytest.approx(20.8)
    assert lids.perclos == pytest.approx((0.45 + 0.25) / 20.8, abs=0.005)
    assert share == pytest.approx(0.45 / 19.9, abs=0.005)
    # A closure whose beginning fell into the gap is no blink.
    assert lids.blinks_per_min == 0


def test_dropped_frames_leave_the_figures() -> None:
    """Every third picture of thirty a second lost by chance: the same share, the same number of blinks."""
    lids = Eyelids(FatigueSettings())
    for k, reading in enumerate(looks(blinks(60), seconds=60, hz=30)):
        if (k * 7919) % 3:
            lids.add(reading.t_ns, reading.closed or 0)
    assert lids.perclos == pytest.approx(15 * (0.2 - LID_S) / 60, abs=0.002)
    assert lids.blinks_per_min == pytest.approx(15, abs=0.3)


def test_three_pictures_a_second_give_a_share_but_no_blinks() -> None:
    """Below five pictures a second most blinks fall between two of them; a share of time does not."""
    lids = lids_after([(t, 1.0) for t in range(5, 60, 10)], seconds=60, hz=3)
    assert lids.rate_hz == pytest.approx(3)
    assert lids.blinks_per_min is None
    assert lids.blink_s is None
    assert lids.perclos == pytest.approx(0.1, abs=0.02)
    assert lids.microsleeps == 6


@pytest.mark.parametrize(("hz", "is_counted"), [(BLINK_HZ - 0.5, False), (BLINK_HZ, True), (6.0, True)])
def test_blinks_are_counted_from_five_pictures_a_second_on(hz: float, is_counted: bool) -> None:
    """Exactly five are enough."""
    assert (lids_after([], seconds=20, hz=hz).blinks_per_min is not None) == is_counted


@pytest.mark.parametrize(("looked_s", "is_known"), [(ENOUGH_S, False), (ENOUGH_S + 0.1, True)])
def test_nothing_is_said_after_a_few_seconds(looked_s: float, is_known: bool) -> None:
    """Five seconds must lie between the first look and the last."""
    lids = lids_after([], seconds=looked_s)
    assert (lids.perclos is not None) == is_known
    assert (lids.blinks_per_min is not None) == is_known


def test_what_is_older_than_the_window_is_forgotten() -> None:
    """Closures leave with the minute that they belong to."""
    lids = lids_after([(10.0, 0.2), (20.0, 2.0)], seconds=30)
    lids.expire(71 * SECOND)
    assert lids.microsleeps == 1
    assert lids.blinks_per_min == 0
    lids.expire(83 * SECOND)
    assert (lids.microsleeps, lids.perclos) == (0, 0.0)
    lids.expire(90 * SECOND)
    assert (lids.seen_s, lids.rate_hz, lids.perclos) == (0, 0, None)


def test_one_wrong_picture_of_thirty_is_no_blink() -> None:
    """No lid is that fast; at ten a second one picture is all that a blink may have."""
    assert lids_after([(5.0, 1 / 30)], seconds=10, hz=30).blinks_per_min == 0
    assert lids_after([(5.0, 2 / 30)], seconds=10, hz=30).blinks_per_min == pytest.approx(6, abs=0.1)
    assert lids_after([(5.0, 0.1)], seconds=10, hz=10).blinks_per_min == pytest.approx(6, abs=0.1)


def test_narrow_eyes_are_learnt_in_the_first_minute() -> None:
    """Somebody whose open eyes look half closed is not drowsy, and their blinks count."""
    lids = Eyelids(FatigueSettings())
    for reading in looks(blinks(120), seconds=120):
        lids.add(reading.t_ns, 0.6 if reading.closed == OPEN else 0.95)
    assert lids.baseline is not None
    assert lids.baseline.open_level == pytest.approx(0.4)
    assert lids.baseline.blinks_per_min == pytest.approx(15, abs=2)
    lids.expire(120 * SECOND)
    assert lids.perclos == pytest.approx(15 * (0.2 - LID_S) / 60, abs=0.005)


@pytest.mark.parametrize(("seconds", "is_known"), [(30.0, False), (30.1, True)])
def test_baseline_takes_its_time_and_stays(seconds: float, is_known: bool) -> None:
    """It is there after `baseline_s` of seen eyes, and what comes later does not move it."""
    lids = lids_after(blinks(30), seconds=seconds, baseline_s=30.0)
    assert (lids.baseline is not None) == is_known
    before = lids.baseline
    for t_ns in times(seconds, 60, 10):
        lids.add(t_ns, SHUT)
    assert not is_known or lids.baseline == before


def test_who_sleeps_from_the_start_teaches_nothing() -> None:
    """Closed eyes in the first minute stay closed eyes."""
    lids = lids_after([(0.0, 90.0)], seconds=90)
    assert lids.perclos == 1
    assert lids.closed_s == pytest.approx(89.9)


def test_eyes_that_flutter_about_the_middle_do_not_blink() -> None:
    """An eye stays what it was until it is clearly something else."""
    lids = Eyelids(FatigueSettings())
    for k, t_ns in enumerate(times(0, 20, 10)):
        lids.add(t_ns, 0.52 if k % 2 else 0.48)
    assert lids.blinks_per_min == 0


def test_looks_out_of_order_are_ignored() -> None:
    """What is not newer says nothing."""
    lids = lids_after([], seconds=10)
    lids.add(5 * SECOND, SHUT)
    assert lids.closed_s == 0
    assert lids.seen_s == pytest.approx(9.9)


@pytest.mark.parametrize(("seconds", "lives"), [(39.9, True), (40.2, False)])
def test_eyes_that_stay_open_for_minutes_are_not_lifelike(seconds: float, lives: bool) -> None:
    """Before the first blink and `no_blink_s` after the last one nothing proves that somebody is there."""
    assert not lids_after([], seconds=10).is_lifelike
    lids = lids_after([(9.8, 0.2)], seconds=seconds, no_blink_s=30.0)
    assert lids.is_lifelike == lives
