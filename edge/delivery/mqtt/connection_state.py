"""The state of the connection to the broker, for the log, the page, `doctor` and the status topic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from edge.delivery.mqtt.connection import REMEDIES
from edge.delivery.mqtt.publish_probe import Verdict
from edge.delivery.mqtt.takeover import DUPLICATE_ID, UNSTABLE
from edge.hosts import Address
from edge.log_once import LogOnce

log = logging.getLogger(__name__)

NO_RETAIN = (
    "the broker keeps no retained messages, so that new subscribers wait for the next state; "
    + REMEDIES["retain_not_supported"]
)
TAKEOVER = {
    DUPLICATE_ID: REMEDIES["session_taken_over"],
    UNSTABLE: "connections end soon after they begin: the broker fails (see its log), or another client uses "
    "this device.id",
}


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """Whether a broker is connected; if not, why (`connecting dns refused timeout tls not_authorized ...`).

    `since_ns` is the monotonic time at which `connected` last changed; `failures` counts attempts since then.
    `protocol` is `5`, `3.1.1` or empty; `address` is the broker that was tried last. `publishing` is
    `refused` when the broker does not accept what the device publishes, `unknown` while that is not known.
    `faults` has a sentence for each stable code: `packet_too_large retain_not_supported` while the broker
    takes only a part of what the device publishes, `duplicate_id unstable` while connections end soon. They
    are kept while the connection is lost.
    """

    connected: bool
    reason: str
    since_ns: int
    protocol: str = ""
    failures: int = 0
    address: str = ""
    publishing: Verdict = "unknown"
    faults: Mapping[str, str] = field(default_factory=dict)


class ConnectionLog:
    """Keeps the state and the refused topics, logs each fault once, and calls `on_state` on a change.

    A fault of a broker is logged again after a connection succeeded. `on_state` is not called when only the
    count of failures changed. Used by the MQTT thread; `state` may be read by any thread.
    """

    def __init__(self, on_state: Callable[[ConnectionState], None] | None) -> None:
        self.state = ConnectionState(False, "connecting", time.monotonic_ns())
        self.refused_topics: dict[str, str] = {}  # full topic: why the broker refused its last message
        self._has_retain = True
        self._takeover = ""  # a key of `TAKEOVER`, or empty
        self._no_retain = LogOnce(log)  # by address
        self._too_large: dict[str, str] = {}  # full topic: the sentence with both sizes
        self._on_state = on_state
        self._faults = LogOnce(log)  # by address
        self._refusals = LogOnce(log)  # by topic

    def report_connected(self, address: Address, protocol: str, *, has_retain: bool = True) -> None:
        """Note that a broker accepted the connection, and whether it keeps retained messages."""
        self._has_retain = has_retain
        if not has_retain:
            self._no_retain.report(address, "retain_not_supported", "mqtt.host %s: %s", address, NO_RETAIN)
        self._faults.clear_all()
        log.info("mqtt.host %s: connected, MQTT %s", address, protocol)
        now_ns = time.monotonic_ns()
        self._set(ConnectionState(True, "connected", now_ns, protocol, address=str(address)))

    def report_lost(self, address: Address, reason: str, *, is_closing: bool) -> None:
        """Note that a broker refused the connection, or that the connection to it ended."""
        before = self.state
        if not is_closing:
            remedy = REMEDIES.get(reason, "trying again")
            self._faults.report(address, reason, "mqtt.host %s: %s; %s", address, reason, remedy)
        since_ns = time.monotonic_ns() if before.connected else before.since_ns
        failures = 1 if before.connected else before.failures + 1
        self._set(ConnectionState(False, reason, since_ns, failures=failures, address=str(address)))

    def report_publishing(self, verdict: Verdict) -> None:
        """Note whether the broker accepts what the device publishes."""
        if verdict != self.state.publishing:
            self._set(replace(self.state, publishing=verdict))

    def report_too_large(self, topic: str, size: int, *, limit: int, is_stated: bool = True) -> None:
        """Note that a message is left out: the broker takes less, as it stated or as connections showed."""
        takes = f"the broker takes {limit}" if is_stated else f"connections end at more than {limit}"
        detail = (
            f"{topic} has {size} bytes, {takes}; raise the maximum packet size of the broker "
            "(mosquitto: max_packet_size)"
        )
        is_new = topic not in self._too_large
        self._too_large[topic] = detail
        if is_new:
            log.warning("mqtt: left out: %s", detail)
        self._set(self.state)

    def report_takeover(self, fault: str) -> None:
        """Note whether another client ends the connections, as `TakeoverDetector` found."""
        if fault != self._takeover:
            self._takeover = fault
            self._set(self.state)

    def report_answer(self, topic: str, refusal: str | None, *, is_logged: bool) -> None:
        """Note that the broker accepted (None) or refused the last message of a topic."""
        if refusal is None:
            self.refused_topics.pop(topic, None)
            self._refusals.clear(topic)
            if self._too_large.pop(topic, None):
                self._set(self.state)
            return
        self.refused_topics[topic] = refusal
        if is_logged:
            sentence = "mqtt: %s refused (%s); check the broker's access list"
            self._refusals.report(topic, refusal, sentence, topic, refusal)

    def _set(self, state: ConnectionState) -> None:
        faults = {}
        if self._too_large:
            faults["packet_too_large"] = next(iter(self._too_large.values()))
        if not self._has_retain:
            faults["retain_not_supported"] = NO_RETAIN
        if self._takeover:
            faults[self._takeover] = TAKEOVER[self._takeover]
        before, self.state = self.state, replace(state, faults=faults)
        if self._on_state is None or replace(before, failures=0) == replace(self.state, failures=0):
            return
        try:
            self._on_state(self.state)
        except Exception:  # the daemon's callback must not end the connection
            log.exception("mqtt: on_state failed")
