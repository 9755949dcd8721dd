"""Finds out how large a message may be where no maximum is stated: MQTT 3.1.1, or a proxy."""

from __future__ import annotations

import logging
import random
import secrets
from dataclasses import dataclass, field

from edge.delivery import messages
from edge.delivery.mqtt.connection import BrokerLimits, packet_bytes
from edge.delivery.mqtt.tuning import TUNING, Tuning
from edge.hosts import Address
from edge.values import encode

log = logging.getLogger(__name__)

FLOOR_BYTES = 512  # no broker refuses a packet of this size
UNLIMITED_BYTES = BrokerLimits().maximum_packet_bytes
FOREIGN_CAUSES = {"session_taken_over", "incoming_too_large"}  # another client ends the connection


@dataclass(slots=True)
class _Sizes:
    """What is known of one broker; sizes are those of packets, in bytes."""

    proven: int = FLOOR_BYTES  # the largest that was acknowledged
    limit: int = UNLIMITED_BYTES
    limited_s: float = 0.0  # when `limit` was found
    is_cautious: bool = False
    broken: list[int] = field(default_factory=list)  # large probes with which connections in a row ended
    small_losses: int = 0  # connections in a row that ended with a small probe


class SizeTrial:
    """Blames sizes, not messages: probes of the same size go first while a connection is in doubt.

    A connection that ends with a message in flight larger than any that this broker has acknowledged puts
    the broker in doubt. On the next connections larger messages wait (`holds`) until everything else is
    acknowledged. Then small probes are sent, and after them a probe of the size of the smallest waiting
    message, each alone. If it is acknowledged, messages of its size are sent. When `tuning.size_losses`
    connections in a row end with such a probe in flight, `limit_bytes` is below its size.

    A broker or a link that fails for another reason does not reach that number: the pause before the probes
    is random, each loss adds a small probe, and a small probe in flight at the end clears the losses. A
    limit is tried again on the first connection after `tuning.limit_retry_s`.
    Used by one thread.
    """

    def __init__(self, topic: str, *, tuning: Tuning = TUNING) -> None:
        self._topic = topic
        self._tuning = tuning
        self._known: dict[Address, _Sizes] = {}
        self._sizes = _Sizes()  # of the broker of this connection
        self._held = 0  # size of the smallest message that waits, 0 if none does
        self._due_s = float("inf")  # when the next probe may be sent
        self._passed = 0  # probes of this connection that were acknowledged
        self._probe_bytes = 0  # size of the probe in flight, 0 if there is none

    @property
    def limit_bytes(self) -> int:
        """The largest packet that the broker takes, as far as connections that ended show it."""
        return self._sizes.limit

    @property
    def is_probing(self) -> bool:
        """Whether a probe is in flight, beside which nothing may be sent."""
        return self._probe_bytes > 0

    @property
    def is_waiting(self) -> bool:
        """Whether a probe is due soon."""
        return self._due_s < float("inf")

    def begin(self, address: Address, *, now_s: float) -> None:
        """Start again on a new connection."""
        self._sizes = sizes = self._known.setdefault(address, _Sizes())
        self._held, self._due_s, self._passed, self._probe_bytes = 0, float("inf"), 0, 0
        if sizes.limit < UNLIMITED_BYTES and now_s - sizes.limited_s >= self._tuning.limit_retry_s:
            # One more loss is enough to find the limit again.
            sizes.broken = [sizes.limit + 1] * (self._tuning.size_losses - 1)
            sizes.limit, sizes.is_cautious = UNLIMITED_BYTES, True

    def holds(self, size: int) -> bool:
        """Return whether a message of this size has to wait for a probe."""
        if not self._sizes.is_cautious or size <= self._sizes.proven:
            return False
        self._held = min(self._held or size, size)
        return True

    def next_probe(self, now_s: float) -> bytes | None:
        """Return the payload of a probe to be sent now; called while nothing is in flight."""
        if not self._held:
            if self._passed:
                self._sizes.is_cautious = False
            return None
        if not self.is_waiting:
            self._due_s = now_s + random.uniform(*self._tuning.size_pause_s)
        if now_s < self._due_s:
            return None
        is_small = self._passed <= len(self._sizes.broken)
        payload = probe_of_size(self._topic, 0 if is_small else self._held)
        self._probe_bytes = packet_bytes(self._topic, payload)
        return payload

    def handle_ack(self, size: int) -> bool:
        """Note that a message of this size was acknowledged; return whether it was the probe."""
        sizes = self._sizes
        sizes.proven = max(sizes.proven, size)
        if not self.is_probing:
            return False
        self._probe_bytes = 0
        self._passed += 1
        sizes.small_losses = 0
        if size >= self._held:
            self._held = 0
            sizes.broken.clear()
        return True

    def connection_lost(self, reason: str, unacknowledged: list[int], *, now_s: float) -> None:
        """Note why the connection ended, and the sizes of the messages that were not acknowledged."""
        sizes = self._sizes
        if reason in FOREIGN_CAUSES:
            return
        if not self.is_probing:
            self._doubt(max(unacknowledged, default=0))
            return
        if self._probe_bytes <= sizes.proven:  # a small one: size is not the cause
            sizes.broken.clear()
            sizes.small_losses += 1
            # An access list may forbid the topic of the probes.
            sizes.is_cautious = sizes.small_losses < self._tuning.size_losses
            return
        sizes.broken.append(self._probe_bytes)
        if reason == "packet_too_large" or len(sizes.broken) >= self._tuning.size_losses:
            sizes.limit, sizes.limited_s = max(sizes.broken) - 1, now_s
            sizes.broken.clear()

    def _doubt(self, size: int) -> None:
        sizes = self._sizes
        if size > sizes.proven and not sizes.is_cautious:
            sizes.is_cautious = True
            sentence = "mqtt: a message of %d bytes was not acknowledged; probes are sent before it"
            log.info(sentence, size)


def probe_of_size(topic: str, size: int) -> bytes:
    """Return a probe whose packet has `size` bytes; the smallest probe if that is larger."""
    token = secrets.token_hex(8)
    payload = encode(messages.probe(token))
    token += "0" * (size - packet_bytes(topic, payload))
    payload = encode(messages.probe(token))
    while packet_bytes(topic, payload) > size and len(token) > 16:  # the length field has grown too
        token = token[:-1]
        payload = encode(messages.probe(token))
    return payload
