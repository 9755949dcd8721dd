"""The real daemon among hostile messages, and the broker's password in none of its words."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.sources.replay import clip_path
from tests.helpers.brokers import Mosquitto, free_port, running, wait_until, watching
from tests.helpers.sites import SiteMosquitto

ROOT = Path(__file__).parents[2]
CANARY = "canary-7f3a-" + "Zq9" * 5
MAX_LOG_BYTES = 100_000


class Daemon:
    """`emotion-edge --verbose run` in its own process, with its log in a file."""

    def __init__(self, directory: Path, config: str, **environment: str) -> None:
        self.directory = directory
        path = directory / "config.toml"
        path.write_text(config)
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge", "--verbose", "run", "--config", str(path)],
                env={
                    **os.environ,
                    "XDG_STATE_HOME": str(directory),
                    "PYTHONFAULTHANDLER": "1",
                    **environment,
                },
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> bytes:
        return self._log.read_bytes()

    def has_logged(self, words: bytes) -> bool:
        """Return whether the log contains these words; fail if the daemon has ended."""
        assert self.process.poll() is None, self.log.decode(errors="replace")[-2000:]
        return words in self.log

    def end(self, number: signal.Signals) -> int:
        """End it by a signal; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def daemon(directory: Path, config: str, **environment: str) -> Iterator[Daemon]:
    """Run a daemon while the block lasts."""
    directory.mkdir(exist_ok=True)
    started = Daemon(directory, config, **environment)
    try:
        yield started
    finally:
        started.end(signal.SIGKILL)


def config(mqtt: str) -> str:
    """Return a configuration that plays the clip and has these lines about the broker."""
    clip = f"file:{clip_path()}?loop"
    return f"""
version = 1
[device]
id = "kitchen"
[camera]
source = "{clip}"
[microphone]
source = "{clip}"
[mqtt]
{mqtt}
"""


def hostile_payloads() -> list[bytes]:
    """Return what no sane client sends to a switch."""
    chance = random.Random(7)
    return [
        b"",
        b"\x00",
        b"on",
        b"OFF\n",
        b"OFF" * 1000,
        "\u041eFF".encode(),  # its first letter is Cyrillic
        b"\xff\xfe\x80",
        b'{"state":"OFF"}',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        chance.randbytes(1 << 20),
        b"O" * (1 << 20),
        *[chance.randbytes(chance.randrange(1, 200)) for _ in range(20)],
    ]


def test_hostile_commands_change_nothing(tmp_path: Path) -> None:
    """Garbage, megabytes and stored commands on every topic that the daemon reads: it goes on as it was."""
    broker = Mosquitto(tmp_path)
    topics = [f"emotion/kitchen/{part}/enabled/set" for part in ("camera", "microphone")]
    with running(broker), watching(broker, "emotion/kitchen/#") as watcher:
        for topic in topics:
            watcher.publish(topic, b"OFF", retain=True)
        with daemon(tmp_path / "daemon", config(f"port = {broker.port}")) as device:
            watcher.wait_for("emotion/kitchen/availability", b"online")
            wait_until(lambda: watcher.on("emotion/kitchen/event"), "events", timeout_s=40)
            for payload in hostile_payloads():
                for topic in (*topics, "homeassistant/status"):
                    watcher.publish(topic, payload)
                    watcher.publish(topic, payload, retain=True)
            events = len(watcher.on("emotion/kitchen/event"))
            wait_until(
                lambda: len(watcher.on("emotion/kitchen/event")) > events + 1, "more events", timeout_s=40
            )
            assert watcher.on("emotion/kitchen/availability")[-1] == b"online"
            assert b"offline" not in watcher.on("emotion/kitchen/availability")[1:]
            for part in ("camera", "microphone"):
                assert set(watcher.on(f"emotion/kitchen/{part}/enabled/state")) == {b"ON"}
            assert len(device.log) < MAX_LOG_BYTES
            assert b"Traceback" not in device.log
            assert device.end(signal.SIGTERM) == 0


def leaks(device: Daemon, more: bytes = b"") -> list[str]:
    """Return where the canary is: command line and environment of the process, its words, its files."""
    places: dict[str, bytes] = {"messages": more, "log": device.log}
    process = Path(f"/proc/{device.process.pid}")
    if device.process.poll() is None:
        places["argv"] = (process / "cmdline").read_bytes()
        places["environment"] = (process / "environ").read_bytes()
    for path in device.directory.rglob("*"):
        if path.is_file() and path.name != "mqtt-password":
            places[str(path)] = path.read_bytes()
    assert any("outbox" in place for place in places), "no outbox was looked into"
    return [place for place, content in places.items() if CANARY.encode() in content]


@contextmanager
def everything(broker: SiteMosquitto) -> Iterator[list[bytes]]:
    """Collect topic and payload of all that a consumer can read."""
    seen: list[bytes] = []
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("homeassistant", "other")

    def on_message(_client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        seen.append(message.topic.encode() + b" " + bytes(message.payload))

    client.on_message = on_message
    client.on_subscribe = lambda *_: ready.set()
    client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        assert ready.wait(10)
        yield seen
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("kept_in", ["password_file", "credentials_directory"])
def test_password_shows_nowhere(tmp_path: Path, kept_in: str) -> None:
    """Right, wrong and without a broker: the password is in no log, argument, variable, file or message."""
    password = tmp_path / "mqtt-password"
    password.write_text(CANARY + "\n")
    password.chmod(0o600)
    where, environment = f'password_file = "{password}"', {}
    if kept_in == "credentials_directory":
        where, environment = "", {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    broker_directory = tmp_path / "broker"
    broker_directory.mkdir()
    broker = SiteMosquitto(
        broker_directory, {"kitchen": CANARY, "attic": "another", "homeassistant": "other"}
    )
    user = f'username = "kitchen"\n{where}'
    with running(broker), everything(broker) as seen:
        text = config(f"port = {broker.port}\n{user}")
        with daemon(tmp_path / "right", text, **environment) as device:
            wait_until(lambda: b"emotion/kitchen/availability online" in seen, "online", timeout_s=40)
            wait_until(lambda: any(m.startswith(b"emotion/kitchen/event") for m in seen), "an event")
            assert leaks(device, b"".join(seen)) == []
            assert device.end(signal.SIGABRT) == -signal.SIGABRT
            assert b"Fatal Python error" in device.log
            assert leaks(device) == []
        text = config(f"port = {broker.port}\n" + user.replace("kitchen", "attic"))
        with daemon(tmp_path / "wrong", text, **environment) as device:
            wait_until(lambda: device.has_logged(b"not_authorized"), "a refusal", timeout_s=40)
            assert leaks(device) == []
    with daemon(tmp_path / "no-broker", config(f"port = {free_port()}\n{user}"), **environment) as device:
        wait_until(lambda: device.has_logged(b"refused"), "no broker", timeout_s=40)
        assert leaks(device) == []


@pytest.mark.parametrize(
    ("arguments", "more", "mode", "code"),
    [
        (["config", "show"], "", 0o600, 0),
        (["config", "check"], "", 0o600, 0),
        (["config", "show"], "", 0o644, 3),
        (["config", "check"], "nothing_of_ours = 1", 0o600, 3),
        (["outbox", "--json"], "", 0o600, 1),
        (["run"], '[models]\nface = "nobody"', 0o600, 4),
        (["run"], "", 0o604, 3),
        (["analyze", "missing.jpg", "--json"], "", 0o600, 1),
        (["discovery", "show"], "", 0o600, 0),
        (["discovery", "remove"], "", 0o600, 6),
        (["integration", "node-red"], "", 0o600, 0),
        (["outbox", "purge"], "", 0o600, 1),
    ],
)
def test_no_command_shows_the_password(
    tmp_path: Path, arguments: list[str], more: str, mode: int, code: int
) -> None:
    """Commands that read the configuration, also those that fail, never print what is in the file."""
    password, path = tmp_path / "mqtt-password", tmp_path / "config.toml"
    password.write_text(CANARY)
    password.chmod(mode)
    path.write_text(
        config(f'port = {free_port()}\nusername = "kitchen"\npassword_file = "{password}"\n{more}')
    )
    done = subprocess.run(
        [sys.executable, "-m", "edge", "--verbose", *arguments, "--config", str(path)],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    assert CANARY.encode() not in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr
