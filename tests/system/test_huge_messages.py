"""The whole daemon while another client sends it huge or endless messages: its memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.helpers.brokers import Mosquitto, Watcher, wait_until, watching
from tests.helpers.packets import Action, Packet, packet_path

HUGE_BYTES = 200_000_000  # mosquitto takes 268 MB
MAX_GROWTH_MB = 30.0
SWITCH = "emotion/kitchen/camera/enabled"
AVAILABILITY = "emotion/kitchen/availability"
BIRTH = "homeassistant/status"
CONNECT = 1


def without_mqtt_5(packet: Packet) -> Action:
    """Close the connection on a CONNECT of MQTT 5, as old brokers do."""
    is_5 = packet.kind == CONNECT and b"\x00\x04MQTT\x05" in packet.data[:16]
    return "close" if is_5 else "pass"


def peak_mb(pid: int) -> float:
    """Return the largest resident size of a process so far."""
    text = Path(f"/proc/{pid}/status").read_text()
    return float(text.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def daemon(directory: Path, port: int) -> Iterator[int]:
    """Run a daemon whose camera is absent while the block lasts; give its process id."""
    environment = {
        **os.environ,
        "EMOTION_EDGE__DEVICE__ID": "kitchen",
        "EMOTION_EDGE__CAMERA__SOURCE": "v4l2:/dev/video99",
        "EMOTION_EDGE__MICROPHONE__SOURCE": "none",
        "EMOTION_EDGE__MQTT__PORT": str(port),
        "EMOTION_EDGE__OUTBOX__PATH": str(directory / "outbox.sqlite3"),
        "EMOTION_EDGE__DASHBOARD__BIND": "127.0.0.1:0",
    }
    with subprocess.Popen([sys.executable, "-m", "edge", "run"], env=environment) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def publish(broker: Mosquitto, topic: str, payload: bytes, *, count: int = 1, qos: int = 1) -> None:
    """Publish as another client, until the broker has all of it."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        for _ in range(count):
            info = client.publish(topic, payload, qos=qos)
        info.wait_for_publish(60)
    finally:
        client.disconnect()
        client.loop_stop()


def switch(watcher: Watcher, payload: str) -> None:
    """Switch the camera, again and again until the daemon is connected and answers."""
    watcher.seen.clear()

    def has_answered() -> bool:
        watcher.publish(f"{SWITCH}/set", payload)
        return payload.encode() in watcher.on(f"{SWITCH}/state")

    wait_until(has_answered, f"the camera {payload}", timeout_s=60)


@pytest.mark.parametrize("has_mqtt_5", [True, False], ids=["5", "3.1.1"])
def test_huge_and_endless_messages(mosquitto: Mosquitto, tmp_path: Path, has_mqtt_5: bool) -> None:
    """200 MB to a switch, then 50,000 births and nested lists: the switch works, memory is flat."""

    def choose(packet: Packet) -> Action:
        return "pass" if has_mqtt_5 else without_mqtt_5(packet)

    with (
        watching(mosquitto, AVAILABILITY, f"{SWITCH}/state") as watcher,
        packet_path(mosquitto.host, mosquitto.port, choose) as path,
        daemon(tmp_path, path.port) as pid,
    ):
        wait_until(lambda: watcher.on(AVAILABILITY)[-1:] == [b"online"], "online", timeout_s=60)
        switch(watcher, "OFF")
        before_mb = peak_mb(pid)
        publish(mosquitto, f"{SWITCH}/set", b"x" * HUGE_BYTES)
        switch(watcher, "ON")
        publish(mosquitto, BIRTH, b"online", count=25_000, qos=0)
        publish(mosquitto, f"{SWITCH}/set", b"[" * 1000, count=25_000, qos=0)
        switch(watcher, "OFF")
        growth_mb = peak_mb(pid) - before_mb
        print(f"peak {peak_mb(pid):.0f} MB, {growth_mb:.1f} MB more than before")
        assert growth_mb < MAX_GROWTH_MB
