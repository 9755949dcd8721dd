"""Checks each broker: DNS, TCP, TLS, MQTT connection, one message published and read back."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from edge.commands.doctor.finding import Finding, failed
from edge.config import read_password
from edge.delivery import messages
from edge.delivery.home_assistant.discovery import discovery_topic
from edge.delivery.home_assistant.entities import discovery_payload
from edge.delivery.messages import ONLINE
from edge.delivery.mqtt.connection import (
    REMEDIES,
    Connection,
    ConnectionFailed,
    Connector,
    packet_bytes,
    reason_of,
)
from edge.delivery.mqtt.size_trial import probe_of_size
from edge.delivery.mqtt.takeover import DUPLICATE_ID
from edge.delivery.mqtt.tls import tls_context
from edge.delivery.mqtt.tuning import TUNING, V5
from edge.errors import EdgeError
from edge.hosts import Address
from edge.settings import Config
from edge.values import encode

EVENT_BYTES = 2048  # an event with face and voice is smaller
RETAINED_S = 1.0  # within which the broker sends what it keeps
EXPIRY_DAYS = 7  # automatic renewal happens earlier than this


class Skipped(Exception):
    """A stage cannot run; the message is the reason."""


def check_brokers(config: Config, *, has_daemon: bool) -> Iterator[Finding]:
    """Check every broker of `mqtt.host`; `has_daemon` is whether a daemon runs on this machine."""
    for address in config.mqtt.addresses:
        yield from check_broker(config, address, has_daemon=has_daemon)


def check_broker(config: Config, address: Address, *, has_daemon: bool) -> Iterator[Finding]:
    """Run the stages in order; skip those after a failed one."""
    session = _Session(config, address, has_daemon=has_daemon)
    failed_stage = ""
    try:
        for stage, check in session.checks.items():
            if failed_stage:
                yield Finding(stage, str(address), "skipped", f"needs {failed_stage}")
                continue
            try:
                yield Finding(stage, str(address), "ok", check())
            except Skipped as reason:
                yield Finding(stage, str(address), "skipped", str(reason))
            except ConnectionFailed as error:
                failed_stage = stage
                remedy = REMEDIES.get(error.reason, "see the broker's log")
                yield Finding(stage, str(address), "failed", str(error), remedy)
            except EdgeError as error:
                failed_stage = stage
                yield failed(stage, str(address), error)
    finally:
        session.close()


class _Session:
    """The checks of one broker: each returns a detail, or raises `Skipped`, or the error of a failure."""

    def __init__(self, config: Config, address: Address, *, has_daemon: bool) -> None:
        self._has_daemon = has_daemon
        self._config = config
        self._settings = config.mqtt.model_copy(update={"host": str(address)})
        self._address = address
        self._connection: Connection | None = None
        self._root = f"{config.mqtt.prefix}/{config.device.id}"
        self._topic = f"{self._root}/probe"
        self._token = secrets.token_hex(8)
        self._read_refusal = ""  # the reason code of the subscription, empty if granted
        self.checks: dict[str, Callable[[], str]] = {
            "dns": self._dns,
            "tcp": self._tcp,
            "tls": self._tls,
            "connect": self._connect,
            "publish": self._publish,
            "read_back": self._read_back,
            "device_id": self._device_id,
        }

    def close(self) -> None:
        """Disconnect from the broker."""
        if self._connection is not None:
            self._connection.disconnect()

    def _dns(self) -> str:
        try:
            results = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConnectionFailed("dns", str(error)) from error
        return ", ".join(dict.fromkeys(str(entry[4][0]) for entry in results))

    def _open(self) -> socket.socket:
        try:
            return socket.create_connection(
                (self._address.host, self._address.port), TUNING.connect_timeout_s
            )
        except OSError as error:
            raise ConnectionFailed(reason_of(error), str(error)) from error

    def _tcp(self) -> str:
        start_s = time.monotonic()
        with self._open():
            return f"connected in {1e3 * (time.monotonic() - start_s):.0f} ms"

    def _tls(self) -> str:
        context = tls_context(self._settings)
        if context is None:
            raise Skipped("mqtt.tls is false")
        try:
            with (
                self._open() as plain,
                context.wrap_socket(plain, server_hostname=self._address.host) as secured,
            ):
                version, certificate = secured.version(), secured.getpeercert() or {}
        except OSError as error:
            raise ConnectionFailed(reason_of(error), str(error)) from error
        expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
        days = (expires - datetime.now(UTC)).days
        if days < EXPIRY_DAYS:
            raise EdgeError(f"the broker's certificate expires on {expires:%Y-%m-%d}; renew it on the broker")
        return f"{version}, certificate valid until {expires:%Y-%m-%d}"

    def _connect(self) -> str:
        password = read_password(self._config.mqtt)
        # A client id of its own: with the daemon's, the broker would disconnect the daemon. The will is as
        # retained as that of the daemon; the broker drops it at the disconnect.
        connector = Connector(self._settings, f"emotion-edge-doctor-{os.getpid()}", password)
        connection = connector.open(will=(self._topic, encode(messages.probe(self._token))))
        self._connection = connection
        if not connection.limits.has_retain:
            raise ConnectionFailed("retain_not_supported", "the broker keeps no retained messages")
        user = self._settings.username or "no user"
        return f"MQTT {'5' if connection.protocol == V5 else '3.1.1'}, {user}"

    def _publish(self) -> str:
        connection = self._connected
        connection.subscribe(self._topic)
        self._wait(lambda: bool(connection.subscribed), "the broker did not answer a subscription")
        self._read_refusal = connection.subscribed.popleft()[1] or ""
        connection.publish(self._topic, encode(messages.probe(self._token)), qos=1)
        self._wait(lambda: bool(connection.acked), "the broker did not acknowledge a publication")
        if refusal := connection.acked.popleft()[1]:
            raise ConnectionFailed(
                refusal, f"{self._topic} refused; allow this user to write all topics below {self._root}"
            )
        self._compare_sizes()
        return f"{self._topic} acknowledged"

    def _compare_sizes(self) -> None:
        """Raise `EdgeError` for the first message of the daemon that the broker does not take.

        A broker that states no maximum gets a probe of each size.
        """
        sizes = {f"{self._root}/event": EVENT_BYTES}
        if self._config.mqtt.discovery:
            topic = discovery_topic(self._config)
            sizes[topic] = packet_bytes(topic, encode(discovery_payload(self._config)))
        connection, remedy = self._connected, "raise its maximum packet size (mosquitto: max_packet_size)"
        limit = connection.limits.maximum_packet_bytes
        for topic, size in sizes.items():
            if size > limit:
                raise EdgeError(f"{topic} has up to {size} bytes, the broker takes {limit}; {remedy}")
            connection.publish(self._topic, probe_of_size(self._topic, size), qos=1)
            try:
                self._wait(lambda: bool(connection.acked), "a large message was not acknowledged")
            except ConnectionFailed as error:
                raise EdgeError(
                    f"{topic} has up to {size} bytes, the connection ended at that size ({error.reason}): "
                    f"the broker, or a proxy before it, states no maximum; {remedy}"
                ) from error
            connection.acked.clear()

    def _read_back(self) -> str:
        if self._read_refusal:
            raise Skipped(f"this user may not read {self._topic} ({self._read_refusal}), which is fine")
        received = self._connected.received
        try:
            self._wait(
                lambda: any(self._token.encode() in message.payload for message in received),
                f"{self._topic} was not delivered",
            )
        except ConnectionFailed as error:
            if error.reason != "timeout":
                raise
            if self._connected.protocol == V5:
                raise Skipped(f"this user may not read {self._topic}, which is fine") from None
            # MQTT 3.1.1 cannot refuse a publication: the broker acknowledges it and drops it.
            raise EdgeError(
                f"{self._topic} was acknowledged but not delivered; allow this user to write all topics "
                f"below {self._root}"
            ) from None
        return "the published message was received"

    def _device_id(self) -> str:
        """Raise `EdgeError` if the broker knows a daemon with this id that is not the one of this machine."""
        connection, device = self._connected, self._config.device.id
        availability, status = f"{self._root}/availability", f"{self._root}/status"
        connection.subscribe(availability, status)
        deadline_s = time.monotonic() + RETAINED_S
        kept: dict[str, bytes] = {}
        while connection.lost is None and time.monotonic() < deadline_s and len(kept) < 2:
            connection.pump(0.1)
            messages_of_daemon = (m for m in connection.received if m.topic in (availability, status))
            kept = {message.topic: message.payload for message in messages_of_daemon}
        remedy = REMEDIES["session_taken_over"]
        if DUPLICATE_ID.encode() in kept.get(status, b""):
            raise EdgeError(f"device.id {device}: {remedy}")
        if kept.get(availability) == ONLINE.encode() and not self._has_daemon:
            raise EdgeError(f"device.id {device} is online, but no daemon runs here: {remedy}")
        return f"no other daemon uses {device}"

    @property
    def _connected(self) -> Connection:
        assert self._connection is not None, "the checks before have connected"
        return self._connection

    def _wait(self, condition: Callable[[], bool], detail: str) -> None:
        """Pump the connection until `condition` holds; raise `ConnectionFailed` with `detail`."""
        connection, deadline_s = self._connected, time.monotonic() + TUNING.probe_s
        while not condition():
            if connection.lost is not None:
                raise ConnectionFailed(connection.lost, detail)
            if time.monotonic() > deadline_s:
                raise ConnectionFailed("timeout", detail)
            connection.pump(0.1)
