"""What may leave the device, by the place where it stands.

Inferring emotions at work and in education is prohibited in the EU save for medical or safety reasons
(Regulation (EU) 2024/1689, article 5(1)(f)). There, only counts over a group and fatigue are published,
unless the operator has acknowledged such a basis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.config import DeviceSettings

RESTRICTED = ("education", "workplace")
MIN_GROUP = 5  # faces; fewer would tell on one person
PERSONAL_TOPICS = ("state", "face/state", "voice/state", "ha_event")
PERSONAL_EVENTS = ("emotion.", "presence.")


@dataclass(frozen=True, slots=True)
class Policy:
    """What one context permits."""

    is_restricted: bool

    def permits_topic(self, subtopic: str) -> bool:
        """Tell whether a topic below the device's own may be published."""
        return not (self.is_restricted and subtopic in PERSONAL_TOPICS)

    def permits_event(self, type: str) -> bool:
        """Tell whether events of this type may be stored and sent."""
        return not (self.is_restricted and type.startswith(PERSONAL_EVENTS))

    def group_counts(self, counts: Mapping[str, int]) -> dict[str, int] | None:
        """Return the counts per emotion, None where the group is too small to hide a person."""
        if self.is_restricted and sum(counts.values()) < MIN_GROUP:
            return None
        return dict(counts)


def policy_for(settings: DeviceSettings) -> Policy:
    """Return the policy of a device's context and acknowledged basis."""
    return Policy(settings.context in RESTRICTED and settings.acknowledged_basis is None)
