"""One connection to an MQTT broker, driven by the thread that opened it."""

from __future__ import annotations

import errno
import logging
import os
import random
import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.delivery.mqtt.paho_client import PahoClient
from edge.delivery.mqtt.tls import tls_context
from edge.delivery.mqtt.tuning import TUNING, V5, Tuning
from edge.delivery.mqtt.wakeup import WakeUp
from edge.hosts import Address
from edge.settings import MqttSettings

log = logging.getLogger(__name__)

REMEDIES = {
    "dns": "check mqtt.host and the name server",
    "refused": "nothing listens on that port; start the broker or check mqtt.port",
    "timeout": "no answer; check mqtt.host, mqtt.port and the firewall",
    "unreachable": "no route; check the network",
    "tls": "check mqtt.tls, mqtt.ca_file, mqtt.cert_file and the name in the broker's certificate",
    "websocket": "no MQTT over websockets on that port; check mqtt.transport, mqtt.path and mqtt.port",
    "not_authorized": "check mqtt.username and mqtt.password_file",
    "unsupported_protocol": "the broker supports neither MQTT 5 nor 3.1.1",
    "closed": "the broker closed the connection; see its log",
    "retain_not_supported": "allow retained messages on the broker (mosquitto: retain_available true)",
    "session_taken_over": "another client uses this device.id; give each device its own",
    "incoming_too_large": "another client sends huge messages to a topic of this device; limit who may write",
    "malformed": "the server sends packets that are not MQTT; check mqtt.host and mqtt.port",
    "no_ack": "the broker acknowledges nothing; check its log and its disk",
}


class ConnectionFailed(ConnectionError):
    """No connection; `reason` is a stable code, such as a key of `REMEDIES`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Message:
    """One message from the broker; `retained` means that the broker had stored it.

    `missing` is for events that a `Listener` yields: how many events of the device are missing before it.
    """

    topic: str
    payload: bytes
    retained: bool
    qos: int
    missing: int | None = None


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What the broker announced in its CONNACK (MQTT 5); the defaults are those of the standard."""

    receive_maximum: int = 65_535  # unacknowledged messages at a time
    maximum_packet_bytes: int = 268_435_455
    has_retain: bool = True


class Connection:
    """A client of paho's without its threads, queues and reconnects, which would outlive the connection.

    Callbacks only fill three deques, which the owner empties after `pump`: `acked` (message id, None or the
    reason of the refusal), `received`, and `subscribed` (a topic, None or the reason of the refusal).
    `lost` is None while connected, then the reason. `limits` are known once `open` has returned. Without
    `has_retain` nothing is published retained, not even the will: a broker without retained messages would
    refuse the connection.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        client_id: str,
        address: Address | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        will: tuple[str, bytes] | None = None,
        protocol: MQTTProtocolVersion = V5,
        has_retain: bool = True,
        tuning: Tuning = TUNING,
    ) -> None:
        self.protocol = protocol
        self.address = address or settings.addresses[0]
        self.keepalive_s = settings.keepalive_s
        self.acked: deque[tuple[int, str | None]] = deque()
        self.received: deque[Message] = deque()
        self.subscribed: deque[tuple[str, str | None]] = deque()
        self.lost: str | None = None
        self.limits = BrokerLimits(has_retain=has_retain)
        self._connack: str | None = None
        self._filters: set[str] = set()  # subscribed; messages of other topics are dropped
        self._subscribing: dict[int, str] = {}  # topics by message id, until the SUBACK
        client = PahoClient(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            transport=settings.transport,
            # No session in the broker: the outbox sends again what was not acknowledged.
            clean_session=True if protocol != V5 else None,
            protocol=protocol,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(0)  # the owner keeps the window
        client.max_incoming_bytes = tuning.max_incoming_bytes
        client.connect_timeout = tuning.connect_timeout_s
        client.on_socket_open = _without_delay
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        if settings.transport == "websockets":
            client.ws_set_options(path=settings.path)
        if settings.username is not None:
            client.username_pw_set(settings.username, password)
        if tls is not None:
            client.tls_set_context(tls)
        if will is not None:
            client.will_set(will[0], will[1], qos=1, retain=has_retain)
        self._client = client

    def open(self) -> None:
        """Connect and wait for the CONNACK; close and raise `ConnectionFailed` unless it accepts."""
        try:
            self._client.connect(
                self.address.host,
                self.address.port,
                # paho drops a silent connection after twice this time; the device must reconnect within twice
                # the configured time.
                self.keepalive_s * 3 // 4,
                clean_start=True if self.protocol == V5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
                properties=self._properties(),
            )
        except OSError as error:
            self.abort()
            raise ConnectionFailed(reason_of(error), str(error)) from error
        deadline_s = time.monotonic() + self._client.connect_timeout
        while self._connack is None and self.lost is None:
            if time.monotonic() > deadline_s:
                self.abort()
                raise ConnectionFailed("timeout", "no CONNACK")
            self.pump(0.1)
        if self._connack != "success":
            self.abort()
            raise ConnectionFailed(self._connack or self.lost or "closed")

    def _properties(self) -> Properties | None:
        """Return the limit that an MQTT 5 broker must keep: it discards larger messages."""
        if self.protocol != V5:
            return None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.MaximumPacketSize = self._client.max_incoming_bytes
        return properties

    def pump(self, timeout_s: float, wake: WakeUp | None = None) -> None:
        """Wait for the network, or for `wake`, at most `timeout_s`; then read and write without blocking."""
        sock = self._client.socket()
        if sock is None or self.lost:
            self.lost = self.lost or "closed"
            return
        # poll cannot see bytes that TLS has already decrypted; plain sockets have no such method.
        has_more = hasattr(sock, "pending") and sock.pending() > 0
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if wake is not None:
            poll.register(wake, select.POLLIN)
        ready = dict(poll.poll(0 if has_more else max(0.0, timeout_s) * 1000))
        mask = ready.get(sock.fileno(), 0)
        if has_more or mask & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._client.loop_read()
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        """Send as much as the socket accepts now; return the message id that `acked` will contain (QoS 1)."""
        retain = retain and self.limits.has_retain
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def subscribe(self, *topics: str, qos: int = 1) -> None:
        """Subscribe topics; `subscribed` gets one entry each: the topic, and why it was refused."""
        self._filters.update(topics)
        for topic in topics:
            mid = self._client.subscribe(topic, qos=qos)[1]
            if mid is not None:  # None: the connection is lost, which `pump` will notice
                self._subscribing[mid] = topic

    def unsubscribe(self, topic: str) -> None:
        """End the subscription of a topic."""
        self._filters.discard(topic)
        self._client.unsubscribe(topic)

    def disconnect(self) -> None:
        """Send DISCONNECT, which makes the broker drop the will, and close."""
        self._client.disconnect()
        deadline_s = time.monotonic() + 0.5
        while self.lost is None and time.monotonic() < deadline_s:
            self.pump(0.05)
        self.abort()

    def abort(self) -> None:
        """Close without DISCONNECT, which makes the broker publish the will."""
        sock = self._client.last_socket
        if sock is not None:
            sock.close()
        self.lost = self.lost or "closed"

    def _on_connect(
        self, _client: Any, _userdata: Any, _flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._connack = code_of(reason)
        self.limits = BrokerLimits(
            receive_maximum=getattr(properties, "ReceiveMaximum", self.limits.receive_maximum),
            maximum_packet_bytes=getattr(properties, "MaximumPacketSize", self.limits.maximum_packet_bytes),
            has_retain=self.limits.has_retain and bool(getattr(properties, "RetainAvailable", True)),
        )

    def _on_disconnect(
        self, _client: Any, _userdata: Any, flags: paho.DisconnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        named = flags.is_disconnect_packet_from_server or reason == "Keep alive timeout"
        unnamed = "malformed" if self._client.has_malformed else "closed"
        unnamed = "incoming_too_large" if self._client.has_oversized else unnamed
        self.lost = self.lost or (code_of(reason) if named else unnamed)

    def _on_publish(
        self, _client: Any, _userdata: Any, mid: int, reason: ReasonCode, _properties: Any
    ) -> None:
        self.acked.append((mid, code_of(reason) if reason.is_failure else None))

    def _on_message(self, _client: Any, _userdata: Any, message: paho.MQTTMessage) -> None:
        if not any(paho.topic_matches_sub(known, message.topic) for known in self._filters):
            return
        self.received.append(Message(message.topic, bytes(message.payload), message.retain, message.qos))

    def _on_subscribe(
        self, _client: Any, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        topic = self._subscribing.pop(mid, "")
        self.subscribed.extend((topic, code_of(reason) if reason.is_failure else None) for reason in reasons)


class Connector:
    """Opens connections to one broker after the other, with MQTT 5 or, where a broker refuses that, 3.1.1.

    The order is random, so that the devices of a broker that fails spread over all the others; each `open`
    tries the next broker. The version that a broker accepted is remembered,
    and whether it accepts retained messages.
    """

    def __init__(
        self, settings: MqttSettings, client_id: str, password: str | None, *, tuning: Tuning = TUNING
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._password = password
        self._tuning = tuning
        self._tls = tls_context(settings)
        addresses = settings.addresses
        self._order = random.sample(addresses, len(addresses))
        self._accepted: dict[Address, MQTTProtocolVersion] = {}  # the version of the last connection
        self._protocols = {address: list(tuning.protocols) for address in addresses}
        self._without_retain: set[Address] = set()
        self.address = self._order[0]  # of the broker that is tried now, or was tried last
        if password is not None and self._tls is None:
            open_to_all = [str(address) for address in addresses if not address.is_loopback]
            if open_to_all:
                log.warning(
                    "mqtt.host %s: the password goes there unencrypted; set mqtt.tls = true",
                    ", ".join(open_to_all),
                )

    @property
    def brokers(self) -> int:
        """How many brokers there are: after so many calls of `open` each was tried once."""
        return len(self._order)

    def open(self, *, will: tuple[str, bytes] | None = None) -> Connection:
        """Return an accepted connection to the next broker, or raise `ConnectionFailed`."""
        self.address = self._order[0]
        self._order.append(self._order.pop(0))
        protocols = self._protocols[self.address]
        for protocol in list(protocols):
            try:
                connection = self._open_with_or_without_retain(protocol, will)
            except ConnectionFailed as error:
                self._without_retain.discard(self.address)  # it may come back with another configuration
                # Old brokers refuse the version, answer in their own, or close the connection without an
                # answer. So does a broker that crashes: one that has accepted the version is not taken for an
                # old one.
                is_known = self._accepted.get(self.address) == protocol
                older = {"unsupported_protocol"} | (set() if is_known else {"closed", "malformed"})
                if protocol == protocols[-1] or error.reason not in older:
                    raise
            else:
                self._accepted[self.address] = protocol
                self._protocols[self.address] = protocols[protocols.index(protocol) :]
                return connection
        raise AssertionError("the last protocol returns or raises")

    def _open_with_or_without_retain(
        self, protocol: MQTTProtocolVersion, will: tuple[str, bytes] | None
    ) -> Connection:
        """Connect with a retained will, and without retain if the broker refuses that.

        MQTT 3.1.1 has no code for it: mosquitto closes the connection, as a broker that fails does. The cause
        is known when it closes a connection with a retained will, accepts one without, and closes one with.
        """
        if self.address in self._without_retain:
            return self._open(protocol, will, has_retain=False)
        for is_known in (protocol == V5, True):
            try:
                return self._open(protocol, will, has_retain=True)
            except ConnectionFailed as error:
                if error.reason != ("retain_not_supported" if protocol == V5 else "closed") or will is None:
                    raise
            connection = self._open(protocol, will, has_retain=False)
            if is_known:
                break
            connection.disconnect()
        self._without_retain.add(self.address)
        return connection

    def _open(
        self, protocol: MQTTProtocolVersion, will: tuple[str, bytes] | None, *, has_retain: bool
    ) -> Connection:
        connection = Connection(
            self._settings,
            client_id=self._client_id,
            address=self.address,
            password=self._password,
            tls=self._tls,
            will=will,
            protocol=protocol,
            has_retain=has_retain,
            tuning=self._tuning,
        )
        connection.open()
        return connection


def packet_bytes(topic: str, payload: bytes) -> int:
    """Return the size of a PUBLISH of QoS 1 in MQTT 5, as the maximum of the broker counts it."""
    remaining = len(topic.encode()) + len(payload) + 5  # length of the topic, message id, no properties
    return 1 + max(1, -(-remaining.bit_length() // 7)) + remaining


def code_of(reason: ReasonCode) -> str:
    """Return the stable code of a reason: `not_authorized`, `server_busy`, `quota_exceeded`."""
    code = str(reason).lower().replace(" ", "_")
    known = {
        "bad_user_name_or_password": "not_authorized",
        "unsupported_protocol_version": "unsupported_protocol",
    }
    return known.get(code, code)


def reason_of(error: OSError) -> str:
    """Return the stable code of a network error: `dns refused timeout unreachable tls ...`."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return "tls"
    if isinstance(error, paho.WebsocketConnectionError):
        return "websocket"
    if isinstance(error, socket.gaierror):
        return "dns"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "unreachable" if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) else "closed"


def _without_delay(_client: paho.Client, _userdata: Any, sock: Any) -> None:
    # Nagle's algorithm would hold an event back until the acknowledgement of the one before. The option is
    # set through a copy of the file descriptor, since paho's websocket has no `setsockopt`.
    with socket.socket(fileno=os.dup(sock.fileno())) as copy:
        copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
