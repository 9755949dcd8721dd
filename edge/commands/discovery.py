"""`emotion-edge discovery`: prints the payload that announces the device to Home Assistant, or removes it."""

from __future__ import annotations

import json
from typing import Literal

from edge.delivery.home_assistant.discovery import clear_discovery, discovery_topic
from edge.delivery.home_assistant.entities import discovery_payload
from edge.settings import Config


def run_discovery(action: Literal["show", "remove"], config: Config) -> None:
    """Print the payload, or delete the retained one from the broker."""
    if action == "show":
        print(json.dumps(discovery_payload(config), indent=2))
        return
    clear_discovery(config)
    print(f"{discovery_topic(config)}: removed; a daemon with mqtt.discovery = true announces it again")
