"""What leaves the device in each context: everything, or only what names and judges no person."""

from __future__ import annotations

import json

import pytest

from edge.delivery.messages import EVENT_TYPES, load_schema
from edge.policy import EVENTS, TOPICS, allowed, sentence
from edge.settings import Basis, Context, DeviceSettings

PERSONAL_TOPICS = {"state", "face/state", "voice/state", "ha_event"}
RESTRICTED = allowed(DeviceSettings(context="workplace"))


def test_every_address_and_every_event_type_is_decided() -> None:
    """Whoever adds a topic or a type of event to the contract has to say whether it leaves."""
    addresses = {channel["address"] for channel in load_schema("asyncapi")["channels"].values()}
    # Home Assistant's own: what is announced is described by the same decisions.
    ours = addresses - {"homeassistant/device/{device}/config", "homeassistant/status"}
    assert {address.removeprefix("emotion/{device}/") for address in ours} == TOPICS.keys()
    assert set(EVENT_TYPES) == EVENTS.keys()


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_restricted_context_lets_no_personal_emotion_out(context: Context) -> None:
    """At school and at work: no person's state, no emotion or presence event."""
    policy = allowed(DeviceSettings(context=context))
    assert {topic for topic in TOPICS if not policy.permits_topic(topic)} == PERSONAL_TOPICS
    permitted = {kind for kind in EVENT_TYPES if policy.permits_event(kind)}
    assert permitted == {"fatigue.changed", "device.degraded", "device.recovered"}


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_what_is_not_known_does_not_leave_a_restricted_context(context: Context) -> None:
    """A topic or an event type that somebody adds later is closed there until it is named."""
    policy = allowed(DeviceSettings(context=context))
    assert not policy.permits_topic("person/1/state")
    assert not policy.permits_event("emotion.guessed")


def test_who_speaks_does_not_leave_a_restricted_context() -> None:
    """No payload that is let out there has a place for it, but events, of which `emotion.changed` is kept."""
    for topic in TOPICS.keys() - PERSONAL_TOPICS - {"event"}:
        name = "enabled" if "enabled" in topic else topic.replace("/", "_")
        assert "speak" not in json.dumps(load_schema(name))


@pytest.mark.parametrize("context", ["home", "public", "research"])
def test_other_contexts_let_everything_out(context: Context) -> None:
    """At home there is nothing to withhold, however small the group."""
    policy = allowed(DeviceSettings(context=context))
    assert all(policy.permits_topic(topic) for topic in TOPICS)
    assert all(policy.permits_event(kind) for kind in EVENT_TYPES)
    assert policy.group_counts({"anger": 1}) == {"anger": 1}
    assert policy.counters({"faces": 3}) == {"faces": 3}


@pytest.mark.parametrize("basis", ["medical", "safety"])
@pytest.mark.parametrize("context", ["education", "workplace"])
def test_acknowledged_basis_lifts_the_restriction(context: Context, basis: Basis) -> None:
    """Who states a medical or safety reason takes the responsibility."""
    policy = allowed(DeviceSettings(context=context, acknowledged_basis=basis))
    assert all(policy.permits_topic(topic) for topic in TOPICS)
    assert all(policy.permits_event(kind) for kind in EVENT_TYPES)


@pytest.mark.parametrize("counts", [{}, {"anger": 4}, {"anger": 1, "uncertain": 3}])
def test_small_group_is_withheld(counts: dict[str, int]) -> None:
    """One short of five faces tells nothing."""
    assert RESTRICTED.group_counts(counts) is None


@pytest.mark.parametrize("counts", [{"anger": 5}, {"anger": 1, "uncertain": 4}, {"anger": 7, "neutral": 8}])
def test_group_of_five_is_counted(counts: dict[str, int]) -> None:
    """Five faces are a group, whatever each of them says."""
    assert RESTRICTED.group_counts(counts) == counts


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"{}", b'{"type":7}', b'{"type":"emotion.changed"}'])
def test_stored_event_that_is_not_permitted_stays(payload: bytes) -> None:
    """Of what is in the outbox only what is known to be harmless leaves."""
    assert not RESTRICTED.permits_stored(payload)
    assert RESTRICTED.permits_stored(b'{"type":"device.degraded"}')


def test_what_counts_people_is_no_statistic() -> None:
    """Faces over pictures would be the number of people."""
    assert RESTRICTED.counters({"faces": 3, "spoken_windows": 1, "frames": 9}) == {"frames": 9}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "home: everything is told"),
        ({"context": "workplace"}, "workplace: only fatigue and groups of 5 or more are told"),
        (
            {"context": "education", "acknowledged_basis": "medical"},
            "education: everything is told, for medical reasons",
        ),
    ],
)
def test_people_are_told_what_leaves(settings: dict[str, str], says: str) -> None:
    """The log and the page say it in a sentence."""
    assert sentence(DeviceSettings.model_validate(settings)) == says
