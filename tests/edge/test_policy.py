"""What may leave the device in each context: everything, or only what reveals no person's emotion."""

from __future__ import annotations

import json

import pytest

from edge.delivery.messages import EVENT_TYPES, load_schema
from edge.policy import EVENTS, TOPICS, allowed, sentence
from edge.settings import Basis, Context, DeviceSettings

PERSONAL_TOPICS = {"state", "face/state", "voice/state", "ha_event"}
RESTRICTED = allowed(DeviceSettings(context="workplace"))


def test_policy_lists_every_topic_and_event_type() -> None:
    """A topic or event type of the contract without a decision in the policy is an error."""
    addresses = {channel["address"] for channel in load_schema("asyncapi")["channels"].values()}
    # Home Assistant's own topics; the discovery payload follows the same policy.
    own = addresses - {"homeassistant/device/{device}/config", "homeassistant/status"}
    assert {address.removeprefix("emotion/{device}/") for address in own} == TOPICS.keys()
    assert set(EVENT_TYPES) == EVENTS.keys()


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_restricted_context_publishes_no_personal_emotion(context: Context) -> None:
    """In education and at the workplace, no person's state and no emotion or presence event may leave."""
    policy = allowed(DeviceSettings(context=context))
    assert {topic for topic in TOPICS if not policy.permits_topic(topic)} == PERSONAL_TOPICS
    permitted = {kind for kind in EVENT_TYPES if policy.permits_event(kind)}
    assert permitted == {"fatigue.changed", "device.degraded", "device.recovered"}


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_unlisted_topic_does_not_leave_a_restricted_context(context: Context) -> None:
    """A topic or event type that the policy does not list is withheld."""
    policy = allowed(DeviceSettings(context=context))
    assert not policy.permits_topic("person/1/state")
    assert not policy.permits_event("emotion.guessed")


def test_speaker_does_not_leave_a_restricted_context() -> None:
    """No permitted schema has a speaker; only `emotion.changed` events have one, and they are withheld."""
    for topic in TOPICS.keys() - PERSONAL_TOPICS - {"event"}:
        name = "enabled" if "enabled" in topic else topic.replace("/", "_")
        assert "speak" not in json.dumps(load_schema(name))


@pytest.mark.parametrize("context", ["home", "public", "research"])
def test_other_contexts_publish_everything(context: Context) -> None:
    """At home nothing is withheld, even of a small group."""
    policy = allowed(DeviceSettings(context=context))
    assert all(policy.permits_topic(topic) for topic in TOPICS)
    assert all(policy.permits_event(kind) for kind in EVENT_TYPES)
    assert policy.group_counts({"anger": 1}) == {"anger": 1}
    assert policy.counters({"faces": 3}) == {"faces": 3}


@pytest.mark.parametrize("basis", ["medical", "safety"])
@pytest.mark.parametrize("context", ["education", "workplace"])
def test_acknowledged_basis_lifts_the_restriction(context: Context, basis: Basis) -> None:
    """With a configured medical or safety reason, everything may leave."""
    policy = allowed(DeviceSettings(context=context, acknowledged_basis=basis))
    assert all(policy.permits_topic(topic) for topic in TOPICS)
    assert all(policy.permits_event(kind) for kind in EVENT_TYPES)


@pytest.mark.parametrize("counts", [{}, {"anger": 4}, {"anger": 1, "uncertain": 3}])
def test_small_group_is_withheld(counts: dict[str, int]) -> None:
    """Counts of fewer than five faces are withheld."""
    assert RESTRICTED.group_counts(counts) is None


@pytest.mark.parametrize("counts", [{"anger": 5}, {"anger": 1, "uncertain": 4}, {"anger": 7, "neutral": 8}])
def test_group_of_five_is_counted(counts: dict[str, int]) -> None:
    """Counts of five faces may leave, uncertain ones included."""
    assert RESTRICTED.group_counts(counts) == counts


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"{}", b'{"type":7}', b'{"type":"emotion.changed"}'])
def test_stored_event_that_is_not_permitted_is_withheld(payload: bytes) -> None:
    """Of the events in the outbox, only those of a permitted type leave."""
    assert not RESTRICTED.permits_stored(payload)
    assert RESTRICTED.permits_stored(b'{"type":"device.degraded"}')


def test_counters_of_people_are_withheld() -> None:
    """Faces divided by frames would be the number of people."""
    assert RESTRICTED.counters({"faces": 3, "spoken_windows": 1, "frames": 9}) == {"frames": 9}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "home: everything is published"),
        ({"context": "workplace"}, "workplace: only fatigue and counts of groups of 5 or more are published"),
        (
            {"context": "education", "acknowledged_basis": "medical"},
            "education: everything is published, for medical reasons",
        ),
    ],
)
def test_policy_in_words(settings: dict[str, str], expected: str) -> None:
    """The sentence for log and page names the context and what is published."""
    assert sentence(DeviceSettings.model_validate(settings)) == expected
