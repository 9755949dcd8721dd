"""Signs of fatigue give a level with reasons for each person and for the room, without false alarms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edge.people.eyelids import ENOUGH_S, LID_S
from edge.people.fatigue import (
    BLIND_S,
    CALM_S,
    GONE_S,
    WAKE_S,
    FatigueChange,
    FatigueMonitor,
    FatigueState,
    FatigueStates,
)
from edge.settings import FatigueSettings
from edge.values import FaceMeasurements
from tests.helpers.lids import SECOND, SHUT, blinks, eye_measurements, times


class Film:
    """A monitor with all its states and changes over time."""

    def __init__(self, **settings: Any) -> None:
        self.monitor = FatigueMonitor(FatigueSettings(**settings))
        self.states: list[tuple[int, FatigueStates]] = []
        self.changes: list[FatigueChange] = []

    def show(
        self, measurements: Iterable[FaceMeasurements], moods: Mapping[str, Mapping[str, float]] | None = None
    ) -> FatigueState:
        """Add the measurements one after the other; return the room after the last."""
        for face in measurements:
            self.monitor.add(face)
            self.tick(face.t_ns, moods)
        return self.room

    def tick(self, now_ns: int, moods: Mapping[str, Mapping[str, float]] | None = None) -> FatigueState:
        """Let time pass."""
        states = self.monitor.update(now_ns, moods)
        self.states.append((now_ns, states))
        self.changes += states.changes
        return states.room

    @property
    def room(self) -> FatigueState:
        return self.states[-1][1].room

    def first(self, *levels: str) -> float:
        """Return the seconds after which the room was first at one of these levels."""
        return next(now_ns for now_ns, states in self.states if states.room.level in levels) / SECOND

    def levels(self) -> list[str]:
        """Return the levels of the room, each once."""
        levels = [states.room.level for _, states in self.states]
        return [level for k, level in enumerate(levels) if k == 0 or level != levels[k - 1]]


def awake(
    seconds: float, *, hz: float = 10.0, start_s: float = 0.0, track: int = 1
) -> list[FaceMeasurements]:
    """Return the measurements of a rested person who blinks."""
    return list(
        eye_measurements(
            blinks(seconds, start_s=start_s), seconds=seconds, hz=hz, start_s=start_s, track=track
        )
    )


def closing(*closures: tuple[float, float], seconds: float, hz: float = 10.0) -> list[FaceMeasurements]:
    """Return the measurements of a person who blinks once, then closes the eyes as given."""
    return list(eye_measurements([(2.0, 0.2), *closures], seconds=seconds, hz=hz))


def test_blinking_person_is_alert_and_has_numbers() -> None:
    """After a minute there are 15 blinks of 0.2 s, their share of the time, a baseline and no reason."""
    room = Film().show(awake(65))
    assert (room.subject, room.level, room.reasons) == ("room", "alert", ())
    assert room.blinks_per_min == pytest.approx(15, abs=1)
    assert room.perclos == pytest.approx(15 * (0.2 - LID_S) / 60, abs=0.003)
    assert room.usual_blink_s == pytest.approx(0.2, abs=0.02)
    assert room.score < 1 / 3


@pytest.mark.parametrize(("settings", "level"), [((0.1, 0.5), "tired"), ((0.05, 0.1), "drowsy")])
def test_closed_eyes_add_up(settings: tuple[float, float], level: str) -> None:
    """A closure of 0.4 s every 3 s, none of them a microsleep, is 11 % of the time."""
    film = Film(perclos_tired=settings[0], perclos_drowsy=settings[1])
    room = film.show(eye_measurements(blinks(60, every_s=3, blink_s=0.4), seconds=60))
    assert (room.level, room.reasons, room.microsleeps) == (level, ("perclos",), 0)
    assert room.perclos == pytest.approx(20 * (0.4 - LID_S) / 60, abs=0.01)


@pytest.mark.parametrize(("closures", "level"), [(24, "alert"), (25, "tired"), (26, "tired")])
def test_the_limit_itself_is_tired(closures: int, level: str) -> None:
    """Exactly `perclos_tired` of the window is tired, a little less is not."""
    # 101 looks 0.3 s apart, 30 s; closures of one look, less the way of the lid.
    share = (0.3 - LID_S) / 30
    closed = {2 + 3 * k for k in range(closures)}
    film = Film(perclos_tired=25 * share, perclos_drowsy=0.6)
    for k in range(101):
        film.monitor.add(FaceMeasurements(1, round(0.3 * k * SECOND), SHUT if k in closed else 0.0))
    room = film.tick(30 * SECOND)
    assert room.perclos == pytest.approx(closures * share)
    assert room.level == level


@pytest.mark.parametrize(("seen_s", "level"), [(19, "alert"), (21, "tired")])
def test_a_share_of_little_time_is_no_sign(seen_s: int, level: str) -> None:
    """The eyes must be measured for a third of the window."""
    assert Film().show(eye_measurements(blinks(60, every_s=2.5, blink_s=0.4), seconds=seen_s)).level == level


@pytest.mark.parametrize(("count", "level"), [(0, "alert"), (1, "tired"), (2, "drowsy"), (3, "drowsy")])
def test_microsleeps_count_by_themselves(count: int, level: str) -> None:
    """One makes a person tired, two in a minute drowsy."""
    closures = [(4.0 + 3 * k, 0.6) for k in range(count)]
    room = Film().show(closing(*closures, seconds=14))
    assert (room.level, room.microsleeps) == (level, count)


@pytest.mark.parametrize("hz", [3, 10, 15, 30])
def test_the_alarm_comes_within_one_and_a_half_seconds(hz: float) -> None:
    """Eyes that close at 20 s and stay closed are drowsy by 21.5 s and asleep by 23.5 s, at any rate."""
    film = Film()
    film.show(closing((20.0, 10.0), seconds=30, hz=hz))
    assert 20.9 <= film.first("drowsy") <= 21.5
    assert 22.9 <= film.first("asleep") <= 23.5
    assert film.room.reasons[0] == "eyes_closed"
    assert film.room.score == 1


@pytest.mark.parametrize(("closed_s", "level"), [(0.9, "tired"), (1.0, "drowsy"), (1.1, "drowsy")])
def test_one_second_of_closed_eyes_is_the_limit(closed_s: float, level: str) -> None:
    """One frame short of `alarm_s` is only a microsleep; exactly `alarm_s` is drowsy."""
    film = Film(alarm_s=1.0)
    film.show(closing((20.0, closed_s), seconds=20 + closed_s))
    # Half a picture before the first closed look the eyes began to close.
    film.show([FaceMeasurements(1, round((20 + closed_s) * SECOND) - SECOND // 20, SHUT)])
    assert film.room.closed_s == pytest.approx(closed_s)
    assert film.room.level == level


def test_a_level_falls_only_after_ten_calm_seconds_and_step_by_step() -> None:
    """Asleep ends soon after the eyes open; each lower level needs ten more seconds and fewer signs."""
    film = Film()
    film.show(closing((20.0, 5.0), *blinks(100, start_s=30), seconds=130))
    assert film.levels() == ["uncertain", "alert", "tired", "drowsy", "asleep", "drowsy", "tired", "alert"]
    asleep, woken = film.first("asleep"), 25.0
    drowsy_again = (
        next(t for t, s in film.states if t > asleep * SECOND and s.room.level == "drowsy") / SECOND
    )
    assert drowsy_again == pytest.approx(woken + WAKE_S, abs=0.11)
    tired_again = next(t for t, s in film.states if t > woken * SECOND and s.room.level == "tired") / SECOND
    assert tired_again >= drowsy_again + CALM_S


def test_a_level_does_not_flicker_about_its_limit() -> None:
    """Points that alternate around a limit keep the higher level."""
    film = Film(perclos_tired=0.0775, perclos_drowsy=0.5)
    film.show(eye_measurements(blinks(150, every_s=3.0, blink_s=0.3), seconds=150))
    assert film.levels()[-1] == "tired"
    assert film.levels().count("tired") == 1


def yawn(start_s: float, *, eyes: float = 0.05, seconds: float = 4.0) -> list[FaceMeasurements]:
    """Return the measurements of a yawn."""
    return [FaceMeasurements(1, t_ns, eyes, 0.5, None, 0.0) for t_ns in times(start_s, seconds, 10)]


@pytest.mark.parametrize(("count", "level"), [(1, "alert"), (2, "tired"), (4, "tired")])
def test_two_yawns_are_tired(count: int, level: str) -> None:
    """One is not; any number of them is not drowsy."""
    film = Film()
    for k in range(count):
        film.show(awake(8, start_s=12 * k))
        film.show(yawn(12 * k + 8))
    room = film.show(awake(2, start_s=12 * count))
    assert (room.yawns, room.level) == (count, level)
    assert ("yawns" in room.reasons) == (level == "tired")


def test_eyes_shut_in_a_yawn_are_no_alarm() -> None:
    """Many people yawn with closed eyes; a mouth that stays open afterwards is that of a sleeping person."""
    film = Film()
    film.show(awake(20))
    film.show(yawn(20, eyes=SHUT, seconds=7))
    assert (film.room.level, film.room.microsleeps) == ("alert", 0)
    film.show(yawn(27, eyes=SHUT, seconds=5))
    assert film.room.level == "asleep"


def test_sinking_heads_count() -> None:
    """Two nods make a person tired."""
    film = Film()
    film.show(awake(20))
    for start_s in (20.0, 25.0):
        film.show([FaceMeasurements(1, t_ns, 0.05, 0.05, None, 25.0) for t_ns in times(start_s, 1, 10)])
        film.show(awake(4, start_s=start_s + 1))
    assert (film.room.level, film.room.reasons, film.room.nods) == ("tired", ("nods",), 2)


def test_slow_blinks_are_slow_for_this_person() -> None:
    """0.2 s in the first minute and 0.4 s later is a sign; 0.4 s from the start is not."""
    film = Film(perclos_tired=0.5, perclos_drowsy=0.9)
    film.show(awake(61))
    film.show(eye_measurements(blinks(61, start_s=61, blink_s=0.4), seconds=61, start_s=61))
    assert film.room.score == pytest.approx((0.5 + 0.08 / 0.5) / 3, abs=0.01)
    slow = Film(perclos_tired=0.5, perclos_drowsy=0.9)
    slow.show(eye_measurements(blinks(122, blink_s=0.4), seconds=122))
    assert slow.room.score == pytest.approx(0.08 / 0.5 / 3, abs=0.01)


SAD = {"person-1": {"sadness": 0.7, "neutral": 0.3}}
GLAD = {"person-1": {"happiness": 1.0}}


@pytest.mark.parametrize(
    ("moods", "level"), [(SAD, "tired"), (GLAD, "alert"), ({}, "alert"), (None, "alert")]
)
def test_emotion_matters_close_to_the_limit(
    moods: Mapping[str, Mapping[str, float]] | None, level: str
) -> None:
    """At 91 % of the limit a face of low arousal makes a person tired, with the reason; none is needed."""
    measurements = list(eye_measurements(blinks(60, every_s=4, blink_s=0.4), seconds=60))
    room = Film(perclos_tired=0.09, perclos_drowsy=0.5).show(measurements, moods)
    assert room.level == level
    assert room.reasons == (("perclos", "mood") if level == "tired" else ())


def test_emotion_alone_is_no_sign() -> None:
    """A very sad face that blinks is alert."""
    room = Film().show(awake(60), SAD)
    assert room.level == "alert"


@pytest.mark.parametrize(
    ("closed", "seconds", "reason"),
    [(None, 30.0, "eyes_not_visible"), (0.02, 30.0, "no_blink"), (0.02, ENOUGH_S, "too_little_seen")],
)
def test_alert_needs_evidence(closed: float | None, seconds: float, reason: str) -> None:
    """Sunglasses or a profile, a photograph, and the first seconds are `uncertain`, each with its reason."""
    film = Film()
    room = film.show(FaceMeasurements(1, t_ns, closed, 0.05, None, 0.0) for t_ns in times(0, seconds, 10))
    assert (room.level, room.reasons) == ("uncertain", (reason,))
    assert film.changes == []


def test_a_photograph_is_never_alert_and_a_film_that_freezes_not_for_long() -> None:
    """Minutes without a blink are not those of a live person."""
    photograph = Film()
    photograph.show(eye_measurements([], seconds=240, hz=2))
    assert photograph.levels() == ["uncertain"]
    frozen = Film(no_blink_s=30.0)
    frozen.show(closing(seconds=40))
    assert frozen.levels() == ["uncertain", "alert", "uncertain"]
    assert frozen.first("alert") == pytest.approx(ENOUGH_S, abs=0.11)
    assert frozen.room.reasons == ("no_blink",)


@pytest.mark.parametrize(("hidden_s", "level"), [(BLIND_S, "alert"), (BLIND_S + 0.1, "uncertain")])
def test_eyes_may_be_hidden_for_two_seconds(hidden_s: float, level: str) -> None:
    """A hand or a turn of the head may hide them; longer, the level is uncertain. Nothing is counted."""
    film = Film()
    film.show(awake(20))
    before = film.room
    after = film.show(FaceMeasurements(1, t_ns) for t_ns in times(20.0, hidden_s, 10))
    assert after.level == level
    assert after.seen_s == before.seen_s
    assert film.show(awake(3, start_s=20 + hidden_s)).level == "alert"


def test_a_head_that_sinks_out_of_sight_stays_asleep() -> None:
    """Asleep ends with open eyes, not with eyes that are not visible."""
    film = Film()
    film.show(closing((20.0, 4.0), seconds=24))
    assert film.show(FaceMeasurements(1, t_ns) for t_ns in times(24, 60, 10)).level == "asleep"
    assert film.show(awake(2, start_s=84)).level == "drowsy"


def test_closed_eyes_that_become_invisible_stop_counting() -> None:
    """The alarm for closed eyes ends when the eyes are no longer visible."""
    film = Film()
    film.show(closing((20.0, 1.6), seconds=21.5))
    assert film.room.level == "drowsy"
    film.show(FaceMeasurements(1, t_ns) for t_ns in times(21.5, 20, 10))
    assert film.room.closed_s == 0
    assert film.room.level == "tired"


def test_three_pictures_a_second_are_enough_for_a_level() -> None:
    """Blinks cannot be counted then, closed eyes can."""
    film = Film()
    room = film.show(closing((30.0, 0.8), (40.0, 0.8), (50.0, 0.8), seconds=60, hz=3))
    assert room.blinks_per_min is None
    assert room.level == "drowsy"


def test_one_picture_a_second_is_not() -> None:
    """The time between frames so far apart is unknown."""
    room = Film().show(closing((30.0, 5.0), seconds=60, hz=1))
    assert (room.level, room.reasons, room.perclos) == ("uncertain", ("too_little_seen",), None)


@pytest.mark.parametrize(("away_s", "kept"), [(GONE_S, True), (GONE_S + 0.1, False)])
def test_a_face_that_comes_back_soon_is_known(away_s: float, kept: bool) -> None:
    """With the same track within 2.5 s it keeps its history, later it starts again."""
    film = Film()
    film.show(closing((4.0, 0.6), (7.0, 0.6), seconds=20))
    assert film.room.level == "drowsy"
    end_ns = round(19.9 * SECOND)
    film.tick(end_ns + round(away_s * SECOND))
    assert film.room.level == ("drowsy" if kept else "absent")
    film.show(awake(1, start_s=20 + away_s))
    assert film.room.microsleeps == (2 if kept else 0)


def test_a_new_number_is_a_new_person() -> None:
    """The tracker lost the face, so it may be another person."""
    film = Film()
    film.show(closing((4.0, 0.6), (7.0, 0.6), seconds=20))
    film.show(replace(face, track=2) for face in awake(10, start_s=24))
    assert [person.subject for person in film.states[-1][1].people] == ["person-2"]
    assert film.room.level == "alert"


def both(one: Sequence[FaceMeasurements], other: Sequence[FaceMeasurements]) -> list[FaceMeasurements]:
    """Return the measurements of two people in the order of time."""
    return sorted([*one, *other], key=lambda face: face.t_ns)


def test_two_people_do_not_mix() -> None:
    """One sleeps, the other does not; the room is the most tired person."""
    film = Film()
    sleeper = closing((20.0, 10.0), seconds=30)
    film.show(both(sleeper, awake(30, track=2)))
    room, (one, two) = film.room, film.states[-1][1].people
    assert (one.subject, one.level) == ("person-1", "asleep")
    assert (two.subject, two.level, two.microsleeps) == ("person-2", "alert", 0)
    assert room == replace(one, subject="room")
    # Crossing, one hides the other for a second: both go on with their own past.
    film.show(awake(1, start_s=30, track=2))
    film.show(
        both([FaceMeasurements(1, t_ns, SHUT) for t_ns in times(31, 3, 10)], awake(3, start_s=31, track=2))
    )
    one, two = film.states[-1][1].people
    assert one.level == "asleep"
    assert two.level == "alert"


def test_nobody_seen_is_absent_also_while_somebody_talks() -> None:
    """Without a face there is no fatigue and no change."""
    film = Film()
    for t_ns in times(0, 10, 1):
        film.tick(t_ns)
    assert film.room == FatigueState("room", "absent")
    assert film.changes == []


def test_each_change_of_level_is_reported_once() -> None:
    """Of the person and of the room; between `uncertain` and `absent` there is no change."""
    film = Film()
    film.show(closing((20.0, 5.0), seconds=30))
    film.tick(40 * SECOND)
    room = [(c.state.subject, c.previous, c.state.level) for c in film.changes if c.state.subject == "room"]
    assert room == [
        ("room", "uncertain", "alert"),
        ("room", "alert", "tired"),
        ("room", "tired", "drowsy"),
        ("room", "drowsy", "asleep"),
        ("room", "asleep", "drowsy"),
        ("room", "drowsy", "absent"),
    ]
    person = [(c.previous, c.state.level) for c in film.changes if c.state.subject == "person-1"]
    assert person == [(previous, level) for _, previous, level in room]


def test_a_camera_that_is_switched_off_forgets() -> None:
    """Everybody is absent at once."""
    film = Film()
    film.show(closing((4.0, 0.6), (7.0, 0.6), seconds=20))
    film.monitor.forget()
    assert film.tick(round(19.95 * SECOND)).level == "absent"
    assert film.changes[-1].previous == "drowsy"


@pytest.mark.parametrize(
    "settings",
    [{"perclos_tired": 0.3}, {"microsleep_s": 1.0, "alarm_s": 1.0}, {"alarm_s": 4.0}],
)
def test_limits_out_of_order_are_refused(settings: dict[str, Any]) -> None:
    """The lower limit must be lower; the message names both."""
    with pytest.raises(ValueError, match="is not below"):
        FatigueSettings(**settings)
