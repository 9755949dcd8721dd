"""Every payload fits its schema, the schemas are strict, and AsyncAPI points to all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.delivery import messages
from edge.delivery.home_assistant.entities import discovery_payload
from edge.delivery.messages import COMMAND_SCHEMAS, EVENT_TYPES, SCHEMAS, load_schema
from edge.delivery.outbox.rows import Counts
from edge.people.fatigue import FatigueState
from edge.people.speaker import Speaker
from edge.settings import Config, DeviceSettings
from edge.values import ABSENT, LABELS, UNCERTAIN, EmotionEvent, Evidence, SubjectState

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone(timedelta(hours=2)))
EVEN = dict.fromkeys(LABELS, 0.1429)
FACE = Evidence(EVEN, quality=0.8123456, weight=0.625)
VOICE = Evidence(EVEN, quality=0.5, weight=0.375)
BOTH = SubjectState("person-3", "happiness", 0.61234567, EVEN, FACE, VOICE, t_ns=1)
NO_SPEAKER = SubjectState("room", ABSENT, 0.0, {}, None, None, t_ns=1)
UNSURE = SubjectState("room", UNCERTAIN, 0.2, EVEN, None, VOICE, t_ns=1)
BACKENDS = {
    "face": {"backend": "cpu", "passed_over": {"gpu": "no_device"}},
    "voice": {"backend": "cpu", "passed_over": {}},
}
MODELS = {"face": "report-face@0123456789ab", "voice": None}
SPEAKERS = (Speaker("track", 3, 0.9, 3), Speaker("uncertain", None, 0.4), Speaker("none"))

DROWSY = FatigueState(
    subject="person-3",
    level="drowsy",
    score=0.71234,
    reasons=("perclos", "yawns"),
    closed_s=0.45,
    perclos=0.21987,
    blinks_per_min=14.26,
    blink_s=0.2134,
    microsleeps=1,
    yawns=2,
    nods=0,
    seen_s=59.97,
    usual_blinks_per_min=None,
    usual_blink_s=0.19,
)

EVENT_DATA: dict[str, list[dict[str, Any]]] = {
    "emotion.changed": [
        messages.event_data(
            state, previous=previous, models=MODELS, backend="cpu", latency_ms=31.25, speaker=speaker
        )
        for (state, previous), speaker in zip(
            ((BOTH, "anger"), (UNSURE, None), (NO_SPEAKER, "fear")), SPEAKERS, strict=True
        )
    ]
    + [
        messages.event_data(
            BOTH,
            previous=None,
            models=MODELS | {"video": "video-lstm@0123456789ab", "fusion": "multimodal@0123456789ab"},
            backend="cpu",
            latency_ms=1,
        )
    ],
    "presence.gained": [messages.presence_data("person-3", faces=1)],
    "presence.lost": [messages.presence_data("room", faces=0)],
    "fatigue.changed": [
        messages.fatigue_data(DROWSY, previous="alert"),
        messages.fatigue_data(FatigueState("room", "absent"), previous="asleep"),
    ],
    "device.degraded": [messages.device_data("camera", reason="no_device")],
    "device.recovered": [messages.device_data("outbox", reason="recovered")],
}
EVENTS = [
    EmotionEvent(f"{kind}-{number}", kind, NOW, 0, data)
    for kind, variants in EVENT_DATA.items()
    for number, data in enumerate(variants)
]
PAYLOADS: list[tuple[str, Any]] = [
    ("availability", messages.ONLINE),
    ("availability", messages.OFFLINE),
    ("enabled", messages.enabled(True)),
    ("enabled", messages.enabled(False)),
    *(
        (
            "status",
            messages.status(
                state,
                reasons=["camera:no_device"],
                since=NOW,
                version="0.1.0",
                backends=BACKENDS,
                device=device,
            ),
        )
        for device in (DeviceSettings(), DeviceSettings(context="workplace", acknowledged_basis="safety"))
        for state in ("starting", "running", "degraded", "paused", "stopping")
    ),
    ("state", messages.state(BOTH, faces=2, present=True, fatigue=DROWSY, time=NOW)),
    ("state", messages.state(UNSURE, faces=0, present=True, fatigue=None, time=NOW)),
    ("state", messages.state(NO_SPEAKER, faces=0, present=False, fatigue=None, time=NOW)),
    *(
        ("state", messages.state(BOTH, faces=2, present=True, fatigue=None, time=NOW, speaker=speaker))
        for speaker in SPEAKERS
    ),
    ("face_state", messages.face_state([], time=NOW)),
    ("face_state", messages.face_state([BOTH, BOTH], time=NOW)),
    *(("face_state", messages.face_state([BOTH], time=NOW, speaker=speaker)) for speaker in SPEAKERS),
    ("voice_state", messages.voice_state(UNSURE, time=NOW)),
    ("voice_state", messages.voice_state(NO_SPEAKER, time=NOW)),
    ("fatigue_state", messages.fatigue_state(replace(DROWSY, subject="room"), [DROWSY], time=NOW)),
    ("fatigue_state", messages.fatigue_state(FatigueState("room", "absent"), [], time=NOW)),
    ("group_state", messages.group_state({"anger": 2, "uncertain": 3}, time=NOW)),
    ("group_state", messages.group_state({}, time=NOW)),
    ("group_state", messages.group_state(None, time=NOW)),
    *(("event", event.to_cloudevent(device="kitchen", sequence=7)) for event in EVENTS),
    *(("ha_event", messages.ha_event(event)) for event in EVENTS),
    (
        "stats",
        messages.stats(
            time=NOW,
            uptime_s=12.345,
            counters={"frames": 3, "rss_bytes": 1.5e8},
            latency_ms={"detect": {"p50": 5.0, "p95": 7.5}},
            outbox=Counts(waiting=1, waiting_bytes=300, refused=0, dropped=0, last_sequence=9),
        ),
    ),
    ("stats", messages.stats(time=NOW, uptime_s=0, counters={}, latency_ms={}, outbox=None)),
    *(
        ("discovery", discovery_payload(Config(device=DeviceSettings(context=context))))
        for context in ("home", "workplace")
    ),
    ("birth", "online"),
    ("birth", "offline"),
    ("probe", messages.probe("0123456789abcdef")),
]
ANALYZED: dict[str, Any] = {
    "file": "a.mp4",
    "kind": "video",
    "t_s": 1.5,
    "faces": [{"subject": "person-1", "box": [0.1, 0.2, 0.3, 0.4], "score": 0.9, "probabilities": EVEN}],
    "voice": {"probabilities": EVEN, "speech_ratio": 0.4},
    "fused": {"emotion": "neutral", "confidence": 0.5, "probabilities": EVEN},
    "fatigue": None,
    "speaker": "person-1",
}


def is_valid(name: str, payload: Any) -> bool:
    validator = jsonschema.Draft202012Validator(load_schema(name))
    return bool(validator.is_valid(payload))


def explain(name: str, payload: Any) -> None:
    jsonschema.Draft202012Validator(load_schema(name)).validate(json.loads(json.dumps(payload)))


@pytest.mark.parametrize(("name", "payload"), PAYLOADS)
def test_what_is_built_fits_its_schema(name: str, payload: Any) -> None:
    """The functions that the daemon calls return payloads that fit the schemas."""
    explain(name, payload)


def test_speaker_is_a_person_in_view_or_none() -> None:
    """The room has the speaker, each face whether it is the speaker; both are null while it is uncertain."""
    speaking = [
        (
            messages.state(BOTH, faces=1, present=True, fatigue=None, time=NOW, speaker=speaker)["speaker"],
            messages.face_state([BOTH], time=NOW, speaker=speaker)["faces"][0]["speaking"],
        )
        for speaker in SPEAKERS
    ]
    assert speaking == [("person-3", True), ("uncertain", None), (None, False)]


def test_no_schema_is_without_a_payload() -> None:
    """Each schema is used by at least one example above."""
    assert {name for name, _ in PAYLOADS} | {"analyze", "page", *COMMAND_SCHEMAS} == set(SCHEMAS)
    assert set(EVENT_DATA) == set(EVENT_TYPES)


def test_files_are_exactly_the_schemas() -> None:
    """No schema is forgotten in the list, and none is listed without a file."""
    folder = Path(messages.__file__).parent / "schemas"
    assert {file.stem for file in folder.glob("*.json")} == {*SCHEMAS, "asyncapi"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_a_schema(name: str) -> None:
    """Valid 2020-12, with an id of its own."""
    schema = load_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f"/{name}.json")


def test_shared_definitions_are_the_same_everywhere() -> None:
    """Each file stands alone; where two define the same word, they agree."""
    seen: dict[str, Any] = {}
    for name in SCHEMAS:
        for word, definition in load_schema(name).get("$defs", {}).items():
            assert seen.setdefault(word, definition) == definition, f"{word} in {name}"
    assert seen["emotion"]["enum"] == [*LABELS, UNCERTAIN, ABSENT]


@pytest.mark.parametrize(("name", "payload"), [p for p in PAYLOADS if isinstance(p[1], dict)])
def test_missing_and_unknown_keys_are_refused(name: str, payload: dict[str, Any]) -> None:
    """Removing or adding a key makes a payload invalid, except in open objects."""
    optional = {
        "event": {"sequence"},
        "ha_event": {"emotion", "previous", "level", "reason"},
    }.get(name, set())
    for key in payload.keys() - optional:
        assert not is_valid(name, {k: v for k, v in payload.items() if k != key}), f"{name} without {key}"
    assert not is_valid(name, {**payload, "pixels": [1]})


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.id)
def test_event_data_is_closed(event: EmotionEvent) -> None:
    """Nothing can ride along in the data of an event: that is the privacy rule."""
    message = event.to_cloudevent(device="kitchen", sequence=1)
    assert is_valid("event", message)
    assert not is_valid("event", {**message, "data": {**message["data"], "embedding": [0.1]}})
    for key in message["data"]:
        less = {k: v for k, v in message["data"].items() if k != key}
        assert not is_valid("event", {**message, "data": less})


@pytest.mark.parametrize("word", ["unknown", "unavailable", "happy", ""])
def test_reserved_and_unknown_words_are_no_emotion(word: str) -> None:
    """Home Assistant reserves `unknown` and `unavailable`: no schema accepts them as an emotion."""
    for name, payload in PAYLOADS:
        if isinstance(payload, dict) and "emotion" in payload:
            assert not is_valid(name, {**payload, "emotion": word})


def test_times_are_utc_with_milliseconds() -> None:
    """A time of any zone is published in UTC with Z; other formats are refused."""
    built = messages.status(
        "running", reasons=[], since=NOW, version="1", backends=BACKENDS, device=DeviceSettings()
    )
    assert built["since"] == "2026-01-02T01:04:05.678Z"
    for wrong in ("2026-01-02T01:04:05Z", "2026-01-02T01:04:05.678+00:00", "2026-01-02 01:04:05.678Z"):
        assert not is_valid("status", {**built, "since": wrong})


def test_event_without_sequence_is_allowed_but_not_sequence_zero() -> None:
    """An event that no disk took has none; those that have one begin at 1."""
    message = EVENTS[0].to_cloudevent(device="kitchen", sequence=1)
    assert not is_valid("event", {**message, "sequence": 0})
    del message["sequence"]
    assert is_valid("event", message)


def test_withheld_group_withholds_the_sum_too() -> None:
    """Neither of the two numbers may stand without the other."""
    withheld = messages.group_state(None, time=NOW)
    assert withheld["faces"] is withheld["counts"] is None
    assert not is_valid("group_state", {**withheld, "faces": 4})
    assert not is_valid("group_state", {**withheld, "counts": {"anger": 4}})


@pytest.mark.parametrize(
    "line",
    [
        ANALYZED,
        {**ANALYZED, "kind": "image", "faces": [], "voice": None, "fatigue": messages.fatigue_fields(DROWSY)},
        {"file": "b.mp4", "error": "b.mp4: not a video; give a file that ffmpeg can read"},
    ],
)
def test_analyze_line(line: dict[str, Any]) -> None:
    """A result or an error, and never a mixture."""
    explain("analyze", line)
    assert not is_valid("analyze", {**ANALYZED, "error": "both"})
    assert not is_valid("analyze", {"file": "b.mp4"})
    assert not is_valid("analyze", {**ANALYZED, "faces": [{**ANALYZED["faces"][0], "box": [1, 2, 3, 4]}]})
    assert not is_valid("analyze", {**ANALYZED, "faces": [{**ANALYZED["faces"][0], "box": [0, 0, 1]}]})


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(document: Any, pointer: str) -> Any:
    for part in pointer.removeprefix("#/").split("/"):
        document = document[part]
    return document


def test_asyncapi_points_to_every_schema() -> None:
    """All references lead somewhere, and each payload of MQTT is among them."""
    document = load_schema("asyncapi")
    assert document["asyncapi"] == "3.0.0"
    files = set()
    for reference in references(document):
        if reference.startswith("#/"):
            assert resolve(document, reference)
        else:
            name = reference.removeprefix("./").removesuffix(".json")
            files.add(name)
            assert load_schema(name)
    assert files == set(SCHEMAS) - {"analyze", "page", *COMMAND_SCHEMAS}


def test_asyncapi_channels_are_the_topics() -> None:
    """Each topic of the contract is a channel with the QoS and the retain flag of the contract."""
    document = load_schema("asyncapi")
    topics = {}
    for operation in document["operations"].values():
        channel = resolve(document, operation["channel"]["$ref"])
        mqtt = operation["bindings"]["mqtt"]
        subtopic = channel["address"].removeprefix("emotion/{device}/")
        topics[subtopic] = (operation["action"], mqtt["retain"], mqtt["qos"])
    stored = ["availability", "status", "state", "face/state", "voice/state", "fatigue/state", "group/state"]
    stored += ["camera/enabled/state", "microphone/enabled/state"]
    assert topics == {
        **dict.fromkeys(stored, ("send", True, 1)),
        "event": ("send", False, 1),
        "ha_event": ("send", False, 1),
        "probe": ("send", False, 1),
        "stats": ("send", False, 0),
        "homeassistant/device/{device}/config": ("send", True, 1),
        "homeassistant/status": ("receive", False, 1),
        "camera/enabled/set": ("receive", False, 1),
        "microphone/enabled/set": ("receive", False, 1),
    }
    assert len(document["operations"]) == len(document["channels"]) == len(topics)
