"""Connecting to one broker: versions, reasons of a failure, TLS."""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edge.delivery.mqtt.connection import Connector
from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.mqtt.tuning import V5, V311, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.errors import ConfigError
from edge.settings import MqttSettings
from tests.helpers.brokers import (
    BRISK,
    Broker,
    Mosquitto,
    is_empty,
    make_event,
    publishing,
    running,
    settings_of,
    wait_until,
    watching,
)
from tests.helpers.packets import Action, Packet, packet_path


def test_broker_absent_at_start(broker: Broker, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing listens at first: the reason is logged once, and everything arrives when the broker starts."""
    broker.stop()
    states: list[ConnectionState] = []
    caplog.set_level(logging.WARNING, logger="edge.delivery.mqtt.connection_state")
    with publishing(settings_of(broker), outbox, on_state=states.append) as publisher:
        outbox.append(make_event(1))
        publisher.event_added()
        wait_until(lambda: publisher.connection_state.failures >= 2, "a second attempt")
        assert (publisher.connection_state.connected, publisher.connection_state.reason) == (False, "refused")
        broker.start()
        wait_until(is_empty(outbox), "an empty outbox")
    reasons = [state.reason for state in states]
    assert list(dict.fromkeys(reasons)) == ["refused", "connected", "closed"]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"mqtt.host 127.0.0.1:{broker.port}: refused; ")


def test_protocol_is_the_newest_that_the_broker_supports(broker: Broker, outbox: Outbox) -> None:
    """MQTT 5 with mosquitto, 3.1.1 with NATS."""
    with publishing(settings_of(broker), outbox) as publisher:
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        assert publisher.connection_state.protocol == ("5" if isinstance(broker, Mosquitto) else "3.1.1")


@contextmanager
def closing_on_mqtt5(target: Mosquitto) -> Iterator[int]:
    """A proxy that closes MQTT 5 connections, as an old broker does with a version that it does not know."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def relay(source: socket.socket, sink: socket.socket) -> None:
            try:
                while data := source.recv(4096):
                    sink.sendall(data)
            except OSError:
                pass
            finally:
                for end in (source, sink):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    packet = client.recv(4096)
                    if packet[8:9] == b"\x05":  # after two bytes of header and the word MQTT
                        versions.append(5)
                        continue
                    versions.append(4)
                    with socket.create_connection((target.host, target.port)) as upstream:
                        upstream.sendall(packet)
                        back = threading.Thread(target=relay, args=(upstream, client))
                        back.start()
                        relay(client, upstream)
                        back.join()

        versions: list[int] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
        assert versions[:2] == [5, 4]
        assert 5 not in versions[2:], "the version that works was forgotten"


def test_broker_that_closes_mqtt_5_gets_3_1_1(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """A connection closed without an answer is tried again with 3.1.1, which is remembered."""
    with (
        closing_on_mqtt5(mosquitto) as port,
        publishing(MqttSettings(port=port), outbox) as publisher,
    ):
        wait_until(lambda: publisher.connection_state.protocol == "3.1.1", "a connection")
        with watching(mosquitto, client_id="emotion-edge-kitchen"):
            wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
        wait_until(lambda: publisher.connection_state.protocol == "3.1.1", "a new connection")


def test_broker_that_crashes_is_not_an_old_one(mosquitto: Mosquitto, outbox: Outbox) -> None:
    """A broker that has accepted MQTT 5, and later closes without an answer, gets MQTT 5 again."""
    connects = 0

    def choose(packet: Packet) -> Action:
        nonlocal connects
        connects += packet.from_device and packet.number == 1
        return "close" if packet.from_device and packet.number == 1 and connects == 2 else "pass"

    with (
        packet_path(mosquitto.host, mosquitto.port, choose) as path,
        publishing(path.settings, outbox) as publisher,
    ):
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        with watching(mosquitto, client_id="emotion-edge-kitchen"):
            wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
        wait_until(lambda: publisher.connection_state.connected, "a new connection")
        assert connects >= 3
        assert publisher.connection_state.protocol == "5"


def test_wrong_password_is_named(tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    """`not_authorized`, one warning that names the keys to check, and no password in it."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "edge", "right"], check=True)
    passwords.chmod(0o600)
    lines = ("allow_anonymous false", f"password_file {passwords}")
    caplog.set_level(logging.WARNING)
    with running(Mosquitto(tmp_path, *lines)) as broker:
        settings = settings_of(broker, username="edge")
        with publishing(settings, outbox, password="wrong") as publisher:
            wait_until(lambda: publisher.connection_state.failures >= 2, "a second attempt")
            assert publisher.connection_state.reason == "not_authorized"
        with publishing(settings, outbox, password="right") as publisher:
            wait_until(lambda: publisher.connection_state.connected, "a connection")
    assert len(caplog.records) == 1
    assert "mqtt.password_file" in caplog.text
    assert "wrong" not in caplog.text


def test_unknown_host_name_is_dns(outbox: Outbox) -> None:
    """A host without an address is `dns`."""
    with publishing(MqttSettings(host="no-such-host.invalid"), outbox) as publisher:
        wait_until(lambda: publisher.connection_state.failures, "a failure", timeout_s=60)
        assert publisher.connection_state.reason == "dns"


def test_port_that_never_answers(outbox: Outbox) -> None:
    """A server that accepts the connection and sends nothing is `timeout`."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        publishing(
            MqttSettings(port=silent.getsockname()[1]), outbox, tuning=Tuning(connect_timeout_s=0.2)
        ) as publisher,
    ):
        wait_until(lambda: publisher.connection_state.failures, "a failure")
        assert publisher.connection_state.reason == "timeout"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for the name localhost only, and its key."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-out", certificate, "-keyout", key),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.mark.parametrize(
    ("host", "is_trusted", "reason"),
    [("localhost", True, "connected"), ("localhost", False, "tls"), ("127.0.0.1", True, "tls")],
    ids=["trusted", "unknown-authority", "wrong-name"],
)
def test_tls_checks_authority_and_name(
    tmp_path: Path, outbox: Outbox, certificate: tuple[Path, Path], host: str, is_trusted: bool, reason: str
) -> None:
    """A certificate is accepted only from the given authority and for the configured host name."""
    lines = (f"certfile {certificate[0]}", f"keyfile {certificate[1]}")
    with running(Mosquitto(tmp_path, *lines)) as broker:
        authority = certificate[0] if is_trusted else None
        settings = MqttSettings(host=host, port=broker.port, tls=True, ca_file=authority)
        with publishing(settings, outbox) as publisher:
            wait_until(lambda: publisher.connection_state.reason != "connecting", "an answer")
            assert publisher.connection_state.reason == reason
            if is_trusted and host == "localhost":
                outbox.append_many([make_event(n, padding=3000) for n in range(50)])
                publisher.event_added()
                wait_until(is_empty(outbox), "an empty outbox")


def test_ca_file_that_is_none(tmp_path: Path, outbox: Outbox) -> None:
    """A wrong `ca_file` is a `ConfigError` at start."""
    settings = MqttSettings(tls=True, ca_file=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"mqtt\.ca_file .*missing\.pem"):
        Publisher(settings, device="kitchen", outbox=outbox)


def read_packet(peer: socket.socket) -> tuple[int, bytes]:
    """Read one MQTT packet; return its first byte and its content."""

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += peer.recv(count - len(data))
        return data

    (first,) = exactly(1)
    length = shift = 0
    while True:
        (byte,) = exactly(1)
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first, exactly(length)


def read_publish(peer: socket.socket) -> bytes:
    """Read one short QoS 1 PUBLISH; return the two bytes of its packet id."""
    first, body = read_packet(peer)
    assert first & 0xF6 == 0x32
    after_topic = 2 + int.from_bytes(body[:2])
    return body[after_topic : after_topic + 2]


def test_receive_maximum_of_the_broker_is_kept(outbox: Outbox) -> None:
    """A broker that allows two unacknowledged messages gets a third only after an acknowledgement."""
    outbox.append_many([make_event(n) for n in range(9)])
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        publishing(MqttSettings(port=server.getsockname()[1]), outbox),
        server.accept()[0] as peer,
    ):
        peer.settimeout(10)
        assert peer.recv(4096)[:1] == b"\x10"
        peer.sendall(bytes.fromhex("20 06 00 00 03 21 00 02"))  # CONNACK with Receive Maximum 2
        assert read_packet(peer)[0] == 0x82, "the SUBSCRIBE of the own status"
        waiting = [read_publish(peer), read_publish(peer)]
        for _ in range(6):
            peer.settimeout(0.1)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            peer.settimeout(10)
            peer.sendall(b"\x40\x02" + waiting.pop(0))
            waiting.append(read_publish(peer))
        server.close()  # no broker is left to reconnect to


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that sends one answer to the CONNECT of each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(4096)
                        client.sendall(answer)
                        client.settimeout(0.2)
                        with suppress(TimeoutError):
                            client.recv(4096)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        bytes.fromhex("2003 0000 00")
        + b"\x30\x05\x00\x03\xff/\xe2",  # CONNACK, then a topic that is not UTF-8
        bytes.fromhex("2003 0000 7f"),  # properties of 127 bytes, none of which follow
        bytes.fromhex("2002 0000"),  # a CONNACK of MQTT 3.1.1
        b"\x20\x03\x00\xfe\x00",  # a reason code that does not exist
    ],
)
def test_malformed_packets_are_named(outbox: Outbox, answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A server that sends other bytes than MQTT is no internal error."""
    reasons: list[str] = []
    tuning = replace(BRISK, protocols=(V5,), connect_timeout_s=2.0)
    with answering(answer) as port:
        settings = MqttSettings(host="127.0.0.1", port=port)
        with publishing(settings, outbox, tuning=tuning, on_state=lambda state: reasons.append(state.reason)):
            wait_until(lambda: "malformed" in reasons, f"the reason, but {reasons}")
    assert "Traceback" not in caplog.text


def test_broker_that_answers_in_an_older_version_gets_that() -> None:
    """MQTT 3.1.1 is tried after a CONNACK of MQTT 3.1.1 to a CONNECT of MQTT 5."""
    with answering(bytes.fromhex("2002 0000")) as port:
        connection = Connector(MqttSettings(host="127.0.0.1", port=port), "kitchen", None).open()
        assert connection.protocol == V311
        connection.abort()
