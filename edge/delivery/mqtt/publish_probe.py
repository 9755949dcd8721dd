"""Finds out whether an MQTT 3.1.1 broker accepts what the device publishes: its PUBACK has no reason code."""

from __future__ import annotations

import logging
import secrets
from typing import Literal

from edge.delivery import messages
from edge.delivery.mqtt.connection import Connection, Message
from edge.delivery.mqtt.tuning import TUNING, V5, Tuning
from edge.log_once import LogOnce
from edge.values import encode

log = logging.getLogger(__name__)

MAX_LOSSES = 2

Verdict = Literal["unknown", "allowed", "refused"]


class PublishProbe:
    """At each connect: subscribe to `topic`, publish a random token there, and wait for it to come back.

    `verdict` is `allowed` once the token is back. It is `refused` when the token is not back after `probe_s`
    although the broker granted the subscription; a token that comes later still counts. It is `unknown`
    until then, and where the subscription was refused: a device that may write but not read is set up
    correctly, and the probe cannot check it. MQTT 5 needs no probe, since each PUBACK has a reason code.
    Events never wait for the probe. Some brokers close the connection on a refused message: after two
    connections in a row that ended during the probe it is not sent any more.
    """

    def __init__(self, topic: str, *, tuning: Tuning = TUNING) -> None:
        self.verdict: Verdict = "unknown"
        self._topic = topic
        self._probe_s = tuning.probe_s
        self._token = ""
        self._deadline_s = float("inf")
        self._losses = 0
        self._log_once = LogOnce(log)

    @property
    def is_waiting(self) -> bool:
        """Whether the token is on its way."""
        return self._deadline_s < float("inf")

    def begin(self, connection: Connection) -> None:
        """Start again on a new connection."""
        self._deadline_s = float("inf")
        is_needed = connection.protocol != V5 and self._losses < MAX_LOSSES
        self._token = secrets.token_hex(8) if is_needed else ""
        if self._token:
            # QoS 0 is enough to receive the token, and costs a NATS server no consumer.
            connection.subscribe(self._topic, qos=0)
        if self.verdict == "allowed" or not self._token:
            self.verdict = "unknown"  # `refused` is kept until there is a new result

    def handle_suback(self, connection: Connection, topic: str, refusal: str | None, *, now_s: float) -> bool:
        """Publish the token once its topic is subscribed; return whether the answer was for the probe."""
        if topic != self._topic:
            return False
        if refusal:
            self.verdict = "unknown"
            self._report(
                "unreadable",
                "mqtt: reading %s is not allowed, so that a refused publication would go unnoticed",
            )
        else:
            connection.publish(self._topic, encode(messages.probe(self._token)), qos=1)
            self._deadline_s = now_s + self._probe_s
        return True

    def handle_message(self, connection: Connection, message: Message) -> bool:
        """Note the token's return; return whether the message was for the probe."""
        if message.topic != self._topic:
            return False
        if self._token and self._token.encode() in message.payload:
            connection.unsubscribe(self._topic)
            self._deadline_s = float("inf")
            self._losses = 0
            self.verdict = "allowed"
            if self._log_once.clear(self._topic):
                log.info("mqtt: messages published to %s arrive", self._topic)
        return True

    def check(self, now_s: float) -> None:
        """Conclude `refused` when the token is overdue."""
        if now_s < self._deadline_s:
            return
        self._deadline_s = float("inf")
        self._losses = 0
        self.verdict = "refused"
        self._report(
            "refused",
            "mqtt: the probe published to %s did not come back: the broker seems to drop what this device "
            "publishes, without an error; allow it to write every topic below its own, and to read the probe",
        )

    def connection_lost(self) -> None:
        """Note that the connection ended."""
        if not self.is_waiting:
            return
        self._losses += 1
        self._deadline_s = float("inf")
        if self._losses == MAX_LOSSES:
            self.verdict = "unknown"
            self._report(
                "closed", "mqtt: the broker closes the connection on %s, which is not published any more"
            )

    def _report(self, reason: str, sentence: str) -> None:
        level = logging.WARNING if reason == "refused" else logging.INFO
        self._log_once.report(self._topic, reason, sentence, self._topic, level=level)
