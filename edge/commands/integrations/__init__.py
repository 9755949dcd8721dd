"""Files that other programs import to show this device: a Node-RED flow, a Grafana dashboard, a card."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parser needs the names alone, and pydantic is slow to import
    from edge.settings import Config

# File by name; the files contain the topics of device `room` below the prefix `emotion`.
INTEGRATIONS = {
    "node-red": "node-red-flow.json",
    "grafana": "grafana-dashboard.json",
    "home-assistant-card": "home-assistant-card.yaml",
}


def render_integration(name: str, config: Config) -> str:
    """Return the file of `INTEGRATIONS` with the topics and the entity ids of the configured device."""
    from edge.delivery.home_assistant.entities import object_prefix

    text = (resources.files("edge.commands.integrations") / INTEGRATIONS[name]).read_text(encoding="utf-8")
    return (
        text.replace("emotion/room/", f"{config.mqtt.prefix}/{config.device.id}/")
        .replace("emotion/+/", f"{config.mqtt.prefix}/+/")
        .replace(".room_", f".{object_prefix(config.device.id)}_")
    )
