"""`emotion-edge listen`: the events of all devices as lines, each once, and every gap told."""

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

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_since(text: str, *, now: datetime) -> datetime:
    """Read an RFC 3339 time or a duration before `now` (`90s`, `10m`, `2h`, `1d`); raise `ValueError`."""
    if match := re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhd])", text):
        return now - timedelta(seconds=float(match[1]) * UNITS_S[match[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text}: neither a duration such as 10m nor a time such as 2026-01-02T03:04:05Z")
    return moment


def follow(
    settings: MqttSettings, topics: list[str], *, password: str | None, since: datetime | None, as_json: bool
) -> None:
    """Print messages until interrupted; raise `BrokerError` when the broker refuses us or all topics.

    With `since`, messages that carry an earlier `time` are left out; they still count against gaps. It makes
    nothing appear that the broker does not send: a broker keeps no events for a client that it does not know,
    so what comes is from now on, the retained states, and what a device sends late after an outage.
    """
    with closing(listen(settings, *topics, password=password)) as messages:
        while not messages.refusal:
            message = messages.receive(1.0)
            if message is None:
                continue
            body = _body(message)
            if message.missing:
                print(
                    f"{message.topic}: {message.missing} events are missing before this one", file=sys.stderr
                )
            if since is None or not _is_before(body, since):
                print(json.dumps(line(message, body)) if as_json else sentence(message, body), flush=True)
        raise BrokerError(messages.refusal)


def line(message: Message, body: Any) -> dict[str, Any]:
    """Return what `listen --json` prints: `payload` is the JSON value, or the text where it is none."""
    return {
        "topic": message.topic,
        "retained": message.retained,
        "missing": message.missing,
        "payload": body,
    }


def sentence(message: Message, body: Any) -> str:
    """Return a message as one line for people."""
    if isinstance(body, dict) and isinstance(body.get("data"), dict) and {"time", "type"} <= body.keys():
        device = message.topic.split("/")[-2]
        words = f"{str(body['time'])[11:23]}  {device:<12} {body['type']!s:<18} {describe(body['data'])}"
        return words.rstrip()
    text = message.payload.decode(errors="replace")
    return f"{message.topic}: {text[:200]}{'...' if len(text) > 200 else ''}"


def describe(data: dict[str, Any]) -> str:
    """Return the data of an event in words."""
    subject = str(data.get("subject", ""))
    if "level" in data:
        return f"{subject:<10} {data.get('previous')} -> {fatigue(data)}"
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
        text += f"  ({', '.join(shares) or 'nobody'}; {latency_ms:.0f} ms)"
    return text


def fatigue(data: dict[str, Any]) -> str:
    """Return a level of fatigue with what it rests on in words: what a payload lacks is left out."""
    why = [str(reason).replace("_", " ") for reason in data.get("reasons") or []]
    if isinstance(perclos := data.get("perclos"), float | int):
        why.append(f"eyes closed {100 * perclos:.0f} %")
    if isinstance(blinks := data.get("blinks_per_min"), float | int):
        why.append(f"{blinks:.0f} blinks a minute")
    return f"{data['level']} ({', '.join(why)})" if why else str(data["level"])


def _body(message: Message) -> Any:
    try:
        return json.loads(message.payload)
    except ValueError:
        return message.payload.decode(errors="replace")


def _is_before(body: Any, since: datetime) -> bool:
    try:
        return datetime.fromisoformat(body["time"]).astimezone(UTC) < since
    except (TypeError, ValueError, KeyError):  # it says no time, so it is about now
        return False
