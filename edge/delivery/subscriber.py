"""An MQTT client that only subscribes: messages as they arrive, each event once."""

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
from edge.delivery.mqtt.wakeup import WakeUp
from edge.log_once import LogOnce
from edge.settings import MqttSettings

log = logging.getLogger(__name__)

RETRY_S = 1.0
# Failures that do not pass by themselves: the configuration here or at the broker has to change.
LASTING = ("not_authorized", "unsupported_protocol", "tls", "banned", "client_identifier_not_valid")


def listen(settings: MqttSettings, *topics: str, password: str | None = None) -> Listener:
    """Subscribe to topic filters at QoS 1 and return an iterable of the messages.

    with closing(listen(settings, "emotion/+/event", "emotion/+/availability")) as messages:
        for message in messages:
            print(message.topic, message.payload)
    """
    return Listener(settings, *topics, password=password)


class Listener:
    """Messages of some topics, in order; reconnects by itself, and misses what is sent meanwhile.

    A message on a topic that ends in `/event` is yielded once for each CloudEvents `id`, with the number of
    events missing before it, from `edge.delivery.consumer`. `refusal` is the reason why every broker refuses
    the connection, or all of the topics; it is empty otherwise, also while no broker is reachable. The
    connection is served by the thread that iterates; any thread may `close`, which ends the iteration.
    """

    def __init__(self, settings: MqttSettings, *topics: str, password: str | None = None) -> None:
        self.refusal = ""
        self._topics = topics
        self._connector = Connector(settings, f"emotion-edge-listen-{os.getpid()}-{id(self):x}", password)
        self._connection: Connection | None = None
        self._answers: list[str | None] = []  # to the subscriptions: None, or why one was refused
        self._messages: deque[Message] = deque()
        self._consumer = Consumer()
        self._log_once = LogOnce(log)
        self._refusals = 0  # by one broker after the other
        self._closing = threading.Event()
        self._wake = WakeUp()
        self._lock = threading.Lock()  # held while the connection is served

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
        """Wait until the broker has answered every subscription; return whether it did."""
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            while not self._is_answered and not self._closing.is_set() and time.monotonic() < deadline_s:
                self._serve(deadline_s)
            return self._is_answered

    def close(self) -> None:
        """Disconnect and end the iteration; may be called twice."""
        self._closing.set()
        self._wake.set()
        with self._lock:
            if self._connection is not None:
                self._connection.disconnect()
                self._connection = None
            self._wake.close()

    @property
    def _is_answered(self) -> bool:
        return len(self._answers) >= len(self._topics)

    def _serve(self, deadline_s: float) -> None:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        if connection is None:
            self._closing.wait(min(RETRY_S, max(0.0, deadline_s - time.monotonic())))
            return
        connection.pump(min(1.0, max(0.0, deadline_s - time.monotonic())), self._wake)
        while connection.subscribed:
            topic, refusal = connection.subscribed.popleft()
            self._answers.append(refusal)
            if refusal:
                log.warning("mqtt.host %s: %s refused (%s)", connection.address, topic, refusal)
            if self._is_answered and all(self._answers):
                self.refusal = f"mqtt.host {connection.address}: no topic may be read; check the access list"
        while connection.received:
            message = connection.received.popleft()
            if (new := self._unless_repeated(message)) is not None:
                self._messages.append(new)
        if connection.lost is not None:
            self._log_fault(connection.lost)
            connection.abort()
            self._connection = None
            self._answers.clear()

    def _connect(self) -> Connection | None:
        try:
            connection = self._connector.open()
        except ConnectionFailed as error:
            self._log_fault(error.reason)
            self._refusals = self._refusals + 1 if error.reason in LASTING else 0
            if self._refusals >= self._connector.brokers:
                remedy = REMEDIES.get(error.reason, "see the broker's log")
                self.refusal = f"mqtt.host {self._connector.address}: {error.reason}; {remedy}"
            return None
        self._log_once.clear_all()
        self.refusal, self._refusals = "", 0
        connection.subscribe(*self._topics)
        return connection

    def _log_fault(self, reason: str) -> None:
        remedy = REMEDIES.get(reason, "trying again")
        self._log_once.report(
            "broker", reason, "mqtt.host %s: %s; %s", self._connector.address, reason, remedy
        )

    def _unless_repeated(self, message: Message) -> Message | None:
        if not message.topic.endswith("/event"):
            return message
        try:
            event = self._consumer.take(message.payload)
        except ValueError:  # not a CloudEvent: pass it on as it is
            return message
        return None if event is None else replace(message, missing=event.missing)
