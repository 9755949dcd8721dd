"""The doctor's stages for each broker: name, connection, certificate, MQTT, one message out and back."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from edge.commands.doctor.stages import Finding, failed
from edge.config import read_password
from edge.delivery import messages
from edge.delivery.mqtt.connection import (
    CONNECT_TIMEOUT_S,
    REMEDIES,
    V5,
    Connection,
    ConnectionFailed,
    Connector,
    reason_of,
)
from edge.delivery.mqtt.publish_probe import PROBE_S
from edge.delivery.mqtt.tls import tls_context
from edge.errors import EdgeError
from edge.hosts import Address
from edge.settings import Config
from edge.values import encode

EXPIRY_DAYS = 7  # a certificate that is renewed by a program has been by then


class Skipped(Exception):
    """A stage that cannot be tried, and why."""


def examine_brokers(config: Config) -> Iterator[Finding]:
    """Try every broker of `mqtt.host`, all of them, whichever the daemon uses now."""
    for address in config.mqtt.addresses:
        yield from examine_broker(config, address)


def examine_broker(config: Config, address: Address) -> Iterator[Finding]:
    """Go as far as it goes; a stage after a failed one is skipped."""
    visit = _Visit(config, address)
    broken = ""
    try:
        for stage, step in visit.steps.items():
            if broken:
                yield Finding(stage, str(address), "skipped", f"needs {broken}")
                continue
            try:
                yield Finding(stage, str(address), "ok", step())
            except Skipped as reason:
                yield Finding(stage, str(address), "skipped", str(reason))
            except ConnectionFailed as error:
                broken = stage
                remedy = REMEDIES.get(error.reason, "the broker's log may say why")
                yield Finding(stage, str(address), "failed", str(error), remedy)
            except EdgeError as error:
                broken = stage
                yield failed(stage, str(address), error)
    finally:
        visit.close()


class _Visit:
    """One way to one broker; each step returns what it found, or raises `ConnectionFailed`."""

    def __init__(self, config: Config, address: Address) -> None:
        self._config = config
        self._settings = config.mqtt.model_copy(update={"host": str(address)})
        self._address = address
        self._connection: Connection | None = None
        self._topic = f"{config.mqtt.prefix}/{config.device.id}/probe"
        self._token = secrets.token_hex(8)
        self._cannot_read = ""
        self.steps: dict[str, Callable[[], str]] = {
            "dns": self._dns,
            "tcp": self._tcp,
            "tls": self._tls,
            "connect": self._connect,
            "publish": self._publish,
            "read_back": self._read_back,
        }

    def close(self) -> None:
        """Say goodbye to the broker."""
        if self._connection is not None:
            self._connection.disconnect()

    def _dns(self) -> str:
        try:
            found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectionFailed("dns", str(error)) from error
        return ", ".join(dict.fromkeys(str(entry[4][0]) for entry in found))

    def _open(self) -> socket.socket:
        try:
            return socket.create_connection((self._address.host, self._address.port), CONNECT_TIMEOUT_S)
        except OSError as error:
            raise ConnectionFailed(reason_of(error), str(error)) from error

    def _tcp(self) -> str:
        start_s = time.monotonic()
        with self._open():
            return f"connected in {1e3 * (time.monotonic() - start_s):.0f} ms"

    def _tls(self) -> str:
        context = tls_context(self._settings)
        if context is None:
            raise Skipped("mqtt.tls is off")
        try:
            with (
                self._open() as plain,
                context.wrap_socket(plain, server_hostname=self._address.host) as secured,
            ):
                version, certificate = secured.version(), secured.getpeercert() or {}
        except OSError as error:
            raise ConnectionFailed(reason_of(error), str(error)) from error
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        days = (ends - datetime.now(UTC)).days
        if days < EXPIRY_DAYS:
            raise EdgeError(f"the broker's certificate ends on {ends:%Y-%m-%d}; renew it on the broker")
        return f"{version}, certificate valid until {ends:%Y-%m-%d}"

    def _connect(self) -> str:
        password = read_password(self._config.mqtt)
        # A name of its own: under the daemon's, the broker would throw the daemon out.
        connection = Connector(self._settings, f"emotion-edge-doctor-{os.getpid()}", password).open()
        self._connection = connection
        who = self._settings.username or "no user"
        return f"MQTT {'5' if connection.protocol == V5 else '3.1.1'}, {who}"

    def _publish(self) -> str:
        connection = self._connected
        connection.subscribe(self._topic)
        self._wait(lambda: bool(connection.subscribed), "no answer to a subscription")
        self._cannot_read = connection.subscribed.popleft()[1] or ""
        connection.publish(self._topic, encode(messages.probe(self._token)), qos=1)
        self._wait(lambda: bool(connection.acked), "no acknowledgement")
        if refusal := connection.acked.popleft()[1]:
            raise ConnectionFailed(refusal, f"{self._topic} refused; let this user write everything below it")
        return f"{self._topic} acknowledged"

    def _read_back(self) -> str:
        if self._cannot_read:
            raise Skipped(f"this user may not read {self._topic} ({self._cannot_read}), which is in order")
        received = self._connected.received
        try:
            self._wait(
                lambda: any(self._token.encode() in message.payload for message in received),
                f"{self._topic} did not come back",
            )
        except ConnectionFailed as error:
            if error.reason != "timeout":
                raise
            if self._connected.protocol == V5:
                raise Skipped(f"this user may not read {self._topic}, which is in order") from None
            # MQTT 3.1.1 has no refusal: the broker acknowledges and throws away.
            what = f"{self._topic} was acknowledged, but did not come back"
            raise EdgeError(f"{what}; let this user write everything below its topic in the broker") from None
        return "the message came back"

    @property
    def _connected(self) -> Connection:
        assert self._connection is not None, "the steps before have connected"
        return self._connection

    def _wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        connection, deadline_s = self._connected, time.monotonic() + PROBE_S
        while not condition():
            if connection.lost is not None:
                raise ConnectionFailed(connection.lost, otherwise)
            if time.monotonic() > deadline_s:
                raise ConnectionFailed("timeout", otherwise)
            connection.pump(0.1)
