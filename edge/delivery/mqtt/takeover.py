"""Recognises another client with the id of this device: the broker ends each connection for the other."""

from __future__ import annotations

from edge.delivery.mqtt.tuning import TUNING, Tuning
from edge.hosts import Address

MAX_SENT = 256  # statuses of this process that are recognised
TAKEOVERS = 2  # connections in a row that find a foreign status
SHORT_CONNECTIONS = 5  # in a row
BROKER_IS_DOWN = {"refused", "timeout", "dns", "unreachable"}
DUPLICATE_ID, UNSTABLE = "duplicate_id", "unstable"


class TakeoverDetector:
    """Finds the reason why connections end soon: another client with this device's id, or not known.

    The id is a duplicate when the broker gives that reason code, or when the retained status that a new
    connection finds comes from another process, twice in a row. Foreign is a status that this process did
    not send, after it has sent one to that broker; one that was there before does not count, since a broker
    that crashes may restore it. A broker that was down in between has ended the connection by itself.
    `fault` is `duplicate_id`, `unstable` after several short connections without a known reason, or empty.
    It ends when a connection lasts `tuning.calm_s`, longer than the other client pauses. Used by one thread.
    """

    def __init__(self, *, tuning: Tuning = TUNING) -> None:
        self._calm_s = tuning.calm_s
        self._sent: dict[bytes, None] = {}  # the newest statuses of this process, in order
        self._acknowledged: set[Address] = set()  # brokers that have a status of this process
        self._earlier: dict[Address, bytes] = {}  # the status that was there before, by broker
        self._address: Address | None = None
        self._takeovers = 0
        self._short = 0  # connections in a row
        self._is_counted = False  # whether this connection counts in `_takeovers`
        self._calm_from_s = 0.0  # the connection, or the last sign of another client

    @property
    def fault(self) -> str:
        """The stable code of the fault, or an empty string."""
        if self._takeovers >= TAKEOVERS:
            return DUPLICATE_ID
        return UNSTABLE if self._short >= SHORT_CONNECTIONS else ""

    def begin(self, address: Address, *, now_s: float) -> None:
        """Start on a new connection."""
        self._address, self._is_counted, self._calm_from_s = address, False, now_s

    def note_sent(self, status: bytes) -> None:
        """Note a status that this process sends."""
        self._sent[status] = None
        if len(self._sent) > MAX_SENT:
            del self._sent[next(iter(self._sent))]

    def note_acknowledged(self) -> None:
        """Note that the broker has a status of this process."""
        if self._address is not None:
            self._acknowledged.add(self._address)

    def handle_status(self, status: bytes, *, retained: bool, now_s: float) -> None:
        """Note a message on the topic of the status; empty ones clear the topic."""
        address = self._address
        if address is None or not status or status in self._sent:
            return
        if address not in self._acknowledged:
            self._earlier[address] = status
        elif not retained:
            self._takeovers, self._calm_from_s = TAKEOVERS, now_s
        elif status != self._earlier.get(address) and not self._is_counted:
            self._is_counted = True
            self._takeovers += 1

    def check(self, now_s: float) -> None:
        """End the fault when the connection has lasted long enough."""
        if now_s - self._calm_from_s >= self._calm_s:
            self._takeovers = self._short = 0

    def connection_lost(self, reason: str, *, is_explained: bool, now_s: float) -> str:
        """Return why the connection ended, as far as it is known now.

        `is_explained` is whether the broker refused a message: some close the connection then.
        """
        self.check(now_s)
        if reason == "session_taken_over":
            self._takeovers = TAKEOVERS
        is_short = reason == "closed" and not is_explained and now_s - self._calm_from_s < self._calm_s
        self._short = self._short + 1 if is_short else 0
        return "session_taken_over" if reason == "closed" and self.fault == DUPLICATE_ID else reason

    def connect_failed(self, reason: str) -> None:
        """Note why there was no connection."""
        if reason in BROKER_IS_DOWN and self.fault != DUPLICATE_ID:
            self._takeovers = 0
