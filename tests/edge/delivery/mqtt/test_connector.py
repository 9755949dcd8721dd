"""Several hosts, a client certificate, websockets, connections that are closed at once."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from edge.delivery.mqtt.connection import ConnectionFailed, Connector
from edge.delivery.mqtt.tuning import V311, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.delivery.subscriber import listen
from edge.errors import ConfigError
from edge.settings import MqttSettings
from tests.helpers.brokers import (
    Mosquitto,
    NatsServer,
    free_port,
    is_empty,
    make_event,
    publishing,
    running,
    wait_until,
    watching,
)
from tests.helpers.packets import Action, Packet, packet_path

CONNECT = 1  # the type of the packet

WEBSOCKET = """
mqtt {{ listen: "127.0.0.1:-1" }}
websocket {{
    listen: "127.0.0.1:{{port}}"
    {tls}
}}
"""


def tried(connector: Connector, count: int) -> list[int]:
    """Let a connector fail; return the ports in the order in which they were tried."""
    ports = []
    for _ in range(count):
        with suppress(ConnectionFailed):
            connector.open().abort()
        ports.append(connector.address.port)
    return ports


def test_brokers_are_tried_in_turn_from_an_order_of_chance() -> None:
    """Every round names each broker once, always in the same order; devices differ in that order."""
    ports = [free_port() for _ in range(3)]
    hosts = tuple(f"127.0.0.1:{port}" for port in ports)
    orders = set()
    for number in range(30):
        order = tried(Connector(MqttSettings(host=hosts), f"c{number}", None), 6)
        assert order[:3] == order[3:]
        assert sorted(order[:3]) == sorted(ports)
        orders.add(tuple(order[:3]))
    assert len(orders) > 2


def test_second_broker_takes_over(tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """When one broker ends, the other gets the remaining events, in order; each fault is logged once."""
    caplog.set_level(logging.INFO, logger="edge.delivery.mqtt.connection_state")
    for name in "ab":
        (tmp_path / name).mkdir()
    with running(Mosquitto(tmp_path / "a")) as first, running(Mosquitto(tmp_path / "b")) as second:
        hosts = tuple(f"127.0.0.1:{broker.port}" for broker in (first, second))
        with (
            watching(first, "emotion/kitchen/event") as one,
            watching(second, "emotion/kitchen/event") as two,
            publishing(MqttSettings(host=hosts), outbox) as publisher,
        ):
            outbox.append_many([make_event(n) for n in range(3)])
            publisher.event_added()
            wait_until(is_empty(outbox), "an empty outbox")
            used, other = (
                (first, second) if publisher.connection_state.address == hosts[0] else (second, first)
            )
            early, late = (one, two) if used is first else (two, one)
            wait_until(lambda: len(early.seen) == 3, "three events at the one")
            used.stop()
            # In the log and not in `connection_state`: the other may be connected before this looks.
            lost = f"mqtt.host 127.0.0.1:{used.port}: closed"
            wait_until(
                lambda: any(message.startswith(lost) for message in caplog.messages), "a lost connection"
            )
            outbox.append_many([make_event(n) for n in range(3, 6)])
            wait_until(is_empty(outbox), "an empty outbox")
            assert publisher.connection_state.address == f"127.0.0.1:{other.port}"
            wait_until(lambda: len(late.seen) == 3, "three events at the other")
            lines = [record.getMessage() for record in caplog.records]
    assert f"mqtt.host 127.0.0.1:{other.port}: connected, MQTT 5" in lines
    assert sum(line.startswith(lost) for line in lines) == 1


def test_password_in_the_clear_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """To another machine without TLS: one sentence with the remedy; to this one or with TLS: none."""
    settings = [
        MqttSettings(host=("127.0.0.1", "localhost")),
        MqttSettings(host="broker.example", tls=True),
        MqttSettings(host=("localhost", "broker.example")),
    ]
    for each in settings:
        Connector(each, "c", "canary")
    Connector(settings[-1], "c", None)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "mqtt.host broker.example:1883: the password goes there unencrypted; set mqtt.tls = true"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A directory with ca.pem, and certificates with keys of `localhost`, `kitchen` and a foreign device."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "strange"):
        openssl("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={ca}", "-out", f"{ca}.pem",
                "-keyout", f"{ca}.key")  # fmt: skip
    for name, ca in (("localhost", "ca"), ("kitchen", "ca"), ("foreign", "strange")):
        openssl("req", *curve, "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
                "-out", f"{name}.csr", "-keyout", f"{name}.key")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-days", "2",
                "-CAcreateserial", "-copy_extensions", "copy", "-out", f"{name}.pem")  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(("name", "reason"), [("kitchen", "connected"), ("foreign", None), (None, None)])
def test_client_certificate_opens_the_broker(
    tmp_path: Path, outbox: Outbox, authority: Path, name: str | None, reason: str | None
) -> None:
    """A broker that asks for certificates lets in the one of its own authority, and no other."""
    lines = ["require_certificate true"]
    for key, file in (("cafile", "ca.pem"), ("certfile", "localhost.pem"), ("keyfile", "localhost.key")):
        lines.append(f"{key} {authority / file}")
    more: dict[str, Any] = (
        {}
        if name is None
        else {"cert_file": authority / f"{name}.pem", "key_file": authority / f"{name}.key"}
    )
    with running(Mosquitto(tmp_path, *lines)) as broker:
        settings = MqttSettings(
            host="localhost", port=broker.port, tls=True, ca_file=authority / "ca.pem", **more
        )
        with publishing(settings, outbox) as publisher:
            wait_until(lambda: publisher.connection_state.reason != "connecting", "an answer")
            assert publisher.connection_state.connected == (reason == "connected")
            assert publisher.connection_state.reason in ([reason] if reason else ["tls", "closed"])


def test_key_of_another_certificate_is_refused(authority: Path, outbox: Outbox) -> None:
    """A key that does not match, is encrypted or missing is a `ConfigError` at start."""
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", "kitchen.key", "-out", "locked.key"],
        cwd=authority,
        check=True,
        capture_output=True,
    )
    for key in ("foreign.key", "locked.key", "missing.key"):
        settings = MqttSettings(tls=True, cert_file=authority / "kitchen.pem", key_file=authority / key)
        with pytest.raises(ConfigError, match=rf"mqtt\.key_file .*{key}"):
            Publisher(settings, device="kitchen", outbox=outbox)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_websockets_carry_events_both_ways(
    tmp_path: Path, outbox: Outbox, authority: Path, tls: bool
) -> None:
    """Large events, and many at once, pass through a websocket, encrypted or not."""
    files = f"tls {{ cert_file: '{authority}/localhost.pem', key_file: '{authority}/localhost.key' }}"
    config = WEBSOCKET.format(tls=files if tls else "no_tls: true").replace("{{", "{").replace("}}", "}")
    (tmp_path / "nats").mkdir()
    with running(NatsServer(tmp_path / "nats", config)) as broker:
        settings = MqttSettings(
            host="localhost",
            port=broker.port,
            transport="websockets",
            tls=tls,
            ca_file=authority / "ca.pem" if tls else None,
        )
        with (
            closing(listen(settings, "emotion/+/event")) as messages,
            publishing(settings, outbox),
        ):
            assert messages.wait_ready(10)
            outbox.append_many([make_event(n, padding=70_000 if n == 5 else 300) for n in range(200)])
            seen = [messages.receive(10) for _ in range(200)]
            assert all(message is not None and message.missing in (0, None) for message in seen)
            wait_until(is_empty(outbox), "an empty outbox")
            assert outbox.counts().refused == 0


def test_no_websocket_there_is_named(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """A broker that speaks plain MQTT on the port, or a web server without MQTT, is `websocket`."""

    def answer(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                with server.accept()[0] as peer:
                    peer.recv(4096)
                    peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        for port in (mosquitto.port, server.getsockname()[1]):
            settings = MqttSettings(port=port, transport="websockets", path="/mqtt")
            with publishing(settings, outbox) as publisher:
                wait_until(lambda: publisher.connection_state.failures, "a failure")
                assert publisher.connection_state.reason == "websocket"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("closed", [1, 2])
def test_broker_that_fails_is_not_one_without_retained_messages(mosquitto: Mosquitto, closed: int) -> None:
    """Connections with MQTT 3.1.1 that are closed for another reason do not end retained messages."""
    connects = 0

    def choose(packet: Packet) -> Action:
        nonlocal connects
        connects += packet.kind == CONNECT
        return "close" if packet.kind == CONNECT and connects <= closed else "pass"

    will = ("emotion/kitchen/availability", b"offline")
    with packet_path(mosquitto.host, mosquitto.port, choose) as path:
        connector = Connector(path.settings, "kitchen", None, tuning=Tuning(protocols=(V311,)))
        for _ in range(closed):
            with suppress(ConnectionFailed):
                connector.open(will=will).abort()
        connection = connector.open(will=will)
        assert connection.limits.has_retain
        connection.disconnect()
