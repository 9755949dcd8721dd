"""What happens on one connection, from the first message to its end; everything here is single-threaded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.delivery.mqtt.connection import Connection, Message, packet_bytes
from edge.delivery.mqtt.connection_state import ConnectionLog
from edge.delivery.mqtt.mailbox import Mailbox, Outgoing
from edge.delivery.mqtt.publish_probe import PublishProbe, Verdict
from edge.delivery.mqtt.send_queue import SendQueue
from edge.delivery.mqtt.size_trial import SizeTrial
from edge.delivery.mqtt.takeover import TakeoverDetector
from edge.delivery.mqtt.topics import Topics
from edge.delivery.mqtt.tuning import V5, Tuning

log = logging.getLogger(__name__)

CLOSING_WAIT_S = 0.05
TRIAL_WAIT_S = 0.1  # until a probe of a large message is due
BUSY_WAIT_S = 1.0  # between two checks while an answer is due
# When idle, new work wakes the thread; only the keep-alive and `emotion-edge outbox retry` need the clock.
IDLE_WAIT_S = 5.0
OFFLINE_S = 1.0  # before the deadline, kept for `offline` and its PUBACK


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that waits for its PUBACK; `sequence` is its number in the outbox, 0 if it has none."""

    topic: str
    payload: bytes = b""
    sequence: int = 0
    size: int = 0  # of the packet, in bytes
    sent_s: float = field(default_factory=time.monotonic)


class InFlight:
    """Messages that wait for their PUBACK, by MQTT message id."""

    def __init__(self, on_acked: Callable[[float], None]) -> None:
        self._sent: dict[int, Sent] = {}
        self._on_acked = on_acked  # gets the seconds from sending to the acknowledgement
        self._unanswered = 0  # size of the largest QoS 0 message since the last acknowledgement
        self._progress_s = 0.0  # the last acknowledgement, or when the first message was added

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, mid: int, sent: Sent) -> None:
        """Add a message that was just sent."""
        if not self._sent:
            self._progress_s = sent.sent_s
        self._sent[mid] = sent

    def add_unanswered(self, size: int) -> None:
        """Add a message that gets no PUBACK; the next acknowledgement shows that the broker took it."""
        self._unanswered = max(self._unanswered, size)

    def pop(self, mid: int) -> Sent | None:
        """Remove and return the message that was acknowledged; None if it is unknown."""
        sent = self._sent.pop(mid, None)
        if sent is not None:
            self._progress_s = time.monotonic()
            self._unanswered = 0
            self._on_acked(self._progress_s - sent.sent_s)
        return sent

    def has_topic(self, topic: str) -> bool:
        """Return whether a message of this topic waits."""
        return any(sent.topic == topic for sent in self._sent.values())

    def sizes(self) -> list[int]:
        """Return the size of each packet that the broker may not have taken."""
        return [self._unanswered, *(sent.size for sent in self._sent.values())]

    def is_stalled(self, now_s: float, *, limit_s: float) -> bool:
        """Return whether messages wait and none was acknowledged for `limit_s`."""
        return bool(self._sent) and now_s - self._progress_s > limit_s

    def unsaved(self, topic: str) -> list[Sent]:
        """Return the messages of a topic that are not in the outbox."""
        return [sent for sent in self._sent.values() if sent.topic == topic and not sent.sequence]


class Session:
    """Sends what the mailbox and the outbox hold, and handles what the broker answers, on one connection.

    Order at the start: `status`, the other retained topics, `online`, then the outbox's events. Later,
    retained and live messages go before events. At most `window` messages wait for their PUBACK. A message
    that `trial` holds waits, and with it the live messages or events behind it.
    `has_delivered` is whether the broker answered an event.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        topics: Topics,
        mailbox: Mailbox,
        send_queue: SendQueue,
        probe: PublishProbe,
        trial: SizeTrial,
        takeover: TakeoverDetector,
        connection_log: ConnectionLog,
        tuning: Tuning,
        on_acked: Callable[[float], None],
        on_progress: Callable[[], None],
    ) -> None:
        self.has_delivered = False
        self._connection = connection
        self._topics = topics
        self._mailbox = mailbox
        self._send_queue = send_queue
        self._probe = probe
        self._trial = trial
        self._takeover = takeover
        self._log = connection_log
        self._tuning = tuning
        self._on_progress = on_progress
        self._in_flight = InFlight(on_acked)

    def serve(self) -> str:
        """Send and receive until the connection ends or the mailbox closes; return the reason."""
        self._begin()
        while not self._must_go_offline():
            if reason := self._exchange(events=True):
                return self._lose(reason)
        self._mailbox.queue_only_offline()
        while not self._mailbox.is_empty or self._in_flight.has_topic(self._topics.availability):
            if reason := self._exchange(events=False):
                return self._lose(reason)
        self._connection.disconnect()
        self._send_queue.record(float("inf"))
        return "closed"

    def wait_s(self) -> float:
        """Return how long to wait for the network: each wake-up costs power."""
        if self._mailbox.is_closing:
            return CLOSING_WAIT_S
        if self._trial.is_waiting:
            return TRIAL_WAIT_S
        if self._in_flight or self._send_queue.is_unsettled or self._probe.is_waiting:
            return BUSY_WAIT_S
        # A ping is due after three quarters of the keep-alive time, and is late by this at most.
        return min(IDLE_WAIT_S, self._connection.keepalive_s / 4)

    def _begin(self) -> None:
        connection = self._connection
        self._send_queue.restart()
        self._mailbox.begin_connection()
        self._probe.begin(connection)
        self._trial.begin(connection.address, now_s=time.monotonic())
        self._takeover.begin(connection.address, now_s=time.monotonic())
        connection.subscribe(self._topics.status, qos=0)
        protocol = "5" if connection.protocol == V5 else "3.1.1"
        self._log.report_connected(connection.address, protocol, has_retain=connection.limits.has_retain)

    def _must_go_offline(self) -> bool:
        if not self._mailbox.is_closing or self._connection.lost is not None:
            return False
        is_idle = not self._in_flight and self._mailbox.is_empty and self._send_queue.is_idle
        return is_idle or self._mailbox.deadline_s - time.monotonic() < OFFLINE_S

    def _exchange(self, *, events: bool) -> str | None:
        """Send, wait for the network, handle the answers; return why the connection ended, else None."""
        if self._connection.lost is not None:
            return self._connection.lost
        self._on_progress()
        self._send(events=events)
        now_s = time.monotonic()
        if now_s > self._mailbox.deadline_s:
            return "closed"  # without DISCONNECT the broker publishes the will, which is `offline` too
        if self._in_flight.is_stalled(now_s, limit_s=self._tuning.no_ack_s):
            return "no_ack"
        self._connection.pump(self.wait_s(), self._mailbox.wake)
        self._mailbox.wake.clear()
        self._handle_acks()
        self._send_queue.record(time.monotonic())
        self._handle_subacks()
        self._handle_messages()
        self._probe.check(time.monotonic())
        self._takeover.check(time.monotonic())
        self._log.report_publishing(self._verdict())
        self._log.report_takeover(self._takeover.fault)
        return None

    def _send(self, *, events: bool) -> None:
        """Fill the window: first the mailbox, since states describe the present, then events in order."""
        if self._trial.is_probing:
            return
        self._connection.subscribe(*self._mailbox.take_subscriptions())
        window = min(self._tuning.window, self._connection.limits.receive_maximum)
        self._send_mailbox(window)
        if events:
            self._send_events(window - len(self._in_flight))
            self._send_probe()

    def _send_mailbox(self, window: int) -> None:
        held: list[Outgoing] = []
        while len(self._in_flight) < window and self._connection.lost is None:
            message = self._mailbox.take()
            if message is None:
                break
            if not self._fits(message.topic, message.payload):
                continue
            if self._trial.holds(packet_bytes(message.topic, message.payload)):
                held.append(message)
                if message.retain:
                    continue
                break
            self._publish(message)
        if held:
            self._mailbox.put_back(held)

    def _send_events(self, count: int) -> None:
        topic = self._topics.event
        rows = self._send_queue.take(count)
        for position, row in enumerate(rows):
            if not self._fits(topic, row.payload):
                self._send_queue.settle(row.sequence, "packet_too_large", now_s=time.monotonic())
                self._mailbox.wake.set()  # the window has room for the next event
                continue
            if self._trial.holds(packet_bytes(topic, row.payload)):
                self._send_queue.give_back(rows[position:])
                return
            self._publish(Outgoing(topic, row.payload), sequence=row.sequence)

    def _send_probe(self) -> None:
        """Send the probe that `trial` needs, once everything else is acknowledged."""
        payload = None if self._in_flight else self._trial.next_probe(time.monotonic())
        if payload is not None:
            self._publish(Outgoing(self._topics.probe, payload))

    def _publish(self, message: Outgoing, *, sequence: int = 0) -> None:
        topic, payload, size = message.topic, message.payload, packet_bytes(message.topic, message.payload)
        if topic == self._topics.status:
            self._takeover.note_sent(payload)
        mid = self._connection.publish(topic, payload, qos=message.qos, retain=message.retain)
        if message.qos:
            self._in_flight.add(mid, Sent(topic, b"" if sequence else payload, sequence, size))
        else:
            self._in_flight.add_unanswered(size)

    def _fits(self, topic: str, payload: bytes) -> bool:
        """Return whether the broker takes a message of this size; report it if not."""
        stated, found = self._connection.limits.maximum_packet_bytes, self._trial.limit_bytes
        size, limit = packet_bytes(topic, payload), min(stated, found)
        if size > limit:
            self._log.report_too_large(topic, size, limit=limit, is_stated=stated <= found)
        return size <= limit

    def _handle_acks(self) -> None:
        while self._connection.acked:
            mid, refusal = self._connection.acked.popleft()
            sent = self._in_flight.pop(mid)
            if sent is None or self._trial.handle_ack(sent.size):
                continue
            if sent.sequence:
                self._send_queue.settle(sent.sequence, refusal, now_s=time.monotonic())
                self.has_delivered = True
            elif not sent.payload and refusal is None:
                self._mailbox.forget_cleared(sent.topic)
            elif sent.topic == self._topics.status and refusal is None:
                self._takeover.note_acknowledged()
            # The send queue logs refused events.
            self._log.report_answer(sent.topic, refusal, is_logged=not sent.sequence)

    def _handle_subacks(self) -> None:
        connection = self._connection
        while connection.subscribed:
            topic, refusal = connection.subscribed.popleft()
            if self._probe.handle_suback(connection, topic, refusal, now_s=time.monotonic()):
                continue
            if refusal and topic != self._topics.status:  # reading that only helps to explain a takeover
                log.warning("mqtt: %s may not be read (%s); check the broker's access list", topic, refusal)

    def _handle_messages(self) -> None:
        while self._connection.received:
            message = self._connection.received.popleft()
            if message.topic == self._topics.status:
                now_s = time.monotonic()
                self._takeover.handle_status(message.payload, retained=message.retained, now_s=now_s)
            elif not self._probe.handle_message(self._connection, message):
                self._call_handler(message)

    def _call_handler(self, message: Message) -> None:
        handler = self._mailbox.handler(message.topic)
        if handler is None:
            return
        try:
            handler(message.payload, message.retained)
        except Exception:  # a handler of the daemon must not end the connection
            log.exception("mqtt: the handler of %s failed", message.topic)

    def _verdict(self) -> Verdict:
        """Return whether the broker accepts what the device publishes: by its answers, else by the probe."""
        if self._log.refused_topics:
            return "refused"
        is_answered = self._connection.protocol == V5 and self.has_delivered
        return "allowed" if is_answered else self._probe.verdict

    def _lose(self, reason: str) -> str:
        """Note what the end of the connection leaves unanswered; return `reason`."""
        event = self._topics.event
        is_explained = bool(self._log.refused_topics)
        now_s = time.monotonic()
        reason = self._takeover.connection_lost(reason, is_explained=is_explained, now_s=now_s)
        self._log.report_takeover(self._takeover.fault)
        self._trial.connection_lost(reason, self._in_flight.sizes(), now_s=time.monotonic())
        self._mailbox.put_back([Outgoing(event, sent.payload) for sent in self._in_flight.unsaved(event)])
        if not self._mailbox.is_closing:
            self._probe.connection_lost()
        return reason
