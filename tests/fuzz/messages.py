"""Fuzz target: MQTT messages of other clients, through a real broker to a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.fuzz.damage import damage
from tests.fuzz.live import LiveDaemon, live_daemon
from tests.fuzz.target import Target, Verdict
from tests.helpers.brokers import Watcher, watching

OWN = "emotion/lab/"
SETS = (OWN + "camera/enabled/set", OWN + "microphone/enabled/set")
TOPICS = [
    *SETS,
    *SETS,
    *SETS,
    "homeassistant/status",
    "homeassistant/device/lab/config",
    *(OWN + name for name in ("availability", "status", "state", "event", "probe", "x/enabled/set", "set")),
    *("emotion", "emotion/lab", "emotion//enabled/set", "/", "a" * 60_000, "emotion/lab/\u202e"),
]
PAYLOADS = [
    *(
        b"ON",
        b"OFF",
        b"on",
        b"ON\n",
        b"ON\0",
        b"",
        b"online",
        b"offline",
        b"{}",
        b"[" * 50_000,
        b'{"a":1e999}',
    ),
    *(b"\xff\xfe", b"9" * 5000, b"x" * 200_000, b'{"time": "9999-99-99", "id": 7, "sequence": -1}'),
]


def generate(random: Random) -> bytes:
    """Return `R` for retained or `-`, the topic, a line feed, and the payload."""
    payload = random.choice(PAYLOADS)
    if random.random() < 0.4:
        payload = damage(payload, random)
    flag = b"R" if random.random() < 0.2 else b"-"
    return flag + random.choice(TOPICS).encode() + b"\n" + payload


class Subscriber:
    """The daemon as a subscriber of others' messages."""

    def __init__(self, daemon: LiveDaemon, client: Watcher) -> None:
        self.pid = daemon.pid
        self._daemon = daemon
        self._client = client

    def run(self, data: bytes) -> Verdict:
        topic, _, payload = data[1:].partition(b"\n")
        self._client.publish(topic.decode(), payload, retain=data[:1] == b"R")
        return Verdict(topic.decode() in SETS and payload in (b"ON", b"OFF"), self._daemon.check())


@contextmanager
def opened(directory: Path) -> Iterator[Subscriber]:
    with live_daemon(directory) as daemon, watching(daemon.broker) as client:
        yield Subscriber(daemon, client)


TARGET = Target("messages", generate, opened)
