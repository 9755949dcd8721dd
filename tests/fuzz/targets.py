"""All targets by name."""

from __future__ import annotations

from tests.fuzz import cards, configuration, media, messages, packets, requests

TARGETS = {
    target.name: target
    for target in (
        configuration.TARGET,
        cards.TARGET,
        media.TARGET,
        messages.TARGET,
        packets.TARGET,
        requests.TARGET,
    )
}
