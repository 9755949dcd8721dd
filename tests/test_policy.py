"""What leaves the device in each context: everything, or only what names and judges no person."""

from __future__ import annotations

import json

import pytest

from edge.messages import EVENT_TYPES, load_schema
from edge.policy import allowed
from edge.settings import DeviceSettings

TOPICS = {
    *("availability", "status", "stats", "event", "ha_event", "group/state", "fatigue/state"),
    *("state", "face/state", "voice/state"),
    *(f"{part}/enabled/{way}" for part in ("camera", "microphone") for way in ("set", "state")),
}
PERSONAL_TOPICS = {"state", "face/state", "voice/state", "ha_event"}


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_restricted_context_lets_no_personal_emotion_out(context: str) -> None:
    """At school and at work: no person's state, no emotion or presence event."""
    policy = allowed(DeviceSettings(context=context))
    assert {topic for topic in TOPICS if not policy.permits_topic(topic)} == PERSONAL_TOPICS
    permitted = {kind for kind in EVENT_TYPES if policy.permits_event(kind)}
    assert permitted == {"fatigue.changed", "device.degraded", "device.recovered"}


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_what_is_not_known_does_not_leave_a_restricted_context(context: str) -> None:
    """A topic or an event type that somebody adds later is closed there until it is named."""
    policy = allowed(DeviceSettings(context=context))
    assert not policy.permits_topic("person/1/state")
    assert not policy.permits_event("emotion.guessed")


def test_who_speaks_does_not_leave_a_restricted_context() -> None:
    """No payload that is let out there has a place for it, but events, of which `emotion.changed` is kept."""
    for topic in TOPICS - PERSONAL_TOPICS - {"event"}:
        name = "enabled" if "enabled" in topic else topic.replace("/", "_")
        assert "speak" not in json.dumps(load_schema(name))


@pytest.mark.parametrize("context", ["home", "public", "research"])
def test_other_contexts_let_everything_out(context: str) -> None:
    """At home there is nothing to withhold, however small the group."""
    policy = allowed(DeviceSettings(context=context))
    assert all(policy.permits_topic(topic) for topic in TOPICS)
    assert all(policy.permits_event(kind) for kind in EVENT_TYPES)
    assert policy.group_counts({"anger": 1}) == {"anger": 1}


@pytest.mark.parametrize("basis", ["medical", "safety"])
@pytest.mark.parametrize("context", ["education", "workplace"])
def test_acknowledged_basis_lifts_the_restriction(context: str, basis: str) -> None:
    """Who states a medical or safety reason takes the responsibility."""
    policy = allowed(DeviceSettings(context=context, acknowledged_basis=basis))
    assert all(policy.permits_topic(topic) for topic in TOPICS)
    assert all(policy.permits_event(kind) for kind in EVENT_TYPES)


@pytest.mark.parametrize(
    ("counts", "is_told"),
    [
        ({}, False),
        ({"anger": 4}, False),
        ({"anger": 5}, True),
        ({"anger": 1, "neutral": 4}, True),
        ({"anger": 1, "uncertain": 3}, False),
        ({"anger": 4, "absent": 3}, False),
        ({"anger": 5, "absent": 3}, True),
    ],
)
def test_group_needs_five_faces_in_a_restricted_context(counts: dict[str, int], is_told: bool) -> None:
    """One short of five faces tells nothing; who is absent is no face."""
    assert allowed(DeviceSettings(context="workplace")).group_counts(counts) == (counts if is_told else None)
