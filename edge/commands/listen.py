"""`emotion-edge listen`: prints the events of all devices, each once, and reports every gap."""

from __future__ import annotations

import json
import re
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from edge.delivery.mqtt.connection import Message
from edge.delivery.subscriber import listen
from edge.errors import BrokerError
from edge.settings import MqttSettings

# What a payload of another sender may raise: nested too deeply, fields of other types, numbers too large.
UNPRINTABLE = (RecursionError, TypeError, ValueError, LookupError, OverflowError)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_since(text: str, *, now: datetime) -> datetime:
    """Read an RFC 3339 time or a duration before `now` (`90s`, `10m`, `2h`, `1d`); raise `ValueError`."""
    if match := re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text):
        return now - timedelta(seconds=float(match[1]) * SECONDS[match[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text}: neither a duration nor a time; write 10m or 2026-01-02T03:04:05Z")
    return moment


def print_events(
    settings: MqttSettings, topics: list[str], *, password: str | None, since: datetime | None, as_json: bool
) -> None:
    """Print messages until interrupted; raise `BrokerError` if the broker refuses the client or all topics.

    Messages with a `time` before `since` are not printed, but they count as received when gaps are detected.
    The broker stores no events for this client: it delivers new events, retained states, and what a device
    publishes late after an outage. A message that cannot be printed is skipped,
    and counted on standard error.
    """
    skipped = 0
    with closing(listen(settings, *topics, password=password)) as messages:
        while not messages.refusal:
            message = messages.receive(1.0)
            if message is None:
                continue
            try:
                line = _line(message, since=since, as_json=as_json)
            except UNPRINTABLE as error:
                skipped += 1
                why = f"skipped, cannot be printed ({type(error).__name__}); {skipped} skipped so far"
                print(f"{message.topic}: {why}", file=sys.stderr)
                continue
            if message.missing:
                print(
                    f"{message.topic}: {message.missing} events are missing before this one", file=sys.stderr
                )
            if line is not None:
                print(line, flush=True)
        raise BrokerError(messages.refusal)


def _line(message: Message, *, since: datetime | None, as_json: bool) -> str | None:
    """Return the line for a message, or None if it is from before `since`; raise one of `UNPRINTABLE`."""
    payload = _payload(message)
    if since is not None and _is_before(payload, since):
        return None
    return json.dumps(json_line(message, payload)) if as_json else text_line(message, payload)


def json_line(message: Message, payload: Any) -> dict[str, Any]:
    """Return what `listen --json` prints: `payload` is the JSON value, or the text if it is not JSON."""
    return {
        "topic": message.topic,
        "retained": message.retained,
        "missing": message.missing,
        "payload": payload,
    }


def text_line(message: Message, payload: Any) -> str:
    """Return a message as one line for people."""
    if (
        isinstance(payload, dict)
        and isinstance(payload.get("data"), dict)
        and {"time", "type"} <= payload.keys()
    ):
        device = message.topic.split("/")[-2]
        details = describe_event(payload["data"])
        return f"{str(payload['time'])[11:23]}  {device:<12} {payload['type']!s:<18} {details}".rstrip()
    text = message.payload.decode(errors="replace")
    return f"{message.topic}: {text[:200]}{'...' if len(text) > 200 else ''}"


def describe_event(data: dict[str, Any]) -> str:
    """Return the data of an event in words: `person-3   neutral -> anger 0.81  (face 70 %; 95 ms)`."""
    subject = str(data.get("subject", ""))
    if "level" in data:
        return f"{subject:<10} {data.get('previous')} -> {describe_fatigue(data)}"
    if "emotion" not in data:
        return f"{subject:<10} {data.get('reason') or ''}".rstrip()
    text = f"{subject:<10} {data.get('previous')} -> {data['emotion']}"
    if isinstance(confidence := data.get("confidence"), float | int):
        text += f" {confidence:.2f}"
    weights = {
        name: data[name].get("weight") for name in ("face", "voice") if isinstance(data.get(name), dict)
    }
    known = [(name, weight) for name, weight in weights.items() if isinstance(weight, float | int)]
    shares = [f"{name} {100 * weight:.0f} %" for name, weight in known]
    if isinstance(latency_ms := data.get("latency_ms"), float | int):
        text += f"  ({', '.join(shares) or 'no face, no voice'}; {latency_ms:.0f} ms)"
    return text


def describe_fatigue(data: dict[str, Any]) -> str:
    """Return a level of fatigue with its reasons and measurements, as far as the payload has them."""
    why = [str(reason).replace("_", " ") for reason in data.get("reasons") or []]
    if isinstance(perclos := data.get("perclos"), float | int):
        why.append(f"eyes closed {100 * perclos:.0f} %")
    if isinstance(blinks := data.get("blinks_per_min"), float | int):
        why.append(f"{blinks:.0f} blinks/min")
    return f"{data['level']} ({', '.join(why)})" if why else str(data["level"])


def _payload(message: Message) -> Any:
    """Return the payload as a JSON value, or as text if it is not JSON."""
    try:
        return json.loads(message.payload)
    except ValueError:
        return message.payload.decode(errors="replace")


def _is_before(payload: Any, since: datetime) -> bool:
    try:
        return datetime.fromisoformat(payload["time"]).astimezone(UTC) < since
    except (TypeError, ValueError, KeyError):  # a payload without a time is current
        return False
