"""The Home Assistant entities of this device, each with the topic and the template that it reads.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload. Only
entities whose topics `policy` permits are described; the others are marked as removed, so that Home Assistant
deletes those of an earlier context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edge import __version__
from edge.delivery.cadence import STATE_INTERVAL_S
from edge.delivery.messages import EVENT_TYPES
from edge.people.fatigue import ALARMS, LEVELS
from edge.policy import allowed
from edge.settings import Config
from edge.values import ABSENT, LABELS, PARTS, UNCERTAIN

STATS_SLACK_S = 30
# The state is published at least every 30 s; after three missing messages the value expires.
EXPIRE = {"expire_after": int(3 * STATE_INTERVAL_S)}

# Key: platform, subtopic, further fields. Each entity reads a single topic, so that no other topic can reset
# it to unknown. The key is part of the entity id: `sensor.<device>_<key>`.
ENTITIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "emotion": (
        "sensor",
        "state",
        {
            "device_class": "enum",
            "options": [*LABELS, UNCERTAIN, ABSENT],
            "value_template": "{{ value_json.emotion }}",
            "json_attributes_template": "{{ value_json.probabilities | tojson }}",
            "icon": "mdi:emoticon-outline",
            **EXPIRE,
        },
    ),
    "confidence": (
        "sensor",
        "state",
        {
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "suggested_display_precision": 0,
            "value_template": "{{ (value_json.confidence * 100) | round(1) }}",
            "icon": "mdi:gauge",
            **EXPIRE,
        },
    ),
    "presence": (
        "binary_sensor",
        "state",
        {
            "device_class": "occupancy",
            "value_template": "{{ 'ON' if value_json.present else 'OFF' }}",
            **EXPIRE,
        },
    ),
    "faces": (
        "sensor",
        "group/state",
        {
            "state_class": "measurement",
            "value_template": "{{ value_json.faces }}",  # null, and therefore unknown, if withheld
            "json_attributes_template": "{{ (value_json.counts or {}) | tojson }}",
            "icon": "mdi:account-group",
            **EXPIRE,
        },
    ),
    "fatigue": (
        "sensor",
        "fatigue/state",
        {
            "device_class": "enum",
            "options": [*LEVELS],
            "value_template": "{{ value_json.level }}",
            "json_attributes_template": "{{ value_json | tojson }}",
            "icon": "mdi:sleep",
            **EXPIRE,
        },
    ),
    "fatigue_alarm": (
        "binary_sensor",
        "fatigue/state",
        {
            "device_class": "problem",
            "value_template": f"{{{{ 'ON' if value_json.level in {ALARMS} else 'OFF' }}}}",
            "json_attributes_template": "{{ {'reasons': value_json.reasons} | tojson }}",
            **EXPIRE,
        },
    ),
    "event": ("event", "ha_event", {"event_types": [*EVENT_TYPES], "icon": "mdi:bell-outline"}),
    "problem": (
        "binary_sensor",
        "status",
        {
            "device_class": "problem",
            "entity_category": "diagnostic",
            "value_template": "{{ 'ON' if value_json.state == 'degraded' else 'OFF' }}",
            "json_attributes_template": (
                "{{ {'state': value_json.state, 'reasons': value_json.reasons} | tojson }}"
            ),
        },
    ),
}
DIAGNOSTICS: dict[str, dict[str, Any]] = {
    "memory": {
        "device_class": "data_size",
        "unit_of_measurement": "MB",
        "state_class": "measurement",
        "value_template": "{{ (value_json.counters.rss_bytes / 1e6) | round(1) }}",
    },
    # Not every device measures its temperature.
    "temperature": {
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "state_class": "measurement",
        "suggested_display_precision": 0,
        "value_template": "{{ value_json.counters.temperature_c | default(None) }}",
    },
    "disk_free": {
        "device_class": "data_size",
        "unit_of_measurement": "GB",
        "state_class": "measurement",
        "value_template": (
            "{{ (value_json.counters.disk_free_bytes / 1e9) | round(2) "
            "if value_json.counters.disk_free_bytes is defined else None }}"
        ),
    },
    "uptime": {
        "device_class": "duration",
        "unit_of_measurement": "s",
        "value_template": "{{ value_json.uptime_s | round(0) }}",
    },
    "frames": {
        "state_class": "total_increasing",
        "value_template": "{{ value_json.counters.frames | default(0) }}",
        "icon": "mdi:camera-outline",
    },
    "lost_audio": {
        "device_class": "duration",
        "unit_of_measurement": "s",
        "state_class": "total_increasing",
        "value_template": "{{ (value_json.counters.audio_gap_samples | default(0) / 16000) | round(2) }}",
    },
    # Without the outbox, as with a failed disk, there is no number.
    "events_waiting": {
        "state_class": "measurement",
        "value_template": "{{ value_json.outbox.waiting if value_json.outbox else None }}",
        "icon": "mdi:tray-full",
    },
    "events_refused": {
        "state_class": "total_increasing",
        "value_template": "{{ value_json.outbox.refused if value_json.outbox else None }}",
        "icon": "mdi:tray-remove",
    },
    "events_dropped": {
        "state_class": "total_increasing",
        "value_template": "{{ value_json.outbox.dropped if value_json.outbox else None }}",
        "icon": "mdi:tray-alert",
    },
}


def entity_ids(config: Config) -> set[str]:
    """Return the default ids of all announced entities, such as `sensor.room_emotion`."""
    components = discovery_payload(config)["components"].values()
    return {component["default_entity_id"] for component in components if "unique_id" in component}


def object_prefix(device: str) -> str:
    """Return the device id as part of entity ids: words joined by `_`."""
    return re.sub("[^a-z0-9]+", "_", device).strip("_") or "emotion_edge"


def discovery_payload(config: Config) -> dict[str, Any]:
    """Describe the device and its entities; removed entities have a `platform` only."""
    root = f"{config.mqtt.prefix}/{config.device.id}"
    components = {
        **{key: _entity(config, key, *entity) for key, entity in ENTITIES.items()},
        **{key: _diagnostic(config, key, more) for key, more in DIAGNOSTICS.items()},
        **{part: _switch(config, part) for part in PARTS},
    }
    return {
        "device": {
            "identifiers": [f"{config.mqtt.prefix}/{config.device.id}"],
            "name": config.device.id,
            "manufacturer": "emotion-edge",
            "model": "emotion-edge",
            "sw_version": __version__,
        },
        "origin": {"name": "emotion-edge", "sw_version": __version__},
        "availability_topic": f"{root}/availability",
        "qos": 1,
        "components": components,
    }


def _entity(
    config: Config, key: str, platform: str, subtopic: str, more: Mapping[str, Any], **shared: Any
) -> dict[str, Any]:
    """Describe one entity, or return only its platform, which removes it, if its topic is not permitted."""
    is_measured = subtopic != "fatigue/state" or config.watches_fatigue
    if not is_measured or not allowed(config.device).permits_topic(subtopic):
        return {"platform": platform}
    topic = f"{config.mqtt.prefix}/{config.device.id}/{subtopic}"
    prefix = object_prefix(config.device.id)
    if "json_attributes_template" in more:
        shared["json_attributes_topic"] = topic
    return {
        "platform": platform,
        "unique_id": f"emotion_edge_{config.device.id}_{key}",
        "default_entity_id": f"{platform}.{prefix}_{key}",
        "name": key.replace("_", " ").capitalize(),
        "state_topic": topic,
        **shared,
        **more,
    }


def _switch(config: Config, part: str) -> dict[str, Any]:
    """Describe the switch of the camera or microphone, or remove it if the device has none."""
    if getattr(config, part).source == "none":
        return {"platform": "switch"}
    command_topic = f"{config.mqtt.prefix}/{config.device.id}/{part}/enabled/set"
    return _entity(
        config, part, "switch", f"{part}/enabled/state", {"icon": f"mdi:{part}"}, command_topic=command_topic
    )


def _diagnostic(config: Config, key: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one number of `stats`, which expires after two missing messages."""
    interval_s = config.mqtt.stats_interval_s
    if not interval_s:
        return {"platform": "sensor"}
    expire_after = int(2 * interval_s) + STATS_SLACK_S
    shared = {"entity_category": "diagnostic", "expire_after": expire_after}
    return _entity(config, key, "sensor", "stats", more, **shared)
