"""What the broker hears of fatigue: the state while it moves, and an event for each change of level."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from edge.delivery import messages
from edge.delivery.publisher import Publisher
from edge.people.fatigue import FatigueMonitor, FatigueState, FatigueStates
from edge.policy import Policy
from edge.settings import FatigueSettings
from edge.values import FaceMeasurements, SubjectState

SUBTOPIC = "fatigue/state"
EVERY_S = 30.0
MOVED_EVERY_S = 1.0  # numbers that move are told as often
SCORE_STEP = 0.05
PERCLOS_STEP = 0.01


class FatigueTopic:
    """Watches the faces of one device; called under the lock of the room.

    Without `settings`, where no camera is or nobody wants it, nothing is watched, and what an earlier
    configuration had left in the broker is taken back.
    """

    def __init__(
        self, settings: FatigueSettings | None, *, policy: Policy, publisher: Publisher, told: dict[str, Any]
    ) -> None:
        self._monitor = None if settings is None else FatigueMonitor(settings)
        self._policy = policy
        self._publisher = publisher
        self._told = told
        self._said: tuple[object, ...] = ()
        self._said_ns = 0
        self._said_numbers = (0.0, 0.0)
        self.room: FatigueState | None = None
        if self._monitor is None:
            publisher.clear_retained(SUBTOPIC)

    def add(self, measurements: Sequence[FaceMeasurements]) -> None:
        """Take what the faces of one picture do."""
        if self._monitor is not None:
            for reading in measurements:
                self._monitor.add(reading)

    def forget(self) -> None:
        """Drop what a camera that was switched off had seen."""
        if self._monitor is not None:
            self._monitor.forget()

    def advance(self, now_ns: int, people: Sequence[SubjectState]) -> list[tuple[str, dict[str, Any]]]:
        """Publish the state if it is due; return the events, type and data, that happened by `now_ns`.

        The emotions of `people` are used only where they may be told themselves.
        """
        if self._monitor is None:
            return []
        is_open = self._policy.permits_topic("face/state")
        moods = {person.subject: person.probabilities for person in people} if is_open else None
        states = self._monitor.update(now_ns, moods)
        self.room = states.room
        self._tell(states, now_ns)
        return [
            ("fatigue.changed", messages.fatigue_data(change.state, previous=change.previous))
            for change in states.changes
        ]

    def _tell(self, states: FatigueStates, now_ns: int) -> None:
        """Publish on a change of levels or counts, once a second while numbers move, and every 30 s."""
        everybody = (states.room, *states.people)
        said = tuple((s.subject, s.level, s.reasons, s.microsleeps, s.yawns, s.nods) for s in everybody)
        numbers = (max(s.score for s in everybody), max(s.perclos or 0.0 for s in everybody))
        steps = zip(numbers, self._said_numbers, (SCORE_STEP, PERCLOS_STEP), strict=True)
        elapsed_s = (now_ns - self._said_ns) / 1e9
        has_moved = elapsed_s >= MOVED_EVERY_S and any(abs(new - old) >= step for new, old, step in steps)
        if said == self._said and not has_moved and elapsed_s < EVERY_S:
            return
        self._said, self._said_ns, self._said_numbers = said, now_ns, numbers
        if self._policy.permits_topic(SUBTOPIC):
            payload = messages.fatigue_state(states.room, states.people, time=datetime.now(UTC))
            self._told[SUBTOPIC] = payload
            self._publisher.publish_state(SUBTOPIC, payload)
