"""A `Moment` becomes states and events: by the schemas, by the cadence, and only what the context permits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge.delivery.announcer import Announcer, clear_stale_states
from edge.delivery.cadence import STATE_INTERVAL_S
from edge.delivery.messages import load_schema
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.writer import OutboxWriter
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.people.scene import Moment, Scene
from edge.policy import allowed
from edge.settings import (
    CameraSettings,
    Config,
    DeviceSettings,
    FatigueSettings,
    FusionSettings,
    MqttSettings,
)
from edge.values import LABELS, EmotionEvent, Face, FaceMeasurements, FaceResult, Modality, Prediction
from tests.helpers.lids import SECOND, blinks, eye_measurements, times

QUICK = FusionSettings(ema_s=0.0, min_dwell_s=0.0)
PERSONAL = {"state", "face/state", "voice/state"}


class RecordingPublisher(Publisher):
    """A publisher without a connection that records every state that its policy lets pass."""

    def __init__(self, outbox: Outbox, context: str) -> None:
        self.states: list[tuple[str, dict[str, Any]]] = []
        self.live: list[str] = []
        policy = allowed(DeviceSettings.model_validate({"context": context}))
        super().__init__(MqttSettings(), device="lab", outbox=outbox, policy=policy)

    def publish_state(self, subtopic: str, payload: Mapping[str, Any] | str) -> None:
        super().publish_state(subtopic, payload)
        if self.payloads.get(subtopic) == payload:
            schema = load_schema(subtopic.replace("/", "_"))
            jsonschema.Draft202012Validator(schema).validate(payload)
            self.states.append((subtopic, dict(self.payloads[subtopic])))

    def publish_live(self, subtopic: str, payload: Mapping[str, Any] | str) -> None:
        self.live.append(subtopic)
        super().publish_live(subtopic, payload)


class Device:
    """A scene and an announcer whose clock is that of the measurements."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        context: str = "home",
        fusion: FusionSettings = QUICK,
        fatigue: FatigueSettings | None = None,
    ) -> None:
        policy = allowed(DeviceSettings.model_validate({"context": context}))
        self.publisher = RecordingPublisher(outbox, context)
        self.health = Health()
        self.scene = Scene(fusion, fatigue=fatigue, uses_emotions_for_fatigue=not policy.restricted)
        self.events: list[EmotionEvent] = []
        self.announcer = Announcer(
            self.publisher,
            self,  # type: ignore[arg-type]
            self.health,
            policy=policy,
            classifiers={"face": SimpleNamespace(name="face-cnn@0123456789ab", backend="cpu")},  # type: ignore[dict-item]
        )
        self._writer = OutboxWriter(outbox, self.publisher, self.health)

    def record(self, events: list[EmotionEvent]) -> list[EmotionEvent]:
        """Record events as the outbox writer does, and keep those that it takes."""
        recorded = self._writer.record(events)
        self.events += recorded
        return recorded

    def update(self, now_ns: int) -> Moment:
        """Announce the scene at `now_ns`."""
        moment = self.scene.update(now_ns)
        self.announcer.announce(moment, now_ns)
        return moment

    def add(self, measurements: Iterable[FaceMeasurements], emotion: str = "neutral") -> None:
        """Add one frame after the other, each with one face."""
        for face in measurements:
            self.scene.add_faces([face_result(face, emotion)])
            self.update(face.t_ns)

    def add_people(self, emotions: Iterable[str], t_ns: int) -> None:
        """Add one frame with a face for each emotion."""
        faces = [FaceMeasurements(k, t_ns) for k, _ in enumerate(emotions, start=1)]
        self.scene.add_faces([face_result(face, e) for face, e in zip(faces, emotions, strict=True)])
        self.update(t_ns)

    def sent(self, subtopic: str) -> list[dict[str, Any]]:
        """Return the payloads of one topic in order."""
        return [payload for topic, payload in self.publisher.states if topic == subtopic]


def face_result(measurements: FaceMeasurements, emotion: str, share: float = 0.9) -> FaceResult:
    """Return a face whose prediction gives `share` to one emotion."""
    p = np.full(len(LABELS), (1 - share) / 6, np.float32)
    p[LABELS.index(emotion)] = share
    prediction = Prediction(Modality.FACE, p, 1.0, measurements.t_ns, measurements.track)
    return FaceResult(Face((0, 0, 9, 9), 0.9, None, measurements.track), prediction, measurements)


@pytest.fixture
def device(outbox: Outbox) -> Device:
    """A device at home that watches fatigue."""
    return Device(outbox, fatigue=FatigueSettings())


def check_events(events: Iterable[EmotionEvent]) -> None:
    """Assert that each event fits the schema."""
    for sequence, event in enumerate(events, start=1):
        jsonschema.Draft202012Validator(load_schema("event")).validate(
            event.to_cloudevent(device="lab", sequence=sequence)
        )


def test_states_and_events_follow_a_person_to_sleep(device: Device) -> None:
    """Each change of level is an event of the person and of the room, and the last state is asleep."""
    device.add(eye_measurements([(2.0, 0.2), (10.0, 5.0)], seconds=15))
    assert device.sent("fatigue/state")[-1]["level"] == "asleep"
    assert device.sent("state")[-1]["fatigue"]["level"] == "asleep"
    events = [event.data for event in device.events if event.type == "fatigue.changed"]
    levels = [data["level"] for data in events if data["subject"] == "room"]
    assert levels == ["alert", "tired", "drowsy", "asleep"]
    assert {data["subject"] for data in events} == {"room", "person-1"}
    check_events(device.events)


def test_presence_and_emotion_are_events_in_this_order(device: Device) -> None:
    """A person comes, changes the emotion and leaves; each is an event of the person and of the room."""
    device.add([FaceMeasurements(1, 0)], "anger")
    device.add([FaceMeasurements(1, SECOND)], "fear")
    device.update(10 * SECOND)
    events = [(e.type, e.data["subject"]) for e in device.events if e.type != "fatigue.changed"]
    assert events == [
        ("presence.gained", "person-1"),
        ("presence.gained", "room"),
        ("emotion.changed", "person-1"),
        ("emotion.changed", "room"),
        ("presence.lost", "person-1"),
        ("presence.lost", "room"),
    ]
    changed = next(event.data for event in device.events if event.type == "emotion.changed")
    assert (changed["previous"], changed["emotion"]) == ("anger", "fear")
    assert changed["model"]["face"] == "face-cnn@0123456789ab"
    assert device.health.counters["events"] == len(device.events) == len(device.publisher.live)
    check_events(device.events)


def test_still_numbers_go_out_every_half_minute_only(device: Device) -> None:
    """Ten frames a second do not make ten messages."""
    device.add(eye_measurements(blinks(10), seconds=20))
    before = len(device.sent("fatigue/state"))
    assert before <= 20
    device.add(FaceMeasurements(1, t_ns) for t_ns in times(30, 2 * STATE_INTERVAL_S + 1, 2))
    states = device.sent("fatigue/state")[before:]
    # The eyes are no longer visible, and what was counted leaves the window.
    assert states[0]["reasons"] == ["eyes_not_visible"]
    assert 3 <= len(states) <= 12


def test_empty_room_is_published_at_once_and_again(device: Device) -> None:
    """The first states of an empty room are published, then every 30 s; nothing is an event."""
    for t_ns in times(100, 2 * STATE_INTERVAL_S + 1, 1):
        device.update(t_ns)
    for subtopic in ("state", "face/state", "voice/state", "fatigue/state", "group/state"):
        assert len(device.sent(subtopic)) == 3
    assert device.events == []


def test_unwatched_fatigue_has_no_state_and_no_event(outbox: Outbox) -> None:
    """Without fatigue settings the room has no level."""
    device = Device(outbox)
    device.add(eye_measurements([(2.0, 5.0)], seconds=10))
    assert device.sent("fatigue/state") == []
    assert device.sent("state")[-1]["fatigue"] is None
    assert {event.type for event in device.events} == {"presence.gained"}


@pytest.mark.parametrize("context", ["home", "workplace"])
def test_fatigue_uses_emotions_only_in_an_open_context(context: str, outbox: Outbox) -> None:
    """At nine tenths of the limit of tired, sadness makes the difference at home, never at work."""
    device = Device(outbox, context=context, fatigue=FatigueSettings(perclos_tired=0.09, perclos_drowsy=0.5))
    device.add(eye_measurements(blinks(60, blink_s=0.4), seconds=60), "sadness")
    state = device.sent("fatigue/state")[-1]
    expected = ("tired", ["perclos", "mood"]) if context == "home" else ("alert", [])
    assert (state["level"], state["reasons"]) == expected


def test_camera_that_is_switched_off_ends_the_alarm(device: Device) -> None:
    """The level becomes absent at once."""
    device.add(eye_measurements([(2.0, 0.2), (10.0, 5.0)], seconds=15))
    device.scene.forget(Modality.FACE)
    device.update(15 * SECOND)
    assert device.sent("fatigue/state")[-1]["level"] == "absent"
    assert device.events[-1].data["previous"] == "asleep"


def test_restricted_context_publishes_no_emotion_of_a_person(outbox: Outbox) -> None:
    """Neither a state nor an event, and nothing for Home Assistant's event entity but fatigue."""
    device = Device(outbox, context="workplace", fatigue=FatigueSettings())
    device.add(eye_measurements([(2.0, 0.2), (10.0, 5.0)], seconds=15), "anger")
    assert not PERSONAL & {topic for topic, _ in device.publisher.states}
    assert not PERSONAL & device.publisher.payloads.keys()
    assert {event.type for event in device.events} == {"fatigue.changed"}
    assert device.health.counters["events"] == len(device.events)


def test_open_context_counts_the_group_at_each_change(outbox: Outbox) -> None:
    """At home a count follows each face, however few there are."""
    device = Device(outbox)
    device.add_people(["anger"], 0)
    device.add_people(["anger", "fear"], SECOND)
    assert [state["counts"] for state in device.sent("group/state")] == [
        {"anger": 1},
        {"anger": 1, "fear": 1},
    ]


def test_restricted_context_counts_the_group_on_a_beat(outbox: Outbox) -> None:
    """A change of one face waits for the beat; reaching and losing five faces does not."""
    device = Device(outbox, context="workplace")
    device.add_people(["anger"] * 4, 0)
    device.add_people(["anger"] * 5, 1 * SECOND)
    device.add_people(["anger"] * 4 + ["fear"], 2 * SECOND)
    device.add_people(["fear"] * 5, round((1 + STATE_INTERVAL_S) * SECOND) - 1)
    device.add_people(["fear"] * 5, round((1 + STATE_INTERVAL_S) * SECOND))
    device.update(round((4 + STATE_INTERVAL_S) * SECOND))
    assert [state["counts"] for state in device.sent("group/state")] == [
        None,
        {"anger": 5},
        {"fear": 5},
        None,
    ]


@pytest.mark.parametrize("context", ["home", "workplace"])
def test_device_faults_are_events_in_every_context(context: str, outbox: Outbox) -> None:
    """Degraded with its reason, then recovered."""
    device = Device(outbox, context=context)
    device.announcer.announce_device("camera", "no_device")
    device.announcer.announce_device("camera", "")
    assert [(event.type, event.data["reason"]) for event in device.events] == [
        ("device.degraded", "no_device"),
        ("device.recovered", "recovered"),
    ]
    check_events(device.events)


@pytest.mark.parametrize(
    ("context", "watches", "cleared"),
    [
        ("home", True, set()),
        ("home", False, {"fatigue/state"}),
        ("workplace", True, {*PERSONAL, "group/state", "fatigue/state"}),
    ],
)
def test_states_of_an_earlier_configuration_are_cleared(
    context: str, watches: bool, cleared: set[str], outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this configuration does not publish must not stay in the broker."""
    device = Device(outbox, context=context)
    topics: list[str] = []
    monkeypatch.setattr(device.publisher, "clear_retained", topics.append)
    policy = allowed(DeviceSettings.model_validate({"context": context}))
    clear_stale_states(device.publisher, policy, watches_fatigue=watches)
    assert set(topics) == cleared


@pytest.mark.parametrize(
    ("config", "watches"),
    [
        (Config(), True),
        (Config(fatigue=FatigueSettings(enabled=False)), False),
        (Config(camera=CameraSettings(source="none")), False),
    ],
)
def test_fatigue_needs_a_camera(config: Config, watches: bool) -> None:
    """Fatigue is watched unless it is disabled or there is no camera."""
    assert config.watches_fatigue == watches
