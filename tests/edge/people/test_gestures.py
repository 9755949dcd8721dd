"""Yawns are distinguished from talk and laughter, nods of sleep from nods in talk and from reading."""

from __future__ import annotations

import pytest

from edge.people.gestures import (
    LONGEST_NOD_S,
    NOD_DEG,
    REMEMBER_S,
    SHORTEST_NOD_S,
    WIDE,
    Nods,
    Yawns,
    is_wide,
)
from tests.helpers.lids import SECOND, times


def yawns_after(
    wide_s: float, *, hz: float = 10.0, mouth: float = 0.45, yawning: float | None = None
) -> Yawns:
    """Return the yawns of a mouth that is wide for `wide_s`."""
    yawns = Yawns()
    for t_ns in times(0, wide_s + 4, hz):
        wide = 2 * SECOND <= t_ns <= round((2 + wide_s) * SECOND)
        yawns.add(t_ns, mouth if wide else 0.05, yawning if wide else None)
    return yawns


@pytest.mark.parametrize(("wide_s", "count"), [(1.4, 0), (1.5, 1), (1.6, 1), (6.0, 1)])
def test_a_yawn_keeps_the_mouth_wide_for_one_and_a_half_seconds(wide_s: float, count: int) -> None:
    """One frame short is no yawn; a long one counts once."""
    yawns = yawns_after(wide_s)
    assert yawns.recent(round((wide_s + 4) * SECOND)) == count


@pytest.mark.parametrize("hz", [3.0, 30.0])
def test_yawns_are_found_at_any_rate(hz: float) -> None:
    """Three frames a second are enough."""
    assert yawns_after(4.0, hz=hz).recent(8 * SECOND) == 1


def test_talk_is_no_yawn() -> None:
    """A mouth that opens for every syllable is not wide for long enough."""
    yawns = Yawns()
    for k, t_ns in enumerate(times(0, 60, 10)):
        yawns.add(t_ns, 0.6 if k % 8 < 3 else 0.1, None)
    assert yawns.recent(60 * SECOND) == 0


def test_one_narrow_frame_does_not_end_a_yawn() -> None:
    """Wrong landmarks for a third of a second do not matter."""
    yawns = Yawns()
    for k, t_ns in enumerate(times(0, 3, 10)):
        yawns.add(t_ns, 0.2 if k == 8 else 0.45, None)
    assert yawns.recent(60 * SECOND) == 1


def test_a_gap_ends_a_yawn() -> None:
    """A mouth that is wide before and after a second without frames may be two words."""
    yawns = Yawns()
    for t_ns in (*times(0, 1, 10), *times(2, 1, 10)):
        yawns.add(t_ns, 0.45, None)
    assert yawns.recent(60 * SECOND) == 0


@pytest.mark.parametrize(
    ("mouth", "yawning", "wide"),
    [
        (WIDE, None, True),
        (WIDE - 0.01, None, False),
        (WIDE, 0.49, False),
        (WIDE, 0.5, True),
        (0.5, 0.1, True),
        (0.1, 0.99, False),
        (None, 0.5, True),
        (None, 0.4, False),
        (None, None, False),
    ],
)
def test_opening_and_network_must_agree(mouth: float | None, yawning: float | None, wide: bool) -> None:
    """A half-open mouth needs a probable yawn, a wide one does not; the network alone needs no mesh."""
    assert is_wide(mouth, yawning) == wide


def test_yawns_are_remembered_for_five_minutes() -> None:
    """After that they no longer count."""
    yawns = yawns_after(2.0)
    end_ns = round(3.5 * SECOND)
    assert yawns.recent(end_ns + int(REMEMBER_S * SECOND) - 1) == 1
    assert yawns.recent(end_ns + int(REMEMBER_S * SECOND)) == 0


def test_a_mouth_open_for_long_is_not_a_yawn_going_on() -> None:
    """Sleeping people keep it open, and their closed eyes must count."""
    yawns = Yawns()
    going_on = []
    for t_ns in times(0, 12, 10):
        yawns.add(t_ns, 0.5, None)
        going_on.append(yawns.is_going_on)
    assert going_on[10]
    assert going_on[80]
    assert not going_on[81]


def nods_after(drop_deg: float, seconds: float, *, usual_deg: float = -8.0, quiet_s: float = 10.0) -> Nods:
    """Return the nods of a head at `usual_deg` that sinks by `drop_deg` for `seconds` and comes up again."""
    nods = Nods(60.0)
    for t_ns in times(0, quiet_s + seconds + 2, 10):
        down = quiet_s * SECOND <= t_ns < round((quiet_s + seconds) * SECOND)
        nods.add(t_ns, usual_deg + (drop_deg if down else 0.0))
    return nods


@pytest.mark.parametrize(
    ("drop_deg", "seconds", "count"),
    [
        (NOD_DEG - 0.1, 1.0, 0),
        (NOD_DEG, 1.0, 1),
        (NOD_DEG + 10, 1.0, 1),
        (30, SHORTEST_NOD_S - 0.1, 0),
        (30, SHORTEST_NOD_S, 1),
        (30, LONGEST_NOD_S, 1),
        (30, LONGEST_NOD_S + 0.1, 0),
        (-30, 1.0, 0),
    ],
)
def test_a_sinking_head_is_deep_and_neither_quick_nor_long(
    drop_deg: float, seconds: float, count: int
) -> None:
    """Relative to the usual pitch of the person; a raised head and one bent over a book do not count."""
    assert nods_after(drop_deg, seconds).recent(20 * SECOND) == count


def test_no_nod_before_the_usual_pitch_is_known() -> None:
    """In the first seconds there is no usual pitch."""
    assert nods_after(30, 1.0, quiet_s=3.0).recent(20 * SECOND) == 0


def test_nods_are_remembered_for_five_minutes_and_no_gap_makes_one() -> None:
    """A head that is down before a gap and up after it does not count."""
    nods = nods_after(30, 1.0)
    for t_ns in (*times(20, 1, 10), *times(22, 1, 10)):
        nods.add(t_ns, 25.0 if t_ns < 21 * SECOND else -8.0)
    assert nods.recent(23 * SECOND) == 1
    assert nods.recent(400 * SECOND) == 0
