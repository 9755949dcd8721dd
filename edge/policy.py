"""What may leave the device, by the context it stands in (`device.context`, `device.acknowledged_basis`).

In education and at the workplace, inferring emotions of people is prohibited in the EU save for medical or
safety reasons (Regulation (EU) 2024/1689, article 5(1)(f)). There, without such a stated reason, no person's
emotion leaves: only counts over a group of at least `GROUP_MIN_FACES`, and fatigue. Not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.settings import DeviceSettings
from edge.values import ABSENT

GROUP_MIN_FACES = 5
RESTRICTED_CONTEXTS = ("education", "workplace")

# Named one by one: what is not here does not leave, also when a topic is added elsewhere.
RESTRICTED_TOPICS = frozenset(
    {
        "availability",
        "status",
        "stats",
        "probe",  # a random number
        "event",  # the stream; `permits_event` decides for each
        "group/state",
        "fatigue/state",
        "camera/enabled/set",
        "camera/enabled/state",
        "microphone/enabled/set",
        "microphone/enabled/state",
    }
)
PERSONAL_STATES = ("state", "face/state", "voice/state")  # topics that the broker stores
RESTRICTED_EVENTS = frozenset({"fatigue.changed", "device.degraded", "device.recovered"})


@dataclass(frozen=True, slots=True)
class Policy:
    """The answer for one device: everything, or only what the restricted contexts allow."""

    restricted: bool

    def permits_topic(self, subtopic: str) -> bool:
        """Tell whether `subtopic`, such as `face/state`, may be published (`event`: see `permits_event`)."""
        return not self.restricted or subtopic in RESTRICTED_TOPICS

    def permits_event(self, event_type: str) -> bool:
        """Tell whether an event of this type may be stored and published."""
        return not self.restricted or event_type in RESTRICTED_EVENTS

    def group_counts(self, counts: Mapping[str, int]) -> dict[str, int] | None:
        """Return the counts per emotion, or None where the group is too small to hide a person in."""
        faces = sum(number for emotion, number in counts.items() if emotion != ABSENT)
        return None if self.restricted and faces < GROUP_MIN_FACES else dict(counts)


def allowed(settings: DeviceSettings) -> Policy:
    """Return the policy for where the device stands."""
    return Policy(settings.context in RESTRICTED_CONTEXTS and settings.acknowledged_basis is None)
