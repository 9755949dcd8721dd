"""Waits and limits of the MQTT client that no user needs to configure; tests pass other ones."""

from __future__ import annotations

from dataclasses import dataclass

from paho.mqtt.enums import MQTTProtocolVersion

from edge.backoff import MAX_S

V5 = MQTTProtocolVersion.MQTTv5
V311 = MQTTProtocolVersion.MQTTv311


@dataclass(frozen=True, slots=True)
class Tuning:
    """One set of waits and limits, passed from the publisher to the parts that use them."""

    protocols: tuple[MQTTProtocolVersion, ...] = (V5, V311)  # in the order in which they are tried
    connect_timeout_s: float = 5.0  # for TCP and TLS, and again for the CONNACK
    # Uniform at random: all devices lose a broker at one moment and must not reconnect at one moment.
    first_pause_s: tuple[float, float] = (0.1, 3.0)
    max_pause_s: float = MAX_S
    stable_s: float = 10.0  # a connection that lasts this long resets the backoff
    calm_s: float = 90.0  # without another client's takeover; longer than that client pauses
    window: int = 64  # unacknowledged messages at most; a broker may ask for fewer
    no_ack_s: float = 30.0  # without any acknowledgement the connection counts as lost
    # mosquitto acknowledges first and writes to its disk right after, even with `autosave_on_changes`: killed
    # in between, it loses what it acknowledged. After this time an acknowledgement is safe.
    confirm_s: float = 1.0
    probe_s: float = 5.0  # for the probe to come back; a cluster elects a new leader in two or three seconds
    size_losses: int = 5  # connections in a row that end with a probe of one size in flight show a limit
    size_pause_s: tuple[float, float] = (0.2, 1.0)  # uniform at random, before such a probe
    limit_retry_s: float = 600.0  # afterwards a new connection tries the limit again
    max_incoming_bytes: int = 256 << 10  # of one message from the broker; what a device reads is far smaller
    max_live: int = 256  # unsent messages in memory that are neither retained nor in the outbox


TUNING = Tuning()  # of every device
