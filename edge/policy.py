"""Decides what may leave the device, by `device.context` and `device.acknowledged_basis`.

In education and at the workplace, EU law prohibits inferring people's emotions, except for medical or safety
reasons (Regulation (EU) 2024/1689, article 5(1)(f)). There, unless such a reason is configured, the device
publishes no person's emotion. It publishes counts over a group of at least `GROUP_MIN_FACES` people, and
fatigue, which is a physical state and not an emotion (recital 18). This is not legal advice.

Counts can still reveal a person. If two counts differ by one person, the difference reveals that person's
emotion. If counts are published at every change, an observer in the room sees whose face changed. A
restricted device therefore publishes group counts at fixed intervals, in which several people have changed.
Two risks remain: a group in which all show the same emotion reveals it for each person, and so do two
intervals between which one person arrived. Rounded counts would prevent this, but with about twenty people
and nine labels they would also hide everything else.

A subject such as `person-3` is the number of a track. A track ends when the face leaves the frame, and a
returning person gets a new number. The number identifies no one, so a person's fatigue may leave with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edge.settings import DeviceSettings

GROUP_MIN_FACES = 5
RESTRICTED_CONTEXTS = ("education", "workplace")

# Whether a topic or event type may leave a restricted context. All are listed; an unlisted one may not leave.
TOPICS = {
    "availability": True,
    "status": True,
    "stats": True,  # without `PERSONAL_COUNTERS`
    "probe": True,  # a random number
    "event": True,  # `EVENTS` decides for each event type
    "group/state": True,  # as `Policy.group_counts` limits it
    "fatigue/state": True,
    "camera/enabled/set": True,
    "camera/enabled/state": True,
    "microphone/enabled/set": True,
    "microphone/enabled/state": True,
    "state": False,
    "face/state": False,
    "voice/state": False,
    "ha_event": False,  # Home Assistant gets the permitted values from its sensors
}
EVENTS = {
    "emotion.changed": False,
    "presence.gained": False,
    "presence.lost": False,
    "fatigue.changed": True,
    "device.degraded": True,
    "device.recovered": True,
}
RESTRICTED_TOPICS = frozenset(topic for topic, leaves in TOPICS.items() if leaves)
# Retained states of people: under an earlier context the broker may have stored more than is permitted now.
PERSONAL_STATES = ("state", "face/state", "voice/state", "group/state", "fatigue/state")
PERSONAL_COUNTERS = ("faces", "spoken_windows")  # divided by the frames they reveal the number of people


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of one device: publish everything, or only what the restricted contexts permit."""

    restricted: bool

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """The retained topics to clear at the start."""
        return PERSONAL_STATES if self.restricted else ()

    def permits_topic(self, subtopic: str) -> bool:
        """Return whether `subtopic`, such as `face/state`, may leave (`event`: see `permits_event`)."""
        return not self.restricted or TOPICS.get(subtopic, False)

    def permits_event(self, event_type: str) -> bool:
        """Return whether an event of this type may be stored and published."""
        return not self.restricted or EVENTS.get(event_type, False)

    def permits_stored(self, payload: bytes) -> bool:
        """Return whether a stored CloudEvent, perhaps of an earlier context, may be published now."""
        if not self.restricted:
            return True
        try:
            return self.permits_event(str(json.loads(payload).get("type")))
        except (ValueError, AttributeError, RecursionError):  # not a CloudEvent
            return False

    def group_counts(self, counts: Mapping[str, int]) -> dict[str, int] | None:
        """Return the counts per emotion, or None if the group is too small to be anonymous."""
        return None if self.restricted and sum(counts.values()) < GROUP_MIN_FACES else dict(counts)

    def counters(self, counters: Mapping[str, int | float]) -> dict[str, int | float]:
        """Return the counters that may be published."""
        return {
            name: value
            for name, value in counters.items()
            if not self.restricted or name not in PERSONAL_COUNTERS
        }


OPEN = Policy(restricted=False)


def allowed(settings: DeviceSettings) -> Policy:
    """Return the policy for the context of the device."""
    return Policy(settings.context in RESTRICTED_CONTEXTS and settings.acknowledged_basis is None)


def sentence(settings: DeviceSettings) -> str:
    """Return a sentence for log and page: what the device publishes, and why."""
    if allowed(settings).restricted:
        published = f"fatigue and counts of groups of {GROUP_MIN_FACES} or more"
        return f"{settings.context}: only {published} are published"
    if settings.context in RESTRICTED_CONTEXTS:
        return f"{settings.context}: everything is published, for {settings.acknowledged_basis} reasons"
    return f"{settings.context}: everything is published"
