"""What is known of the way to the broker: for the log, for whoever asks, and for whoever wants to be told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge.delivery.mqtt.connection import REMEDIES
from edge.delivery.mqtt.publish_probe import Verdict
from edge.hosts import Address

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """Whether the broker is there; if not, why (`connecting dns refused timeout tls not_authorized ...`).

    `since_ns` is monotonic, and of the last change of `connected`; `failures` counts attempts since then.
    `protocol` is `5`, `3.1.1` or empty, `address` the broker that was tried last. `publishing` is `refused`
    when the broker does not take what we publish, `unknown` while that cannot be told.
    """

    connected: bool
    reason: str
    since_ns: int
    protocol: str = ""
    failures: int = 0
    address: str = ""
    publishing: Verdict = "unknown"


class ConnectionLog:
    """Keeps the state, logs each fault of each broker once until a connection succeeds, and calls back.

    `on_state` is called when anything but the count of failures has changed. Used by one thread.
    """

    def __init__(self, on_state: Callable[[ConnectionState], None] | None) -> None:
        self.state = ConnectionState(False, "connecting", time.monotonic_ns())
        self._on_state = on_state
        self._told: dict[Address, str] = {}

    def connected(self, address: Address, protocol: str) -> None:
        """Note that a broker accepted us."""
        self._told.clear()
        log.info("mqtt.host %s: connected, MQTT %s", address, protocol)
        self._set(ConnectionState(True, "connected", time.monotonic_ns(), protocol, address=str(address)))

    def lost(self, address: Address, reason: str, *, is_closing: bool) -> None:
        """Note that a broker did not accept us, or that the connection to it ended."""
        before = self.state
        if not is_closing and self._told.get(address) != reason:
            log.warning("mqtt.host %s: %s; %s", address, reason, REMEDIES.get(reason, "trying again"))
        self._told[address] = reason
        since_ns = time.monotonic_ns() if before.connected else before.since_ns
        failures = 1 if before.connected else before.failures + 1
        self._set(ConnectionState(False, reason, since_ns, failures=failures, address=str(address)))

    def publishing(self, verdict: Verdict) -> None:
        """Note whether the broker takes what we publish."""
        if verdict != self.state.publishing:
            self._set(replace(self.state, publishing=verdict))

    def _set(self, state: ConnectionState) -> None:
        before, self.state = self.state, state
        if self._on_state is None or replace(before, failures=0) == replace(state, failures=0):
            return
        try:
            self._on_state(state)
        except Exception:  # whoever listens must not end the connection
            log.exception("mqtt: on_state failed")
