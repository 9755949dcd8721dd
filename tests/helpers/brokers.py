"""Brokers, a foreign MQTT client and a running publisher, for the tests of delivery."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.delivery.embedded_broker import EmbeddedBroker, find_server
from edge.delivery.mqtt.tuning import Tuning
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.settings import MqttSettings
from edge.values import EmotionEvent

MOSQUITTO = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
DEADLINE_S = 20.0
BRISK = Tuning(first_pause_s=(0.02, 0.2))  # reconnects at once: there is no fleet to spread


def wait_until(condition: Callable[[], object], what: str, *, timeout_s: float = DEADLINE_S) -> None:
    """Wait for a condition; fail with `what` when it does not hold in time."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            pytest.fail(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.005)


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """mosquitto on loopback, with further configuration lines; `kill` and `start` keep the port."""

    name = "mosquitto"
    host = "127.0.0.1"
    protocol = MQTTProtocolVersion.MQTTv5

    def __init__(self, directory: Path, *lines: str) -> None:
        if MOSQUITTO is None:
            pytest.skip("mosquitto is not installed (Debian package `mosquitto`)")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._config = directory / "mosquitto.conf"
        # After kill -9 it has its acknowledged messages only if it writes at every change.
        keep = ["persistence true", f"persistence_location {directory}/", "autosave_interval 1"]
        keep += [
            "autosave_on_changes true",
            "max_queued_messages 0",
            "user root",
            f"listener {self.port} {self.host}",
        ]
        access = [] if any(line.startswith("allow_anonymous") for line in lines) else ["allow_anonymous true"]
        self._config.write_text("\n".join([*keep, *access, *lines]) + "\n")
        self._log = directory / "mosquitto.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert MOSQUITTO is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._config], stdout=log, stderr=log)
        wait_until(self._listens, f"mosquitto on port {self.port}: {self._log.read_text()}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.host, self.port)) == 0

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Terminate it, also if it was stopped by SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(10)


class Nats(EmbeddedBroker):
    """The embedded broker, with the attributes of `Mosquitto`."""

    name = "nats"
    protocol = MQTTProtocolVersion.MQTTv311


class NatsServer:
    """nats-server with a configuration that has a `{port}`; MQTT 3.1.1."""

    name = "nats"
    host = "127.0.0.1"
    protocol = MQTTProtocolVersion.MQTTv311

    def __init__(self, directory: Path, text: str) -> None:
        self.port = free_port()
        self._log = directory / "nats.log"
        self._config = directory / "nats.conf"
        self._config.write_text(
            f'server_name: "test"\nlisten: "127.0.0.1:-1"\n'
            f"jetstream {{ store_dir: '{directory}/store' }}\n{text.replace('{port}', str(self.port))}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self._process = subprocess.Popen([find_server(), "--config", self._config, "--log", self._log])
        wait_until(self._is_ready, "nats-server")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return (
                self._log.exists()
                and "Server is ready" in self._log.read_text()
                and probe.connect_ex((self.host, self.port)) == 0
            )

    def stop(self) -> None:
        """Terminate it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10)


Broker = Mosquitto | Nats | NatsServer
AnyBroker = TypeVar("AnyBroker", bound=Broker)


@dataclass(frozen=True)
class Seen:
    """One message that a foreign client received."""

    topic: str
    payload: bytes
    retained: bool


class Watcher:
    """A foreign client: paho with its own thread; keeps all messages that it receives."""

    def __init__(self, broker: Broker, *filters: str, client_id: str = "", durable: bool = False) -> None:
        self.seen: list[Seen] = []
        self._connected = threading.Event()
        self._confirmed = threading.Semaphore(0)
        self._filters = filters
        if durable:  # one flag in MQTT 3.1.1, for both brokers
            self._client = paho.Client(
                CallbackAPIVersion.VERSION2,
                client_id=client_id,
                clean_session=False,
                protocol=MQTTProtocolVersion.MQTTv311,
            )
        else:
            self._client = paho.Client(
                CallbackAPIVersion.VERSION2, client_id=client_id, protocol=broker.protocol
            )
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._confirmed.release()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        assert self._connected.wait(DEADLINE_S), "no CONNACK"
        for topic in filters:
            assert self._confirmed.acquire(timeout=DEADLINE_S), f"no SUBACK for {topic}"

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        self._connected.set()
        for topic in self._filters:
            client.subscribe(topic, qos=1)

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        self.seen.append(Seen(message.topic, bytes(message.payload), message.retain))

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Publish at QoS 1 and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(DEADLINE_S)

    def on(self, topic: str) -> list[bytes]:
        """Return the payloads received on one topic."""
        return [message.payload for message in self.seen if message.topic == topic]

    def wait_for(self, topic: str, payload: bytes) -> None:
        """Wait until a payload arrives on a topic."""
        wait_until(lambda: payload in self.on(topic), f"{payload!r} on {topic}, but {self.seen[-5:]}")

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def watching(broker: Broker, *filters: str, client_id: str = "", durable: bool = False) -> Iterator[Watcher]:
    """Watch topics while the block lasts; `durable`: the broker keeps messages while it is offline."""
    watcher = Watcher(broker, *filters, client_id=client_id, durable=durable)
    try:
        yield watcher
    finally:
        watcher.close()


@contextmanager
def running(broker: AnyBroker) -> Iterator[AnyBroker]:
    """Run a broker while the block lasts; the block may stop and start it."""
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def is_alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pause(pid: int) -> None:
    """Stop a process with SIGSTOP: its sockets stay open, nothing is answered."""
    os.kill(pid, signal.SIGSTOP)


def unpause(pid: int) -> None:
    """Continue a paused process."""
    os.kill(pid, signal.SIGCONT)


def make_event(number: int, *, padding: int = 0) -> EmotionEvent:
    """Return an event with its own id and `padding` bytes of text."""
    data = {"subject": "room", "number": number, "padding": "x" * padding}
    return EmotionEvent(
        id=f"event-{number}", type="emotion.changed", time=datetime.now(UTC), t_ns=0, data=data
    )


def open_outbox(
    path: Path, *, max_events: int = 1000, max_bytes: int = 1 << 20, max_age_s: float = 0, **more: Any
) -> Outbox:
    """Return the outbox of the device `kitchen`."""
    return Outbox(
        path, device="kitchen", max_events=max_events, max_bytes=max_bytes, max_age_s=max_age_s, **more
    )


def waiting_sequences(outbox: Outbox) -> list[int]:
    """Return the sequence numbers of the waiting events, in order."""
    return [row.sequence for row in outbox.waiting(10_000)]


def settings_of(broker: Any, **more: Any) -> MqttSettings:
    """Return the MQTT settings for a broker."""
    return MqttSettings(host=broker.host, port=broker.port, **more)


@contextmanager
def publishing(
    settings: MqttSettings, outbox: Outbox, *, tuning: Tuning = BRISK, **more: Any
) -> Iterator[Publisher]:
    """Run a publisher for the device `kitchen` while the block lasts."""
    publisher = Publisher(settings, device="kitchen", outbox=outbox, tuning=tuning, **more)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close()


def is_empty(outbox: Outbox) -> Callable[[], bool]:
    """Return the condition that no event waits."""
    return lambda: outbox.counts().waiting == 0
