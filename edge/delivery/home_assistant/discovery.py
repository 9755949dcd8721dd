"""Announces the device to Home Assistant, in one retained payload, and removes the announcement."""

from __future__ import annotations

import logging
import random
import threading
import time

from edge.config import read_password
from edge.delivery.home_assistant.entities import discovery_payload
from edge.delivery.mqtt.connection import ConnectionFailed, Connector
from edge.delivery.publisher import Publisher
from edge.errors import BrokerError
from edge.settings import Config
from edge.values import encode

log = logging.getLogger(__name__)

BIRTH_SPREAD_S = 5.0  # many devices must not answer a restarted Home Assistant at the same moment
CLEAR_TIMEOUT_S = 10.0


def discovery_topic(config: Config) -> str:
    """Return the topic of the announcement."""
    return f"{config.mqtt.discovery_prefix}/device/{config.device.id}/config"


class DiscoveryPublisher:
    """Keeps the announcement in the broker; `start` once, before the publisher connects.

    It is sent at every connect, as all retained topics are, and again 0 to 5 s after Home Assistant
    publishes `online`. After `emotion-edge discovery remove` it is not sent again until a restart.
    """

    def __init__(
        self, config: Config, publisher: Publisher, *, birth_spread_s: float = BIRTH_SPREAD_S
    ) -> None:
        self._topic = discovery_topic(config)
        self._birth_topic = f"{config.mqtt.discovery_prefix}/status"
        self._payload = encode(discovery_payload(config))
        self._publisher = publisher
        self._birth_spread_s = birth_spread_s
        self._is_withdrawn = False
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Announce, then subscribe to the birth message of Home Assistant and to a removal."""
        self._publisher.publish_retained(self._topic, self._payload)
        self._publisher.subscribe_topic(self._birth_topic, self._on_birth)
        self._publisher.subscribe_topic(self._topic, self._on_announcement)

    def close(self) -> None:
        """Cancel an announcement that is due."""
        with self._lock:
            self._is_withdrawn = True
            if self._timer is not None:
                self._timer.cancel()

    def _on_birth(self, payload: bytes, retained: bool) -> None:
        # A retained `online` is from before the connect, which has sent the announcement already.
        if retained or payload != b"online":
            return
        with self._lock:
            if self._is_withdrawn or (self._timer is not None and self._timer.is_alive()):
                return
            self._timer = threading.Timer(random.uniform(0, self._birth_spread_s), self._announce)
            self._timer.daemon = True
            self._timer.start()

    def _announce(self) -> None:
        with self._lock:
            if not self._is_withdrawn:
                self._publisher.publish_retained(self._topic, self._payload)

    def _on_announcement(self, payload: bytes, _retained: bool) -> None:
        with self._lock:
            if payload or self._is_withdrawn:
                return
            self._is_withdrawn = True
            log.info("%s: removed at the broker; announced again after a restart", self._topic)
            # Otherwise the next connect would send it again.
            self._publisher.publish_retained(self._topic, b"")


def clear_discovery(config: Config) -> None:
    """Remove the device from Home Assistant; raise `BrokerError` unless the broker confirms it."""
    topic = discovery_topic(config)
    connector = Connector(
        config.mqtt, f"emotion-edge-{config.device.id}-discovery", read_password(config.mqtt)
    )
    try:
        connection = connector.open()
    except ConnectionFailed as error:
        raise BrokerError(
            f"mqtt.host {config.mqtt.host}: {error}; `emotion-edge discovery remove` needs the broker"
        ) from None
    connection.publish(topic, b"", qos=1, retain=True)
    deadline_s = time.monotonic() + CLEAR_TIMEOUT_S
    while not connection.acked and connection.lost is None and time.monotonic() < deadline_s:
        connection.pump(0.1)
    refusal = connection.acked[0][1] if connection.acked else connection.lost or "no_ack"
    connection.disconnect()
    if refusal:
        raise BrokerError(f"{topic}: not removed ({refusal}); check the broker's access list")
