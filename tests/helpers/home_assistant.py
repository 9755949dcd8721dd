"""Runs in Home Assistant's own Python: its discovery parser, platform schemas and templates on our payloads.

Each line on stdin is `{"config": discovery payload, "messages": {topic: payload}}`. The answer is one line
with, for each entity that Home Assistant accepts, its platform, its entity id, and what its templates make of
the message on its topic.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
from importlib import import_module
from typing import Any

from homeassistant.components.mqtt.discovery import _merge_common_device_options, _parse_device_payload
from homeassistant.components.mqtt.models import MqttValueTemplate
from homeassistant.core import HomeAssistant
from homeassistant.util import slugify


async def check(config: str, messages: dict[str, str]) -> dict[str, Any]:
    """Return what Home Assistant makes of the payload; raise what its schemas raise."""
    hass = HomeAssistant(tempfile.gettempdir())
    device = _parse_device_payload(hass, config, "device", None)
    if not device:
        raise ValueError("Home Assistant refuses the payload; see its log above")
    result = {}
    for key, component in device["components"].items():
        platform = component.pop("platform")
        if not component:
            continue
        component["device"], component["origin"] = device["device"], device["origin"]
        _merge_common_device_options(component, device)
        schema = import_module(f"homeassistant.components.mqtt.{platform}").DISCOVERY_SCHEMA
        accepted = schema(component)
        name = slugify(f"{accepted['device']['name']} {accepted['name']}")
        result[key] = {
            "platform": platform,
            "entity_id": f"{platform}.{name}",
            "availability": accepted["availability_topic"],
            "lost": sorted(set(component) - set(accepted)),
            "value": render(accepted.get("value_template"), messages.get(accepted["state_topic"])),
            "attributes": render(
                accepted.get("json_attributes_template"), messages.get(accepted.get("json_attributes_topic"))
            ),
        }
    return result


def render(template: Any, message: str | None) -> Any:
    """Return what a template makes of a message, as MQTT entities do it; None without a message."""
    return (
        None
        if message is None
        else MqttValueTemplate(template).async_render_with_possible_json_value(message)
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(asyncio.run(check(json.dumps(asked["config"]), asked["messages"]))), flush=True)
