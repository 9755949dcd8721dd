"""Builds the payload of each MQTT topic from values; `schemas/` describes each payload."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from edge.delivery.outbox.rows import Counts
from edge.people.fatigue import FatigueState
from edge.people.speaker import NO_SPEAKER, Speaker
from edge.settings import DeviceSettings
from edge.values import EmotionEvent, Evidence, SubjectState, rfc3339

ONLINE = "online"
OFFLINE = "offline"
EVENT_TYPES = (
    "emotion.changed",
    "presence.gained",
    "presence.lost",
    "fatigue.changed",
    "device.degraded",
    "device.recovered",
)
COMMAND_SCHEMAS = (
    "outbox",
    "outbox_action",
    "outbox_entry",
    "heard",
    "devices",
    "doctor",
    "bench",
)  # the output of `--json`
SCHEMAS = (
    "availability",
    "status",
    "state",
    "face_state",
    "voice_state",
    "fatigue_state",
    "group_state",
    "event",
    "ha_event",
    "stats",
    "enabled",
    "discovery",
    "birth",
    "analyze",
    "page",
    "probe",
    *COMMAND_SCHEMAS,
)


def status(
    state: str,
    *,
    reasons: Sequence[str],
    since: datetime,
    version: str,
    backends: Mapping[str, Mapping[str, Any]],
    device: DeviceSettings,
    preview: bool = False,
) -> dict[str, Any]:
    """Describe the daemon: `state` is starting, running, degraded, paused or stopping.

    `device` has the context, and the legal basis if the device publishes everything in a restricted context.
    `backends` has for each modality the `backend` in use and those `passed_over`, each with its reason;
    `preview` is whether a person at the device views the camera preview.
    """
    return {
        "state": state,
        "reasons": list(reasons),
        "since": rfc3339(since),
        "version": version,
        "backends": {modality: dict(fields) for modality, fields in backends.items()},
        "preview": preview,
        "context": device.context,
        "acknowledged_basis": device.acknowledged_basis,
    }


def state(
    room: SubjectState,
    *,
    faces: int,
    present: bool,
    fatigue: FatigueState | None,
    time: datetime,
    speaker: Speaker = NO_SPEAKER,
) -> dict[str, Any]:
    """Describe the room now; `fatigue` is None where it is not measured."""
    return {
        **_emotion(room),
        "faces": faces,
        "present": present,
        "fatigue": None if fatigue is None else fatigue_fields(fatigue),
        "speaker": speaker.label,
        "time": rfc3339(time),
    }


def face_state(
    faces: Sequence[SubjectState], *, time: datetime, speaker: Speaker = NO_SPEAKER
) -> dict[str, Any]:
    """Describe every face in view, in the order given, and who of them is speaking."""
    people = [
        {
            "subject": face.subject,
            **_emotion(face),
            "quality": _quality(face.face),
            "speaking": speaker.speaks(face.subject),
        }
        for face in faces
    ]
    return {"count": len(people), "faces": people, "time": rfc3339(time)}


def voice_state(voice: SubjectState, *, time: datetime) -> dict[str, Any]:
    """Describe the voice alone; `absent` without speech."""
    return {**_emotion(voice), "quality": _quality(voice.voice), "time": rfc3339(time)}


def fatigue_state(room: FatigueState, people: Sequence[FatigueState], *, time: datetime) -> dict[str, Any]:
    """Describe the fatigue of the room, which is that of the most tired person, and of each person."""
    return {
        **fatigue_fields(room),
        "people": [{"subject": person.subject, **fatigue_fields(person)} for person in people],
        "time": rfc3339(time),
    }


def group_state(counts: Mapping[str, int] | None, *, time: datetime) -> dict[str, Any]:
    """Count faces per emotion; None, from `Policy.group_counts`, withholds the counts and their sum."""
    return {
        "faces": None if counts is None else sum(counts.values()),
        "counts": None if counts is None else dict(counts),
        "time": rfc3339(time),
    }


def stats(
    *,
    time: datetime,
    uptime_s: float,
    counters: Mapping[str, int | float],
    latency_ms: Mapping[str, Mapping[str, float]],
    outbox: Counts | None,
) -> dict[str, Any]:
    """Report numbers by name: `counters` such as frames_dropped, `latency_ms` per stage with p50 and p95."""
    return {
        "time": rfc3339(time),
        "uptime_s": round(uptime_s, 1),
        "counters": dict(counters),
        "latency_ms": {stage: dict(values) for stage, values in latency_ms.items()},
        "outbox": None if outbox is None else outbox_counts(outbox),
    }


def outbox_counts(counts: Counts) -> dict[str, int]:
    """Return the counts of the outbox as JSON, for `stats` and for `emotion-edge outbox --json`."""
    return {
        "waiting": counts.waiting,
        "waiting_bytes": counts.waiting_bytes,
        "refused": counts.refused,
        "dropped": counts.dropped,
        "last_sequence": counts.last_sequence,
    }


def probe(token: str) -> dict[str, str]:
    """Return the message that the device publishes to itself; the token identifies it.

    Under MQTT 3.1.1 it shows whether messages arrive; a long token shows whether the broker takes the size.
    """
    return {"token": token}


def enabled(is_on: bool) -> str:
    """Return the payload of `camera/enabled/state` and `microphone/enabled/state`: plain text, not JSON."""
    return "ON" if is_on else "OFF"


def event_data(
    subject: SubjectState,
    *,
    previous: str | None,
    models: Mapping[str, str | None],
    backend: str,
    latency_ms: float,
    speaker: Speaker = NO_SPEAKER,
) -> dict[str, Any]:
    """Return the data of `emotion.changed`.

    `models` has `face` and `voice`, each `name@sha256[:12]` or None, `video` where a model classifies faces
    over time, and `fusion` where a network fuses the modalities; `latency_ms` is the time from the capture of
    the newest input to the event.
    """
    model = {"face": models.get("face"), "voice": models.get("voice")}
    model |= {task: models[task] for task in ("video", "fusion") if task in models}
    return {
        "subject": subject.subject,
        **_emotion(subject),
        "previous": previous,
        "face": _evidence(subject.face),
        "voice": _evidence(subject.voice),
        "model": model,
        "backend": backend,
        "latency_ms": round(latency_ms, 1),
        "speaker": speaker.label,
    }


def presence_data(subject: str, *, faces: int) -> dict[str, Any]:
    """Return the data of `presence.gained` and `presence.lost`; `faces` counts the faces in view after it."""
    return {"subject": subject, "faces": faces}


def fatigue_data(state: FatigueState, *, previous: str) -> dict[str, Any]:
    """Return the data of `fatigue.changed`."""
    return {"subject": state.subject, "previous": previous, **fatigue_fields(state)}


def fatigue_fields(state: FatigueState) -> dict[str, Any]:
    """Return level, reasons and measurements of one subject, without its name."""
    return {
        "level": state.level,
        "score": round(state.score, 3),
        "reasons": list(state.reasons),
        "closed_s": round(state.closed_s, 2),
        "perclos": _rounded(state.perclos, 4),
        "blinks_per_min": _rounded(state.blinks_per_min, 1),
        "blink_s": _rounded(state.blink_s, 3),
        "microsleeps": state.microsleeps,
        "yawns": state.yawns,
        "nods": state.nods,
        "seen_s": round(state.seen_s, 1),
        "usual_blinks_per_min": _rounded(state.usual_blinks_per_min, 1),
        "usual_blink_s": _rounded(state.usual_blink_s, 3),
    }


def device_data(part: str, *, reason: str) -> dict[str, Any]:
    """Return the data of `device.degraded` and `device.recovered`: `part` such as `camera` or `outbox`."""
    return {"subject": part, "reason": reason}


def ha_event(event: EmotionEvent) -> dict[str, Any]:
    """Return the payload of Home Assistant's event entity: the type, and what an automation may test."""
    words = {key: event.data[key] for key in ("emotion", "previous", "level", "reason") if key in event.data}
    return {"event_type": event.type, "subject": str(event.data.get("subject", "room")), **words}


def load_schema(name: str) -> dict[str, Any]:
    """Return a JSON Schema (2020-12) of `SCHEMAS`, or the AsyncAPI description as `asyncapi`."""
    text = (resources.files("edge.delivery") / "schemas" / f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _emotion(subject: SubjectState) -> dict[str, Any]:
    return {
        "emotion": subject.emotion,
        "confidence": round(subject.confidence, 4),
        "probabilities": dict(subject.probabilities),
    }


def _rounded(value: float | None, places: int) -> float | None:
    return None if value is None else round(value, places)


def _quality(evidence: Evidence | None) -> float | None:
    return None if evidence is None else round(evidence.quality, 4)


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {
        "probabilities": dict(evidence.probabilities),
        "quality": round(evidence.quality, 4),
        "weight": round(evidence.weight, 4),
    }
