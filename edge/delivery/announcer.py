"""Turns a `Moment` into the states and events that leave the device.

States are retained and go out by their `Cadence`; events are written to the outbox. The publisher and the
outbox writer drop what the policy of the device's context does not permit.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edge.delivery import messages
from edge.delivery.cadence import STATE_INTERVAL_S, Cadence
from edge.delivery.outbox.writer import OutboxWriter
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.inference.classifier import TfliteClassifier
from edge.inference.fallback import FallbackClassifier
from edge.people.fatigue import FatigueStates
from edge.people.fusion import EmotionChange
from edge.people.scene import Moment
from edge.policy import Policy
from edge.values import ABSENT, EmotionEvent

CONFIDENCE_STEP = 0.1
SCORE_STEP, PERCLOS_STEP = 0.05, 0.01

Classifiers = Mapping[str, TfliteClassifier | FallbackClassifier]
Event = tuple[str, dict[str, Any]]  # type and data


class Announcer:
    """Publishes the states of one device and records its events.

    Not safe for several threads, except `announce_device`.

    `classifiers` are the models by task, and `fusion_model` is the name of the fusing network, if any: events
    name them.
    """

    def __init__(
        self,
        publisher: Publisher,
        writer: OutboxWriter,
        health: Health,
        *,
        policy: Policy,
        classifiers: Classifiers,
        fusion_model: str | None = None,
        state_interval_s: float = STATE_INTERVAL_S,
    ) -> None:
        self._publisher = publisher
        self._writer = writer
        self._health = health
        self._policy = policy
        self._classifiers = classifiers
        self._fusion_model = fusion_model
        self._room_cadence = Cadence(state_interval_s, steps=(CONFIDENCE_STEP,))
        self._group_cadence = Cadence(state_interval_s)
        self._fatigue_cadence = Cadence(state_interval_s, steps=(SCORE_STEP, PERCLOS_STEP))

    def announce(self, moment: Moment, t_ns: int) -> None:
        """Record the changes of a moment as events and publish the states that are due.

        `t_ns` is when the newest input of the moment was captured.
        """
        self._record(self._events(moment, t_ns), t_ns)
        if moment.fatigue is not None:
            self._publish_fatigue(moment.fatigue, moment.t_ns)
        self._publish_room(moment)

    def announce_device(self, component: str, reason: str) -> None:
        """Record that a device is degraded, or has recovered if `reason` is empty."""
        event_type = "device.degraded" if reason else "device.recovered"
        data = messages.device_data(component, reason=reason or "recovered")
        self._record([(event_type, data)], time.monotonic_ns())

    def _events(self, moment: Moment, t_ns: int) -> list[Event]:
        events = []
        if moment.changes:
            latency_ms = (time.monotonic_ns() - t_ns) / 1e6
            events = [self._emotion_event(change, moment, latency_ms) for change in moment.changes]
        if moment.fatigue is not None:
            events += [
                ("fatigue.changed", messages.fatigue_data(change.state, previous=change.previous))
                for change in moment.fatigue.changes
            ]
        return events

    def _emotion_event(self, change: EmotionChange, moment: Moment, latency_ms: float) -> Event:
        """Return `emotion.changed`, or presence gained or lost where one side of the change is `absent`."""
        state = change.state
        if ABSENT in (change.previous, state.emotion):
            event_type = "presence.gained" if change.previous == ABSENT else "presence.lost"
            return event_type, messages.presence_data(state.subject, faces=len(moment.people))
        models: dict[str, str | None] = {task: model.name for task, model in self._classifiers.items()}
        if self._fusion_model is not None:
            models["fusion"] = self._fusion_model
        return "emotion.changed", messages.event_data(
            state,
            previous=change.previous,
            models=models,
            backend=self._classifiers["face"].backend,
            latency_ms=latency_ms,
            speaker=moment.speaker,
        )

    def _record(self, events: list[Event], t_ns: int) -> None:
        """Write events to the outbox and publish the permitted ones to Home Assistant."""
        if not events:
            return
        captured = self._health.time.of_event(time.monotonic_ns() - t_ns)
        recorded = self._writer.record(
            [EmotionEvent(str(uuid.uuid4()), event_type, captured, t_ns, data) for event_type, data in events]
        )
        self._health.counters["events"] += len(recorded)
        for event in recorded:
            self._publisher.publish_live("ha_event", messages.ha_event(event))

    def _publish_room(self, moment: Moment) -> None:
        """Publish `state`, `face/state`, `voice/state` and `group/state` if they are due."""
        room, people, fatigue = moment.room, moment.people, moment.fatigue
        room_fatigue = None if fatigue is None else fatigue.room
        key = (
            room.emotion,
            room.voice is None,
            moment.speaker.label,
            tuple((person.subject, person.emotion) for person in people),
            None if room_fatigue is None else room_fatigue.level,
        )
        self._publish_group(moment, key)
        if not self._room_cadence.is_due(moment.t_ns, key, (room.confidence,)):
            return
        now = self._health.time.now()
        self._publisher.publish_state(
            "state",
            messages.state(
                room,
                faces=len(people),
                present=room.emotion != ABSENT,
                fatigue=room_fatigue,
                speaker=moment.speaker,
                time=now,
            ),
        )
        self._publisher.publish_state(
            "face/state", messages.face_state(people, speaker=moment.speaker, time=now)
        )
        self._publisher.publish_state("voice/state", messages.voice_state(moment.voice, time=now))

    def _publish_group(self, moment: Moment, key: tuple[object, ...]) -> None:
        """Publish the number of faces by emotion; in a restricted context at fixed intervals.

        There, counts that follow each change of a face would reveal whose face changed (`edge.policy`). Only
        reaching or losing the minimum size of a group is published at once: before or after that change no
        counts are published, so there is nothing to compare with.
        """
        counts = self._policy.group_counts(Counter(person.emotion for person in moment.people))
        group_key = (counts is None,) if self._policy.restricted else key
        if self._group_cadence.is_due(moment.t_ns, group_key):
            now = self._health.time.now()
            self._publisher.publish_state("group/state", messages.group_state(counts, time=now))

    def _publish_fatigue(self, states: FatigueStates, now_ns: int) -> None:
        """Publish `fatigue/state` when a level, a reason or a count changes, or the numbers move."""
        everybody = (states.room, *states.people)
        key = tuple((s.subject, s.level, s.reasons, s.microsleeps, s.yawns, s.nods) for s in everybody)
        numbers = (max(s.score for s in everybody), max(s.perclos or 0.0 for s in everybody))
        if self._fatigue_cadence.is_due(now_ns, key, numbers):
            now = self._health.time.now()
            payload = messages.fatigue_state(states.room, states.people, time=now)
            self._publisher.publish_state("fatigue/state", payload)


def clear_stale_states(publisher: Publisher, policy: Policy, *, watches_fatigue: bool) -> None:
    """Clear the retained states of an earlier configuration that this one does not update.

    In a restricted context these are the states about people, which an earlier context may have published in
    full; without fatigue, its state.
    """
    for subtopic in policy.withdrawn:
        publisher.clear_retained(subtopic)
    if not watches_fatigue:
        publisher.clear_retained("fatigue/state")
