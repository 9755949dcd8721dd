"""An ordinary MQTT client that only listens: messages as they come, each event once."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from edge.delivery.consumer import Consumer
from edge.delivery.mqtt.connection import REMEDIES, Connection, ConnectionFailed, Connector, Message
from edge.settings import MqttSettings

log = logging.getLogger(__name__)

RETRY_S = 1.0
# What waiting does not cure: somebody has to change the configuration here or at the broker.
LASTING = ("not_authorized", "unsupported_protocol", "tls", "banned", "client_identifier_not_valid")


def listen(settings: MqttSettings, *topics: str, password: str | None = None) -> Listener:
    """Subscribe to topic filters at QoS 1 and return the messages to be iterated over.

    with closing(listen(settings, "emotion/+/event", "emotion/+/availability")) as messages:
        for message in messages:
            print(message.topic, message.payload)
    """
    return Listener(settings, *topics, password=password)


class Listener:
    """Messages of some topics, in order; connects again by itself, and misses what is sent meanwhile.

    A message on a topic that ends in `/event` is yielded once for each CloudEvents `id`, with what
    `edge.delivery.consumer` knows of those missing before it. `refusal` says why no broker lets us in, or
    lets us read any of the topics; it is empty otherwise, also while none is there. The connection is served
    by the thread that iterates; `close` may be called from any other and ends the iteration.
    """

    def __init__(self, settings: MqttSettings, *topics: str, password: str | None = None) -> None:
        self._topics = topics
        self._dial = Connector(settings, f"emotion-edge-listen-{os.getpid()}-{id(self):x}", password)
        self._connection: Connection | None = None
        self._unconfirmed = len(topics)
        self._messages: deque[Message] = deque()
        self._consumer = Consumer()
        self._reason = ""
        self._refusals = 0  # by one broker after the other
        self._granted = 0
        self.refusal = ""
        self._closing = threading.Event()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()  # held while the connection is served
        self._wake_lock = threading.Lock()

    def __iter__(self) -> Iterator[Message]:
        while not self._closing.is_set():
            if (message := self.receive(60.0)) is not None:
                yield message

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, or None after `timeout_s` or when closed."""
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            while not self._messages and not self._closing.is_set() and time.monotonic() < deadline_s:
                self._serve(deadline_s)
            return self._messages.popleft() if self._messages and not self._closing.is_set() else None

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the broker has confirmed every subscription; tell whether it did."""
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            while self._unconfirmed > 0 and not self._closing.is_set() and time.monotonic() < deadline_s:
                self._serve(deadline_s)
            return self._unconfirmed <= 0

    def close(self) -> None:
        """Disconnect and end the iteration; may be called twice."""
        self._closing.set()
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        with self._lock, self._wake_lock:
            if self._connection is not None:
                self._connection.disconnect()
                self._connection = None
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def _serve(self, deadline_s: float) -> None:
        if self._connection is None and not self._connect():
            self._closing.wait(min(RETRY_S, max(0.0, deadline_s - time.monotonic())))
            return
        assert self._connection is not None, "just connected"
        connection = self._connection
        connection.pump(min(1.0, max(0.0, deadline_s - time.monotonic())), self._wake)
        while connection.subscribed:
            self._unconfirmed -= 1
            topic, refusal = connection.subscribed.popleft()
            if refusal:
                log.warning("mqtt.host %s: %s refused (%s)", connection.address, topic, refusal)
            self._granted += not refusal
            if self._unconfirmed == 0 and not self._granted:
                self.refusal = f"mqtt.host {connection.address}: no topic may be read; check the access list"
        while connection.received:
            message = connection.received.popleft()
            if (new := self._unless_repeated(message)) is not None:
                self._messages.append(new)
        if connection.lost is not None:
            self._note(connection.lost)
            connection.abort()
            self._connection = None
            self._unconfirmed = len(self._topics)

    def _connect(self) -> bool:
        try:
            self._connection = self._dial.open()
        except ConnectionFailed as error:
            self._note(error.reason)
            self._refusals = self._refusals + 1 if error.reason in LASTING else 0
            if self._refusals >= self._dial.round:
                remedy = REMEDIES.get(error.reason, "the broker's log says why")
                self.refusal = f"mqtt.host {self._dial.address}: {error.reason}; {remedy}"
            return False
        self._reason, self.refusal, self._refusals, self._granted = "", "", 0, 0
        self._connection.subscribe(*self._topics)
        return True

    def _note(self, reason: str) -> None:
        if reason != self._reason:
            log.warning(
                "mqtt.host %s: %s; %s", self._dial.address, reason, REMEDIES.get(reason, "trying again")
            )
        self._reason = reason

    def _unless_repeated(self, message: Message) -> Message | None:
        if not message.topic.endswith("/event"):
            return message
        try:
            event = self._consumer.take(message.payload)
        except ValueError:  # not an event of ours: let it through
            return message
        return None if event is None else replace(message, missing=event.missing)
