"""Bad certificates, bad passwords and topics of other users are refused with a reason."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.settings import MqttSettings
from tests.helpers.brokers import is_empty, make_event, publishing, running, settings_of, wait_until
from tests.helpers.sites import NatsNode, SiteMosquitto, running_cluster

PASSWORDS = {name: f"password-of-{name}" for name in ("kitchen", "attic", "reader", "homeassistant")}
KITCHEN = PASSWORDS["kitchen"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SiteMosquitto]:
    """The sample mosquitto with two devices and two consumers."""
    broker = SiteMosquitto(tmp_path, PASSWORDS)
    with running(broker):
        yield broker


@contextmanager
def client(broker: SiteMosquitto, user: str, **more: Any) -> Iterator[paho.Client]:
    """Connect a client that is not ours with the rights of one user (MQTT 5)."""
    connected = threading.Event()
    foreign = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=f"foreign-{user}", protocol=MQTTProtocolVersion.MQTTv5
    )
    foreign.username_pw_set(user, PASSWORDS[user])
    if "will" in more:
        foreign.will_set(more["will"], b"forged", qos=1, retain=True)
    foreign.on_connect = lambda *_: connected.set()
    foreign.connect(broker.host, broker.port)
    foreign.loop_start()
    try:
        assert connected.wait(10), "no CONNACK"
        yield foreign
    finally:
        foreign.disconnect()
        foreign.loop_stop()


@contextmanager
def observing(
    broker: SiteMosquitto | NatsNode, user: str, *filters: str, password: str | None = None
) -> Iterator[list[tuple[str, bytes]]]:
    """Collect what one user gets to see."""
    seen: list[tuple[str, bytes]] = []
    confirmed = threading.Event()
    granted: list[Any] = []
    observer = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"observer-{user}")
    observer.username_pw_set(user, password or PASSWORDS[user])
    observer.on_message = lambda _client, _data, message: seen.append((message.topic, bytes(message.payload)))
    observer.on_connect = lambda client, *_: client.subscribe([(name, 1) for name in filters])

    def on_subscribe(_client: Any, _data: Any, _mid: int, codes: list[Any], _properties: Any) -> None:
        granted.extend(codes)
        confirmed.set()

    observer.on_subscribe = on_subscribe
    observer.connect(broker.host, broker.port)
    observer.loop_start()
    try:
        assert confirmed.wait(20), "no SUBACK"
        assert not any(code.is_failure for code in granted), "a filter is not allowed"
        yield seen
    finally:
        observer.disconnect()
        observer.loop_stop()


def publish_as(broker: SiteMosquitto, user: str, topic: str, payload: bytes) -> None:
    """Publish retained with the rights of one user, and wait for the answer or for being thrown out."""
    with client(broker, user) as foreign:
        answered = threading.Event()
        foreign.on_publish = lambda *_: answered.set()
        foreign.on_disconnect = lambda *_: answered.set()  # mosquitto 2.0.11 hangs up on a refusal
        foreign.publish(topic, payload, qos=1, retain=True)
        assert answered.wait(10), "neither PUBACK nor DISCONNECT"


ALLOWED = [
    ("kitchen", "emotion/kitchen/event"),
    ("kitchen", "emotion/kitchen/availability"),
    ("kitchen", "emotion/kitchen/voice/state"),
    ("kitchen", "homeassistant/device/kitchen/config"),
    ("homeassistant", "emotion/attic/camera/enabled/set"),
    ("homeassistant", "homeassistant/status"),
]
FORGED = [
    ("kitchen", "emotion/attic/event"),
    ("kitchen", "emotion/attic/availability"),
    ("kitchen", "emotion/attic/camera/enabled/set"),
    ("kitchen", "emotion/kitchen2/event"),
    ("kitchen", "emotion/all"),
    ("kitchen", "homeassistant/device/attic/config"),
    ("kitchen", "homeassistant/sensor/kitchen/config"),
    ("kitchen", "homeassistant/status"),
    ("homeassistant", "emotion/attic/event"),
    ("homeassistant", "emotion/attic/availability"),
    ("reader", "emotion/reader/event"),
    ("reader", "emotion/attic/event"),
    ("reader", "emotion/attic/camera/enabled/set"),
    ("reader", "homeassistant/device/reader/config"),
]


def test_sample_access_list_lets_each_speak_only_for_itself(site: SiteMosquitto) -> None:
    """A user may publish on its own topics; on those of others nothing is delivered or stored."""
    with observing(site, "homeassistant", "emotion/#", "homeassistant/#") as seen:
        for user, topic in FORGED:
            publish_as(site, user, topic, b"forged")
        for user, topic in ALLOWED:
            publish_as(site, user, topic, b"allowed")
        wait_until(lambda: len(seen) >= len(ALLOWED), "what is allowed")
        assert sorted(seen) == sorted((topic, b"allowed") for _, topic in ALLOWED)
    with observing(site, "homeassistant", "emotion/#", "homeassistant/#") as stored:
        wait_until(lambda: len(stored) >= len(ALLOWED), "what is stored")
        assert b"forged" not in [payload for _, payload in stored]


def test_last_will_of_another_is_refused(site: SiteMosquitto) -> None:
    """A user cannot forge the last will of another device."""
    with observing(site, "homeassistant", "emotion/#") as seen:
        with client(site, "kitchen", will="emotion/attic/availability") as foreign:
            sock = foreign.socket()
            if sock is not None:  # refused at once, or the will is silently dropped: both are right
                sock.close()
        publish_as(site, "attic", "emotion/attic/event", b"fence")
        wait_until(lambda: ("emotion/attic/event", b"fence") in seen, "the fence")
        assert [topic for topic, _ in seen] == ["emotion/attic/event"]


def test_device_hears_only_its_own_switches(site: SiteMosquitto) -> None:
    """A stolen device's password opens no other room: of all topics it gets the commands meant for it."""
    with observing(site, "kitchen", "#") as seen:
        publish_as(site, "attic", "emotion/attic/state", b"{}")
        publish_as(site, "attic", "emotion/attic/event", b"{}")
        publish_as(site, "homeassistant", "emotion/attic/camera/enabled/set", b"OFF")
        publish_as(site, "kitchen", "emotion/kitchen/state", b"{}")
        publish_as(site, "attic", "homeassistant/device/attic/config", b"{}")
        publish_as(site, "homeassistant", "homeassistant/status", b"online")
        publish_as(site, "homeassistant", "emotion/kitchen/camera/enabled/set", b"OFF")
        wait_until(lambda: len(seen) >= 2, "its own")
        assert seen == [("homeassistant/status", b"online"), ("emotion/kitchen/camera/enabled/set", b"OFF")]


def test_daemon_s_topics_pass_the_sample_access_list(site: SiteMosquitto, outbox: Outbox) -> None:
    """The publisher itself is refused nothing: states, events, discovery, commands."""
    commands: list[bytes] = []
    with publishing(settings_of(site, username="kitchen"), outbox, password=KITCHEN) as publisher:
        publisher.subscribe("camera/enabled/set", lambda payload, _retained: commands.append(payload))
        for subtopic in ("status", "state", "face/state", "camera/enabled/state"):
            publisher.publish_state(subtopic, {})
        publisher.publish_retained("homeassistant/device/kitchen/config", b"{}")
        outbox.append(make_event(1))
        publisher.event_added()
        wait_until(is_empty(outbox), "an empty outbox")
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        publish_as(site, "homeassistant", "emotion/kitchen/camera/enabled/set", b"OFF")
        wait_until(lambda: commands == [b"OFF"], "a command")
        assert publisher.refused_topics == {}
        assert outbox.counts().refused == 0


@pytest.mark.parametrize(
    ("user", "password"),
    [("kitchen", "wrong"), ("kitchen", None), ("nobody", KITCHEN), (None, None)],
    ids=["wrong-password", "no-password", "unknown-user", "anonymous"],
)
def test_sample_broker_wants_the_password(
    site: SiteMosquitto,
    outbox: Outbox,
    caplog: pytest.LogCaptureFixture,
    user: str | None,
    password: str | None,
) -> None:
    """Without the right one there is no connection, and the log names what to check."""
    with publishing(settings_of(site, username=user), outbox, password=password) as publisher:
        wait_until(lambda: publisher.connection_state.failures, "a refusal")
        assert (publisher.connection_state.connected, publisher.connection_state.reason) == (
            False,
            "not_authorized",
        )
    assert "mqtt.password_file" in caplog.text


@pytest.mark.parametrize("case", ["trusted", "unknown-authority", "expired", "not-yet-valid", "wrong-name"])
def test_certificates(tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture, case: str) -> None:
    """A broker is believed only with a valid certificate of a known authority for the name asked for."""
    authority, now = trustme.CA(), datetime.now(UTC)
    name = "other.example" if case == "wrong-name" else "localhost"
    issued = authority.issue_cert(
        name,
        not_before=now + timedelta(days=1) if case == "not-yet-valid" else now - timedelta(days=2),
        not_after=now - timedelta(days=1) if case == "expired" else now + timedelta(days=2),
    )
    certificate, key, known = tmp_path / "broker.pem", tmp_path / "broker.key", tmp_path / "ca.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    (trustme.CA() if case == "unknown-authority" else authority).cert_pem.write_to_path(known)
    with running(SiteMosquitto(tmp_path, PASSWORDS, certificate=(certificate, key))) as broker:
        settings = MqttSettings(
            host="localhost", port=broker.port, tls=True, ca_file=known, username="kitchen"
        )
        with publishing(settings, outbox, password=KITCHEN) as publisher:
            wait_until(
                lambda: publisher.connection_state.connected or publisher.connection_state.failures,
                "an answer",
            )
            assert publisher.connection_state.connected == (case == "trusted")
            assert publisher.connection_state.reason == ("connected" if case == "trusted" else "tls")
            if case == "trusted":
                outbox.append(make_event(1))
                publisher.event_added()
                wait_until(is_empty(outbox), "an empty outbox")
            else:
                assert "mqtt.ca_file" in caplog.text


def test_cluster_refuses_and_says_so(tmp_path: Path) -> None:
    """NATS with the sample users: a wrong password is named, a forged topic goes nowhere, the own passes."""
    with (
        running_cluster(tmp_path, ["kitchen", "attic"]) as (node, *_),
        observing(node, "reader", "emotion/#", password="change-me-2") as seen,
    ):
        outbox = Outbox(tmp_path / "o.db", device="kitchen", max_events=100, max_bytes=1 << 20)
        settings = MqttSettings(host=node.host, port=node.port, username="kitchen")
        with closing(outbox):
            with publishing(settings, outbox, password="wrong") as publisher:
                wait_until(lambda: publisher.connection_state.failures, "a refusal")
                assert publisher.connection_state.reason == "not_authorized"
            forger = Publisher(settings, device="attic", outbox=outbox, password="change-me-1")
            with closing(forger):
                forger.publish_state("state", {"forged": True})
                forger.start()
                wait_until(lambda: forger.connection_state.connected, "a connection")
            with publishing(settings, outbox, password="change-me-1"):
                outbox.append(make_event(1))
                wait_until(is_empty(outbox), "an empty outbox", timeout_s=40)
            wait_until(lambda: "emotion/kitchen/event" in [topic for topic, _ in seen], "the own event")
    assert not [topic for topic, _ in seen if topic.startswith("emotion/attic/")]
