"""What each topic carries: plain numbers, labels and names made from values; schemas lie in `edge/schemas`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from edge.fusion import Change, Fused
from edge.outbox import Counts
from edge.values import ABSENT, LABELS, UNCERTAIN, Evidence, SubjectState, rfc3339


def load_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a payload: `state`, `event`, `analyze`, ..."""
    text = (resources.files("edge") / "schemas" / f"{name}.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def status(*, state: str, reasons: Sequence[str], since: datetime, version: str) -> dict[str, Any]:
    """The daemon's own state: starting, running, degraded, paused or stopping, and why."""
    return {"state": state, "reasons": list(reasons), "since": rfc3339(since), "version": version}


def state(fused: Fused, *, time: datetime, fatigue: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The room now."""
    return {
        **_subject(fused.room),
        "faces": len(fused.people),
        "present": fused.room.emotion != ABSENT,
        "fatigue": fatigue,
        "time": rfc3339(time),
    }


def face_state(fused: Fused, *, time: datetime) -> dict[str, Any]:
    """Everybody in view, each with the face's own probabilities."""
    return {"faces": [_subject(person) for person in fused.people], "time": rfc3339(time)}


def voice_state(fused: Fused, *, time: datetime) -> dict[str, Any]:
    """What the voice alone says; `uncertain` where nothing reaches a half, `absent` where nobody speaks."""
    voice = fused.room.voice
    if voice is None:
        emotion, confidence = ABSENT, 0.0
    else:
        likeliest = max(LABELS, key=lambda label: voice.probabilities[label])
        confidence = voice.probabilities[likeliest]
        emotion = likeliest if confidence >= 0.5 else UNCERTAIN
    return {
        "emotion": emotion,
        "confidence": confidence,
        "probabilities": dict(voice.probabilities) if voice else {},
        "quality": voice.quality if voice else 0.0,
        "time": rfc3339(time),
    }


def count_emotions(people: Iterable[SubjectState]) -> dict[str, int]:
    """Count people per emotion; nobody is named."""
    found = Counter(person.emotion for person in people)
    return {label: found.get(label, 0) for label in (*LABELS, UNCERTAIN)}


def group_state(counts: Mapping[str, int], *, time: datetime) -> dict[str, Any]:
    """Counts per emotion over the group."""
    return {"counts": dict(counts), "faces": sum(counts.values()), "time": rfc3339(time)}


def event_data(
    change: Change, *, models: Mapping[str, str], backend: str, latency_ms: float
) -> dict[str, Any]:
    """The data of an event about a subject."""
    subject = change.state
    return {
        "subject": subject.subject,
        "emotion": subject.emotion,
        "previous": change.previous,
        "confidence": subject.confidence,
        "probabilities": dict(subject.probabilities),
        "face": _evidence(subject.face),
        "voice": _evidence(subject.voice),
        "model": dict(models),
        "backend": backend,
        "latency_ms": round(latency_ms, 1),
    }


def event_type(change: Change) -> str:
    """Name a change: presence gained or lost where one side of it is `absent`."""
    if change.previous == ABSENT:
        return "presence.gained"
    if change.state.emotion == ABSENT:
        return "presence.lost"
    return "emotion.changed"


def ha_event(type: str) -> dict[str, Any]:
    """Home Assistant's event entity."""
    return {"event_type": type}


def stats(
    *, uptime_s: float, counters: Mapping[str, int], rss_bytes: int, outbox: Counts | None, time: datetime
) -> dict[str, Any]:
    """Counters since the start, memory, and what the outbox holds."""
    return {
        "uptime_s": round(uptime_s, 1),
        "counters": dict(counters),
        "rss_bytes": rss_bytes,
        "outbox": None
        if outbox is None
        else {"waiting": outbox.waiting, "refused": outbox.refused, "dropped": outbox.dropped},
        "time": rfc3339(time),
    }


def _subject(subject: SubjectState) -> dict[str, Any]:
    return {
        "subject": subject.subject,
        "emotion": subject.emotion,
        "confidence": subject.confidence,
        "probabilities": dict(subject.probabilities),
        "face": _evidence(subject.face),
        "voice": _evidence(subject.voice),
    }


def _evidence(evidence: Evidence | None) -> dict[str, Any] | None:
    if evidence is None:
        return None
    return {
        "probabilities": dict(evidence.probabilities),
        "quality": evidence.quality,
        "weight": evidence.weight,
    }
