"""Finds out under MQTT 3.1.1, where a broker cannot say no, whether it takes what this device publishes."""

from __future__ import annotations

import logging
import secrets
from typing import Literal

from edge.delivery import messages
from edge.delivery.mqtt.connection import V5, Connection, Message
from edge.values import encode

log = logging.getLogger(__name__)

PROBE_S = 5.0  # a cluster that elects a new leader takes two or three
MAX_LOSSES = 2

Verdict = Literal["unknown", "allowed", "refused"]


class PublishProbe:
    """At each connect: subscribe to `topic`, publish a random token there, and wait for it to come back.

    `verdict` is `allowed` once it came, `refused` when it did not within `PROBE_S` although the broker
    granted the subscription, and `unknown` until then, and where the subscription was refused: a device that
    may write and not read is in order, and nothing can be told. MQTT 5 needs no probe, since there each
    PUBACK has a reason. Events never wait for any of this. A token that comes late still counts. Some brokers
    hang up on what they refuse: where the probe ended two connections in a row it is not sent again.
    """

    def __init__(self, topic: str) -> None:
        self.verdict: Verdict = "unknown"
        self._topic = topic
        self._token = ""
        self._deadline_s = float("inf")
        self._told = ""
        self._losses = 0

    @property
    def is_waiting(self) -> bool:
        """Tell whether the token is awaited."""
        return self._deadline_s < float("inf")

    def begin(self, connection: Connection) -> None:
        """Start anew on a new connection."""
        self._deadline_s = float("inf")
        is_needed = connection.protocol != V5 and self._losses < MAX_LOSSES
        self._token = secrets.token_hex(8) if is_needed else ""
        if self._token:
            # QoS 0 is enough to hear of it, and costs a NATS server no consumer.
            connection.subscribe(self._topic, qos=0)
        if self.verdict == "allowed" or not self._token:
            self.verdict = "unknown"  # while `refused` stands until there is a better answer

    def take_suback(self, connection: Connection, topic: str, refusal: str | None, *, now_s: float) -> bool:
        """Publish the token once its topic is subscribed; tell whether the answer was for us."""
        if topic != self._topic:
            return False
        if refusal:
            self.verdict = "unknown"
            self._tell(
                "unreadable",
                "mqtt: reading %s is not allowed, so that a refused publication would go unnoticed",
            )
        else:
            connection.publish(self._topic, encode(messages.probe(self._token)), qos=1)
            self._deadline_s = now_s + PROBE_S
        return True

    def lose(self) -> None:
        """Note that the connection ended."""
        if not self.is_waiting:
            return
        self._losses += 1
        self._deadline_s = float("inf")
        if self._losses == MAX_LOSSES:
            self.verdict = "unknown"
            self._tell("hung up", "mqtt: the broker hangs up on %s, which is not published any more")

    def take_message(self, connection: Connection, message: Message) -> bool:
        """Note the token's return; tell whether the message was for us."""
        if message.topic != self._topic:
            return False
        if self._token and self._token.encode() in message.payload:
            connection.unsubscribe(self._topic)
            self._deadline_s = float("inf")
            self._losses = 0
            self.verdict = "allowed"
            self._tell("allowed", "mqtt: what is published to %s arrives" if self._told else "")
        return True

    def watch(self, now_s: float) -> None:
        """Notice that the token does not come."""
        if now_s < self._deadline_s:
            return
        self._deadline_s = float("inf")
        self._losses = 0
        self.verdict = "refused"
        self._tell(
            "refused",
            "mqtt: the probe published to %s did not come back: the broker seems to refuse, without a word, "
            "what this device publishes; let it write everything below its own topic, and read the probe",
        )

    def _tell(self, what: str, sentence: str) -> None:
        if sentence and what != self._told:
            log.log(logging.WARNING if what == "refused" else logging.INFO, sentence, self._topic)
            self._told = what
