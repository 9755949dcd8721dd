"""What the broker hears of fatigue: when it moves, by the schemas, no emotion where that is forbidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema
import pytest

from edge.delivery.fatigue_topic import EVERY_S, FatigueTopic
from edge.delivery.messages import load_schema
from edge.policy import allowed
from edge.settings import CameraSettings, Config, DeviceSettings, FatigueSettings
from edge.values import FaceMeasurements, SubjectState
from tests.helpers.lids import SECOND, blinks, looks, times


class Sent:
    """Stands for the publisher: keeps what it was given, checked against the schema."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.cleared: list[str] = []

    def publish_state(self, subtopic: str, payload: Mapping[str, Any]) -> None:
        assert subtopic == "fatigue/state"
        jsonschema.Draft202012Validator(load_schema("fatigue_state")).validate(payload)
        self.states.append(dict(payload))

    def clear_retained(self, subtopic: str) -> None:
        self.cleared.append(subtopic)


class Watched:
    """A topic whose clock is that of the readings."""

    def __init__(self, settings: FatigueSettings | None = None, *, context: str = "home") -> None:
        self.sent = Sent()
        self.told: dict[str, Any] = {}
        self.topic = FatigueTopic(
            settings,
            policy=allowed(DeviceSettings(context=context)),  # type: ignore[arg-type]
            publisher=self.sent,  # type: ignore[arg-type]
            told=self.told,
        )
        self.events: list[tuple[str, dict[str, Any]]] = []

    def show(self, measurements: Iterable[FaceMeasurements], people: Iterable[SubjectState] = ()) -> None:
        """Show one reading after the other, as pictures come."""
        for reading in measurements:
            self.topic.add([reading])
            self.events += self.topic.advance(reading.t_ns, list(people))


SAD = SubjectState("person-1", "sadness", 0.9, {"sadness": 0.9, "neutral": 0.1}, None, None, 0)


def test_states_and_events_follow_a_person_to_sleep() -> None:
    """Every change is an event for person and room, fits the schema, and the state says the same."""
    watched = Watched(FatigueSettings())
    watched.show(looks([(2.0, 0.2), (10.0, 5.0)], seconds=15))
    assert [state["level"] for state in watched.sent.states][-1] == "asleep"
    assert watched.told["fatigue/state"] == watched.sent.states[-1]
    assert [data["level"] for _, data in watched.events if data["subject"] == "room"] == [
        "alert",
        "tired",
        "drowsy",
        "asleep",
    ]
    assert {data["subject"] for _, data in watched.events} == {"room", "person-1"}
    schema = load_schema("event")
    for kind, data in watched.events:
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "emotion-edge/lab",
            "type": kind,
            "subject": data["subject"],
            "time": "2026-01-02T01:04:05.678Z",
            "datacontenttype": "application/json",
            "data": data,
        }
        jsonschema.Draft202012Validator(schema).validate(event)


def test_numbers_that_stand_still_are_told_every_half_minute_only() -> None:
    """A picture ten times a second does not make ten messages."""
    watched = Watched(FatigueSettings())
    watched.show(looks(blinks(10), seconds=20))
    before = len(watched.sent.states)
    watched.show(FaceMeasurements(1, t_ns) for t_ns in times(30, 2 * EVERY_S + 1, 2))
    assert before <= 20
    # The eyes are no longer visible, and what was counted leaves the window.
    levels = [state["reasons"] for state in watched.sent.states[before:]]
    assert levels[0] == ["eyes_not_visible"]
    assert 3 <= len(levels) <= 12


def test_nobody_there_is_told_at_once_and_again() -> None:
    """The first state of an empty room is published, then every 30 s."""
    watched = Watched(FatigueSettings())
    for t_ns in times(100, 2 * EVERY_S + 1, 1):
        watched.events += watched.topic.advance(t_ns, [])
    assert [state["level"] for state in watched.sent.states] == ["absent"] * 3
    assert watched.events == []


@pytest.mark.parametrize("context", ["home", "workplace"])
def test_fatigue_is_told_everywhere_and_emotion_adds_to_it_only_where_it_may(context: str) -> None:
    """Eyes closed for nine tenths of what is tired: sadness tips the scale at home, never at work."""
    watched = Watched(FatigueSettings(perclos_tired=0.09, perclos_drowsy=0.5), context=context)
    watched.show(looks(blinks(60, blink_s=0.4), seconds=60), [SAD])
    newest = watched.sent.states[-1]
    assert (newest["level"], newest["reasons"]) == (
        ("tired", ["perclos", "mood"]) if context == "home" else ("alert", [])
    )


def test_switched_off_says_nothing_and_takes_back_what_was_said() -> None:
    """No message, no event, no state for the room; the broker forgets the old one."""
    watched = Watched(None)
    watched.show(looks([(2.0, 5.0)], seconds=10))
    assert watched.sent.cleared == ["fatigue/state"]
    assert watched.sent.states == []
    assert watched.events == []
    assert watched.topic.room is None
    assert Watched(FatigueSettings()).sent.cleared == []


@pytest.mark.parametrize(
    ("config", "watches"),
    [
        (Config(), True),
        (Config(fatigue=FatigueSettings(enabled=False)), False),
        (Config(camera=CameraSettings(source="none")), False),
    ],
)
def test_fatigue_needs_a_camera_and_no_refusal(config: Config, watches: bool) -> None:
    """A device that cannot see says nothing of it."""
    assert config.watches_fatigue == watches


def test_a_camera_that_is_switched_off_leaves_nobody() -> None:
    """The alarm ends with the pictures."""
    watched = Watched(FatigueSettings())
    watched.show(looks([(2.0, 0.2), (10.0, 5.0)], seconds=15))
    watched.topic.forget()
    watched.events += watched.topic.advance(15 * SECOND, [])
    assert watched.sent.states[-1]["level"] == "absent"
    assert watched.events[-1][1]["previous"] == "asleep"
