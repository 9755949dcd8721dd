"""What may leave the device, by the context it stands in (`device.context`, `device.acknowledged_basis`).

In education and at the workplace, inferring emotions of people is prohibited in the EU save for medical or
safety reasons (Regulation (EU) 2024/1689, article 5(1)(f)). There, without such a stated reason, no person's
emotion leaves: only counts over a group of at least `GROUP_MIN_FACES`, and fatigue, which is a physical state
and no emotion (recital 18). Not legal advice.

Two counts of which one has a person more tell that person's emotion by their difference, and so would
counts that follow each change of a face: who watches the room sees whose face changed. Hence a restricted
device tells the group on a beat (`Room`), by which several people have moved. What remains: a group in which
all are the same tells it of each, and so do two beats between which one person came. Rounded counts would
hide that and, with some twenty people over nine words, everything else.

A subject such as `person-3` is the number of a track. It ends when the face leaves the picture and is not
given again to who comes back, so it names nobody; fatigue of a person may leave with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edge.settings import DeviceSettings

GROUP_MIN_FACES = 5
RESTRICTED_CONTEXTS = ("education", "workplace")

# Whether it leaves a restricted context. Every topic and every type of event is named; one that is not, since
# somebody added it elsewhere, does not leave.
TOPICS = {
    "availability": True,
    "status": True,
    "stats": True,  # save for `PERSONAL_COUNTERS`
    "probe": True,  # a random number
    "event": True,  # the stream; `EVENTS` decides for each
    "group/state": True,  # as `Policy.group_counts` has it
    "fatigue/state": True,
    "camera/enabled/set": True,
    "camera/enabled/state": True,
    "microphone/enabled/set": True,
    "microphone/enabled/state": True,
    "state": False,
    "face/state": False,
    "voice/state": False,
    "ha_event": False,  # sensors tell Home Assistant what may be told
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
# Retained, and about people: an earlier context may have left more in them than this one may say.
PERSONAL_STATES = ("state", "face/state", "voice/state", "group/state", "fatigue/state")
PERSONAL_COUNTERS = ("faces", "spoken_windows")  # over the pictures they give away how many people there are


@dataclass(frozen=True, slots=True)
class Policy:
    """The answer for one device: everything, or only what the restricted contexts allow."""

    restricted: bool

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """The retained topics that are cleared at start."""
        return PERSONAL_STATES if self.restricted else ()

    def permits_topic(self, subtopic: str) -> bool:
        """Tell whether `subtopic`, such as `face/state`, may be published (`event`: see `permits_event`)."""
        return not self.restricted or TOPICS.get(subtopic, False)

    def permits_event(self, event_type: str) -> bool:
        """Tell whether an event of this type may be stored and published."""
        return not self.restricted or EVENTS.get(event_type, False)

    def permits_stored(self, payload: bytes) -> bool:
        """Tell whether a CloudEvent that an earlier context may have stored may be published now."""
        if not self.restricted:
            return True
        try:
            return self.permits_event(str(json.loads(payload).get("type")))
        except (ValueError, AttributeError):  # no event of ours
            return False

    def group_counts(self, counts: Mapping[str, int]) -> dict[str, int] | None:
        """Return the counts per emotion, or None where the group is too small to hide a person in."""
        return None if self.restricted and sum(counts.values()) < GROUP_MIN_FACES else dict(counts)

    def counters(self, counters: Mapping[str, int | float]) -> dict[str, int | float]:
        """Return the counters that may be told."""
        return {
            name: value
            for name, value in counters.items()
            if not self.restricted or name not in PERSONAL_COUNTERS
        }


OPEN = Policy(restricted=False)


def allowed(settings: DeviceSettings) -> Policy:
    """Return the policy for where the device stands."""
    return Policy(settings.context in RESTRICTED_CONTEXTS and settings.acknowledged_basis is None)


def sentence(settings: DeviceSettings) -> str:
    """Return for people what leaves the device, and why."""
    if allowed(settings).restricted:
        return f"{settings.context}: only fatigue and groups of {GROUP_MIN_FACES} or more are told"
    if settings.context in RESTRICTED_CONTEXTS:
        return f"{settings.context}: everything is told, for {settings.acknowledged_basis} reasons"
    return f"{settings.context}: everything is told"
