"""Turns opinions into what the broker hears: fused states while they change, events when they did."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from edge.delivery import messages
from edge.delivery.fatigue_topic import FatigueTopic
from edge.delivery.outbox.writer import OutboxWriter
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.people.fusion import Change, Fused, Fusion
from edge.people.pooling import Pool, pool_name
from edge.people.speaker import NO_SPEAKER, SpeakerTracker
from edge.pipeline import AnyClassifier
from edge.policy import Policy
from edge.settings import FatigueSettings, FusionSettings
from edge.values import ABSENT, EmotionEvent, FaceResult, Modality, measurements_of
from edge.voice.windows import VoiceResult

STATE_EVERY_S = 30.0
STATE_STEP = 0.1  # a change of confidence worth telling, at most once a second


class Room:
    """Everybody in view of one device. Called by the workers and the clock, from any thread."""

    def __init__(
        self,
        settings: FusionSettings,
        *,
        fatigue: FatigueSettings | None,
        pool: Pool | None = None,
        policy: Policy,
        publisher: Publisher,
        recorder: OutboxWriter,
        health: Health,
        classifiers: Mapping[str, AnyClassifier],
    ) -> None:
        self._fusion = Fusion(settings, pool)
        self._speaking = SpeakerTracker()
        self._speaker = NO_SPEAKER
        self._policy = policy
        self._publisher = publisher
        self._recorder = recorder
        self._health = health
        self._classifiers = classifiers
        self._names = {} if (name := pool_name(pool)) is None else {"fusion": name}
        self._lock = threading.Lock()
        self.told: dict[str, dict[str, Any]] = {}  # the newest payload of each live topic, as published
        self._fatigue = FatigueTopic(fatigue, policy=policy, publisher=publisher, told=self.told)
        self._told: tuple[object, ...] = ()
        self._told_ns = 0
        self._told_confidence = 0.0
        self._group_ns: int | None = None
        self._is_group_withheld = False

    def see(self, face_results: Sequence[FaceResult], *, t_ns: int) -> None:
        """Take what the faces in one frame, captured at `t_ns`, say and do; tell what follows from it."""
        measurements = measurements_of(face_results)
        with self._lock:
            self._fatigue.add(measurements)
            self._speaking.add_faces(measurements)
            for face_result in face_results:
                self._fusion.add(face_result.prediction)
            self._advance(t_ns)

    def hear(self, voice_result: VoiceResult) -> None:
        """Take a window of sound, also one without speech; tell what follows from it."""
        with self._lock:
            self._speaking.add_window(voice_result.window)
            if voice_result.prediction is not None:
                self._fusion.add(voice_result.prediction)
            self._advance(voice_result.window.t_ns)

    def tick(self) -> None:
        """Let opinions age while nothing comes in."""
        with self._lock:
            self._advance(time.monotonic_ns())

    def forget(self, modality: Modality) -> None:
        """Drop what a device that was switched off had seen or heard, and tell so."""
        with self._lock:
            self._fusion.forget(modality)
            self._speaking.forget(modality)
            if modality is Modality.FACE:
                self._fatigue.forget()
            self._advance(time.monotonic_ns())

    def report_device(self, component: str, reason: str) -> None:
        """Tell that a device is degraded, or has recovered (no reason)."""
        data = messages.device_data(component, reason=reason or "recovered")
        self._emit([("device.degraded" if reason else "device.recovered", data)], time.monotonic_ns())

    def _advance(self, t_ns: int) -> None:
        now_ns = time.monotonic_ns()
        self._speaker = self._speaking.speaker(now_ns)
        fused = self._fusion.update(now_ns, speaker=self._speaker)
        latency_ms = (time.monotonic_ns() - t_ns) / 1e6
        events = [self._event(change, len(fused.people), latency_ms) for change in fused.changes]
        events += self._fatigue.advance(now_ns, fused.people)
        self._emit(events, t_ns)
        self._tell(fused)

    def _event(self, change: Change, faces: int, latency_ms: float) -> tuple[str, dict[str, Any]]:
        """Return type and data: presence was gained or lost where one side of the change is `absent`."""
        subject = change.state
        if ABSENT in (change.previous, subject.emotion):
            kind = "presence.gained" if change.previous == ABSENT else "presence.lost"
            return kind, messages.presence_data(subject.subject, faces=faces)
        return "emotion.changed", messages.event_data(
            subject,
            previous=change.previous,
            models=self._names | {task: classifier.name for task, classifier in self._classifiers.items()},
            backend=self._classifiers["face"].backend,
            latency_ms=latency_ms,
            speaker=self._speaker,
        )

    def _emit(self, events: Sequence[tuple[str, Mapping[str, Any]]], t_ns: int) -> None:
        """Have stored and sent what the policy permits."""
        moment = datetime.now(UTC) - timedelta(microseconds=(time.monotonic_ns() - t_ns) / 1e3)
        permitted = [
            EmotionEvent(str(uuid.uuid4()), type, moment, t_ns, data)
            for type, data in events
            if self._policy.permits_event(type)
        ]
        if not permitted:
            return
        self._recorder.record(permitted)
        self._health.counters["events"] += len(permitted)
        for event in permitted:
            self._publisher.publish_live("ha_event", messages.ha_event(event))

    def _tell(self, fused: Fused) -> None:
        """Publish the live states when they changed, and at least every 30 s."""
        now_ns = time.monotonic_ns()
        elapsed_s = (now_ns - self._told_ns) / 1e9
        what = (
            fused.room.emotion,
            fused.room.voice is None,
            self._speaker.word,
            tuple((person.subject, person.emotion) for person in fused.people),
            self._fatigue.room and self._fatigue.room.level,
        )
        moved = abs(fused.room.confidence - self._told_confidence) >= STATE_STEP and elapsed_s >= 1
        self._tell_group(fused, now_ns, has_changed=what != self._told)
        if what == self._told and not moved and elapsed_s < STATE_EVERY_S:
            return
        self._told, self._told_ns, self._told_confidence = what, now_ns, fused.room.confidence
        now = datetime.now(UTC)
        payloads = {
            "state": messages.state(
                fused.room,
                faces=len(fused.people),
                present=fused.room.emotion != ABSENT,
                fatigue=self._fatigue.room,
                speaker=self._speaker,
                time=now,
            ),
            "face/state": messages.face_state(fused.people, speaker=self._speaker, time=now),
            "voice/state": messages.voice_state(self._fusion.voice_alone(fused.room), time=now),
        }
        for subtopic, payload in payloads.items():
            self._publish(subtopic, payload)

    def _tell_group(self, fused: Fused, now_ns: int, *, has_changed: bool) -> None:
        """Count faces, on a beat and not at a change where a change would tell whose face it was.

        That there are enough people now, or no longer, is told at once: there is nothing to compare it with.
        """
        counts = self._policy.group_counts(Counter(person.emotion for person in fused.people))
        is_due = self._group_ns is None or now_ns - self._group_ns >= STATE_EVERY_S * 1e9
        is_due = is_due or (counts is None) != self._is_group_withheld
        if is_due or (has_changed and not self._policy.restricted):
            self._group_ns, self._is_group_withheld = now_ns, counts is None
            self._publish("group/state", messages.group_state(counts, time=datetime.now(UTC)))

    def _publish(self, subtopic: str, payload: dict[str, Any]) -> None:
        if self._policy.permits_topic(subtopic):
            self.told[subtopic] = payload
            self._publisher.publish_state(subtopic, payload)
