"""The publish probe detects what MQTT 3.1.1 cannot report, and events never wait for it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.mqtt.tuning import V311
from edge.delivery.outbox.queue import Outbox
from edge.delivery.subscriber import listen
from tests.helpers.brokers import (
    BRISK,
    Mosquitto,
    Nats,
    NatsServer,
    is_empty,
    make_event,
    publishing,
    running,
    settings_of,
    wait_until,
    watching,
)

PERMISSIONS = """
mqtt {{ listen: "127.0.0.1:{{port}}" }}
authorization {{ users: [ {{ user: "edge", password: "pw", permissions: {{ {rules} }} }} ] }}
"""
OWN = '"emotion.kitchen.>"'
MQTT = '"$MQTT.>", "$JS.>", "_INBOX.>"'


QUICK = replace(BRISK, probe_s=0.5)
OLD = replace(QUICK, protocols=(V311,))  # 3.1.1 only, as for a mosquitto of before 2018


def test_broker_that_accepts_everything(tmp_path: Path, outbox: Outbox) -> None:
    """NATS returns the probe: publishing is `allowed`; each connection sends one probe."""
    (tmp_path / "nats").mkdir()
    with (
        running(Nats(tmp_path / "nats")) as broker,
        watching(broker, "emotion/kitchen/probe") as watcher,
        publishing(settings_of(broker), outbox, tuning=QUICK) as publisher,
    ):
        wait_until(lambda: publisher.connection_state.publishing == "allowed", "a probe that came back")
        wait_until(lambda: len(watcher.seen) == 1, "one probe")
        with watching(broker, client_id="emotion-edge-kitchen"):
            wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
            assert publisher.connection_state.publishing == "unknown"
        wait_until(lambda: publisher.connection_state.publishing == "allowed", "another probe")
        wait_until(lambda: len(watcher.seen) == 2, "another probe")
        assert watcher.seen[0].payload != watcher.seen[1].payload


def test_probe_that_does_not_come_back_is_logged_once(
    tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """Subscribed and published, and nothing came back: one warning; another access list recovers."""
    # The event leaves the outbox before the verdict, also on a busy machine.
    tuning = replace(OLD, confirm_s=0.0, probe_s=3.0)
    access = tmp_path / "acl"
    access.write_text("topic write emotion/#\n")
    states: list[ConnectionState] = []
    caplog.set_level(logging.INFO, logger="edge.delivery.mqtt.publish_probe")
    broker = Mosquitto(tmp_path, f"acl_file {access}")
    with (
        running(broker),
        publishing(settings_of(broker), outbox, on_state=states.append, tuning=tuning) as publisher,
    ):
        outbox.append(make_event(1))
        publisher.event_added()
        wait_until(is_empty(outbox), "an event that does not wait for the probe")
        assert publisher.connection_state.publishing == "unknown"
        wait_until(lambda: publisher.connection_state.publishing == "refused", "a verdict")
        assert publisher.connection_state.connected
        broker.kill()
        wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
        access.write_text("topic readwrite emotion/#\n")
        broker.start()
        wait_until(lambda: publisher.connection_state.publishing == "allowed", "another verdict")
    levels = [
        record.levelname for record in caplog.records if record.name == "edge.delivery.mqtt.publish_probe"
    ]
    assert levels == ["WARNING", "INFO"]
    assert "allow it to write every topic below its own" in caplog.text
    verdicts = [s.publishing for s in states if s.connected]
    assert list(dict.fromkeys(verdicts)) == ["unknown", "refused", "allowed"]


def test_broker_that_closes_the_connection_on_the_probe(tmp_path: Path, outbox: Outbox) -> None:
    """mosquitto 2.0 closes a 3.1.1 connection on a refused message: the third connection sends no probe."""
    access = tmp_path / "acl"
    access.write_text("topic readwrite emotion/kitchen/availability\ntopic write emotion/kitchen/event\n")
    broker = Mosquitto(tmp_path, f"acl_file {access}")
    states: list[ConnectionState] = []
    with (
        running(broker),
        publishing(settings_of(broker), outbox, on_state=states.append, tuning=OLD) as publisher,
    ):
        wait_until(lambda: [s.connected for s in states] == [True, False] * 2 + [True], "a third connection")
        outbox.append(make_event(1))
        publisher.event_added()
        wait_until(is_empty(outbox), "the event")
        assert outbox.counts().refused == 0
        assert publisher.connection_state.publishing == "unknown"


@pytest.mark.parametrize(
    ("rules", "verdict"),
    [
        (f"publish: [{OWN}, {MQTT}], subscribe: [{OWN}, {MQTT}]", "allowed"),
        (f"publish: [{OWN}, {MQTT}], subscribe: [{MQTT}]", "unknown"),
        (f"publish: [{MQTT}], subscribe: [{OWN}, {MQTT}]", "refused"),
    ],
    ids=["both", "write-only", "read-only"],
)
def test_permissions_of_nats(
    tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture, rules: str, verdict: str
) -> None:
    """A device that may write but not read is `unknown`; one that may only read is `refused`."""
    caplog.set_level(logging.INFO, logger="edge.delivery.mqtt.publish_probe")
    text = PERMISSIONS.format(rules=rules).replace("{{", "{").replace("}}", "}")
    (tmp_path / "nats").mkdir()
    with running(NatsServer(tmp_path / "nats", text)) as broker:
        settings = settings_of(broker, username="edge")
        with publishing(settings, outbox, password="pw", tuning=QUICK) as publisher:
            if verdict == "unknown":
                wait_until(lambda: "reading emotion/kitchen/probe is not allowed" in caplog.text, "an answer")
            wait_until(
                lambda: publisher.connection_state.publishing == verdict,
                f"{verdict}, not {publisher.connection_state}",
            )


def test_daemon_reports_that_its_messages_are_refused(tmp_path: Path) -> None:
    """A NATS that accepts only the status: `degraded`, `mqtt:publish_refused`, and a log line."""
    users = """
        mqtt { listen: "127.0.0.1:{port}" }
        authorization { users: [
            { user: "watch", password: "pw" },
            { user: "edge", password: "pw", permissions: {
                publish: ["$MQTT.>", "$JS.>", "emotion.lab.status", "emotion.lab.availability"] } } ] }
    """
    (tmp_path / "nats").mkdir()
    secret = tmp_path / "password"
    secret.write_text("pw")
    secret.chmod(0o600)
    with running(NatsServer(tmp_path / "nats", users)) as broker, (tmp_path / "log").open("wb") as log:
        settings = settings_of(broker, username="watch")
        with closing(listen(settings, "emotion/lab/status", password="pw")) as messages:
            assert messages.wait_ready(10)
            environment = {
                **os.environ,
                "EMOTION_EDGE__DEVICE__ID": "lab",
                "EMOTION_EDGE__CAMERA__SOURCE": "none",
                "EMOTION_EDGE__MICROPHONE__SOURCE": "none",
                "EMOTION_EDGE__OUTBOX__PATH": str(tmp_path / "outbox.sqlite3"),
                "EMOTION_EDGE__MQTT__PORT": str(broker.port),
                "EMOTION_EDGE__MQTT__USERNAME": "edge",
                "EMOTION_EDGE__MQTT__PASSWORD_FILE": str(secret),
            }
            daemon = subprocess.Popen([sys.executable, "-m", "edge", "run"], env=environment, stderr=log)
            try:
                while (message := messages.receive(30)) is not None:
                    status = json.loads(message.payload)
                    if status["reasons"]:
                        break
            finally:
                daemon.terminate()
                daemon.wait(10)
        assert message is not None
        assert (status["state"], status["reasons"]) == ("degraded", ["mqtt:publish_refused"])
        assert "the probe published to emotion/lab/probe did not come back" in (tmp_path / "log").read_text()
