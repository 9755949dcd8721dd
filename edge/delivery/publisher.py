"""Tells the broker: retained states as they are now, and the outbox's events in order, at least once.

publisher = Publisher(settings, device="kitchen", outbox=outbox)
publisher.start()
publisher.publish_state("state", {...})      # latest wins, sent again at every connect
outbox.append(event); publisher.event_added()
publisher.close()
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edge.backoff import backoff_s
from edge.delivery.mqtt.connection import V5, Connection, ConnectionFailed, Connector, Message
from edge.delivery.mqtt.connection_state import ConnectionLog, ConnectionState
from edge.delivery.mqtt.publish_probe import PublishProbe, Verdict
from edge.delivery.mqtt.send_queue import SendQueue
from edge.delivery.outbox.queue import Outbox
from edge.policy import OPEN, Policy
from edge.settings import MqttSettings
from edge.values import EmotionEvent, encode

log = logging.getLogger(__name__)

FIRST_PAUSE_S = (0.1, 3.0)
STABLE_S = 10.0  # a connection that lasted this long starts the back-off anew
WINDOW = 64  # unacknowledged messages at most; a broker may ask for fewer
NO_ACK_S = 30.0
BUSY_WAIT_S = 1.0  # between two looks while an answer is awaited
# With nothing awaited, what is new wakes us, all but the keep-alive and what `emotion-edge outbox retry` did.
IDLE_WAIT_S = 5.0
FAREWELL_S = 1.0
MAX_LIVE = 256  # messages kept in memory while the outbox is out of order

Handler = Callable[[bytes, bool], None]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message that waits for its PUBACK: a row of the outbox, or a topic of the live ones."""

    topic: str
    sequence: int = 0
    payload: bytes = b""
    sent_s: float = field(default_factory=time.monotonic)


class Publisher:
    """Keeps one connection alive on a thread of its own; every method returns at once.

    At every connect: `status`, the other retained topics, `online`, then all events that the outbox holds.
    States are about now and are never replayed: only the latest of each topic is known, and not on disk.
    Of several brokers each failure leads to the next; the pause between two is such that each of them hears
    from us as often as an only one would: after 1 s, then less and less, at last once in 60 s.
    A row leaves the outbox only a second after its PUBACK, or as a dead letter when the broker refuses it
    (MQTT 5). What `policy` does not permit goes nowhere: states and live messages are dropped here, also
    where nobody asked before; events, which an earlier context may have stored, become dead letters.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        device: str,
        outbox: Outbox,
        policy: Policy = OPEN,
        password: str | None = None,
        on_state: Callable[[ConnectionState], None] | None = None,
        on_acked: Callable[[float], None] | None = None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        self.refused_topics: dict[str, str] = {}  # full topic: why the broker refused the last message
        self.live_dropped = 0
        self._dial = Connector(settings, f"emotion-edge-{device}", password)
        # A ping is due after three quarters of the keep-alive time, and late by this at most.
        self._idle_wait_s = min(IDLE_WAIT_S, settings.keepalive_s / 4)
        self._policy = policy
        self._root = f"{settings.prefix}/{device}"
        self._availability = self.topic("availability")
        self._on_progress = on_progress  # called while the thread goes round, connected or not
        self._on_acked = on_acked  # gets the seconds from sending to the acknowledgement
        self._log = ConnectionLog(on_state)
        self._check = PublishProbe(self.topic("probe"))
        self._lock = threading.Lock()
        self._retained: dict[str, bytes] = {self._availability: b"online"}
        self._payloads: dict[str, dict[str, Any]] = {}  # by subtopic, those of `_retained` that are JSON
        self._pending: dict[str, None] = {}  # topics of _retained to be sent, in order
        self._live: deque[tuple[str, bytes, int]] = deque(maxlen=MAX_LIVE)
        self._handlers: dict[str, Handler] = {}
        self._to_subscribe: list[str] = []
        self._inflight: dict[int, _Sent] = {}
        self._stream = SendQueue(outbox, permits=policy.permits_stored)
        self._progress_s = 0.0
        self._has_settled = False  # an event was answered on this connection
        self._closing = threading.Event()
        self._deadline_s = float("inf")
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    @property
    def connection_state(self) -> ConnectionState:
        """Whether the broker is there, which one, and whether it takes what we publish."""
        return self._log.state

    def topic(self, subtopic: str) -> str:
        """Return the full topic, such as `emotion/kitchen/state`."""
        return f"{self._root}/{subtopic}"

    def start(self) -> None:
        """Connect in the background and stay connected."""
        self._thread.start()

    def publish_state(self, subtopic: str, payload: Mapping[str, Any] | str) -> None:
        """Publish retained, QoS 1, if the policy permits the topic; a newer payload replaces an older one."""
        if not self._policy.permits_topic(subtopic):
            return
        if not isinstance(payload, str):
            with self._lock:
                self._payloads[subtopic] = dict(payload)
        self.publish_retained(self.topic(subtopic), encode(payload))

    def clear_retained(self, subtopic: str) -> None:
        """Remove a retained topic from the broker, now or at the next connect."""
        with self._lock:
            self._payloads.pop(subtopic, None)
        self.publish_retained(self.topic(subtopic), b"")

    @property
    def payloads(self) -> dict[str, dict[str, Any]]:
        """The newest JSON payload of each state that the policy permits, by subtopic such as `face/state`."""
        with self._lock:
            return dict(self._payloads)

    def permits_event(self, event_type: str) -> bool:
        """Return whether the policy permits events of this type to be stored and published."""
        return self._policy.permits_event(event_type)

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Do as `publish_state` for a full topic, such as Home Assistant's discovery."""
        with self._lock:
            self._retained[topic] = payload
            self._pending[topic] = None
        self._notify()

    def publish_stats(self, payload: Mapping[str, Any]) -> None:
        """Publish `stats`, QoS 0, not retained; dropped while offline."""
        if self.connection_state.connected:
            self._add_live("stats", encode(payload), qos=0)

    def publish_live(self, subtopic: str, payload: Mapping[str, Any] | str) -> None:
        """Publish QoS 1, not retained, such as `ha_event`; dropped while offline, since it is about now."""
        if self.connection_state.connected and self._policy.permits_topic(subtopic):
            self._add_live(subtopic, encode(payload), qos=1)

    def publish_unsaved(self, event: EmotionEvent) -> None:
        """Publish an event that the outbox could not take: without `sequence`, from memory, best effort."""
        if not self._policy.permits_event(event.type):
            return
        message = event.to_cloudevent(device=self._root.rpartition("/")[2], sequence=0)
        del message["sequence"]
        self._add_live("event", encode(message), qos=1)

    def event_added(self) -> None:
        """Tell the sender that the outbox holds something new."""
        self._notify()

    def subscribe(self, subtopic: str, handler: Handler) -> None:
        """Call `handler(payload, retained)` on the publisher's thread for each message of this topic."""
        self.subscribe_topic(self.topic(subtopic), handler)

    def subscribe_topic(self, topic: str, handler: Handler) -> None:
        """Do as `subscribe` for a full topic without wildcards, such as `homeassistant/status`."""
        with self._lock:
            self._handlers[topic] = handler
            self._to_subscribe.append(topic)
        self._notify()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what can be sent, keep the last second for `offline` and its PUBACK, disconnect."""
        self._deadline_s = time.monotonic() + timeout_s
        self._closing.set()
        self._notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s + 0.5)
        with self._lock:
            if self._wake >= 0 and not self._thread.is_alive():
                os.close(self._wake)
                self._wake = -1

    def _add_live(self, subtopic: str, payload: bytes, *, qos: int) -> None:
        self.live_dropped += len(self._live) == MAX_LIVE
        self._live.append((self.topic(subtopic), payload, qos))
        self._notify()

    def _notify(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        attempt = 0
        while not self._closing.is_set():
            self._on_progress()
            connection: Connection | None = None
            opened_s = float("inf")
            self._has_settled = False
            try:
                connection = self._dial.open(will=(self._availability, b"offline"))
                opened_s = time.monotonic()
                reason = self._serve(connection)
            except ConnectionFailed as error:
                reason = error.reason
            except Exception:  # outermost loop: whatever it is, the next connection starts afresh
                log.exception("mqtt: connection dropped after an error of our own")
                reason = "internal"
            finally:
                if connection is not None:
                    connection.abort()
            self._log.lost(self._dial.address, reason, is_closing=self._closing.is_set())
            # mosquitto 2.0.11 hangs up after each publish that it refuses: that must not cost a minute each.
            is_useful = self._has_settled and reason != "session_taken_over"
            if is_useful or time.monotonic() - opened_s >= STABLE_S:
                attempt = 0
            self._closing.wait(pause_s(attempt // self._dial.round) / self._dial.round)
            attempt += 1

    def _serve(self, connection: Connection) -> str:
        """Send and receive until the connection ends; return why it did."""
        self._begin(connection)
        self._log.connected(connection.address, "5" if connection.protocol == V5 else "3.1.1")
        farewell = False
        while connection.lost is None:
            self._on_progress()
            if self._closing.is_set() and not farewell and self._is_time_to_go():
                farewell = True
                with self._lock:
                    self._retained[self._availability] = b"offline"
                    self._pending = {self._availability: None}
                    self._live.clear()
            self._send(connection, events=not farewell)
            if farewell and not self._pending and not self._waits_for(self._availability):
                connection.disconnect()
                self._stream.record(float("inf"))
                return "closed"
            now_s = time.monotonic()
            if now_s > self._deadline_s:
                break  # closing without DISCONNECT makes the broker publish the will, which is `offline`, too
            if self._inflight and now_s - self._progress_s > NO_ACK_S:
                return self._lose("no_ack")
            connection.pump(self._wait_s(), self._wake)
            self._settle(connection)
        return self._lose(connection.lost or "closed")

    def _wait_s(self) -> float:
        """Return how long the network may be waited for: each waking costs, and most are for nothing."""
        if self._closing.is_set():
            return 0.05
        is_awaited = self._inflight or self._stream.is_unsettled or self._check.is_waiting
        return BUSY_WAIT_S if is_awaited else self._idle_wait_s

    def _begin(self, connection: Connection) -> None:
        self._inflight.clear()
        self._stream.restart()
        self._progress_s = time.monotonic()
        with self._lock:
            self._to_subscribe = list(self._handlers)
            status = self.topic("status")
            first = [status] if status in self._retained else []
            rest = [topic for topic in self._retained if topic not in (status, self._availability)]
            self._pending = dict.fromkeys([*first, *rest, self._availability])
        self._check.begin(connection)

    def _is_time_to_go(self) -> bool:
        idle = not self._inflight and not self._pending and not self._live and self._stream.is_idle
        return idle or self._deadline_s - time.monotonic() < FAREWELL_S

    def _send(self, connection: Connection, *, events: bool) -> None:
        """Fill the window: states first, since they are about now, then events in order."""
        with self._lock:
            topics, self._to_subscribe = self._to_subscribe, []
        connection.subscribe(*topics)
        window = min(WINDOW, connection.receive_maximum)
        while len(self._inflight) < window and connection.lost is None:
            with self._lock:
                topic = next(iter(self._pending), None)
                if topic is not None:
                    del self._pending[topic]
                    payload = self._retained[topic]
            if topic is not None:
                mid = connection.publish(topic, payload, qos=1, retain=True)
                self._track(mid, _Sent(topic, payload=payload))
            elif self._live:
                topic, payload, qos = self._live.popleft()
                mid = connection.publish(topic, payload, qos=qos)
                if qos:
                    self._track(mid, _Sent(topic, payload=payload))
            else:
                break
        if events:
            self._send_events(connection, window)

    def _send_events(self, connection: Connection, window: int) -> None:
        topic = self.topic("event")
        max_bytes = connection.maximum_packet_bytes - len(topic) - 16  # the header around the payload
        for row in self._stream.take(window - len(self._inflight), max_bytes=max_bytes):
            mid = connection.publish(topic, row.payload, qos=1)
            self._track(mid, _Sent(topic, sequence=row.sequence))

    def _track(self, mid: int, sent: _Sent) -> None:
        if not self._inflight:
            self._progress_s = time.monotonic()
        self._inflight[mid] = sent

    def _is_event(self, sent: _Sent) -> bool:
        return sent.topic == self.topic("event")

    def _waits_for(self, topic: str) -> bool:
        return any(sent.topic == topic for sent in self._inflight.values())

    def _settle(self, connection: Connection) -> None:
        """Book what the broker acknowledged, refused and sent."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while connection.acked:
            mid, refusal = connection.acked.popleft()
            sent = self._inflight.pop(mid, None)
            if sent is None:
                continue
            self._progress_s = time.monotonic()
            if self._on_acked is not None:
                self._on_acked(self._progress_s - sent.sent_s)
            if sent.sequence:
                self._stream.settle(sent.sequence, refusal, now_s=self._progress_s)
                self._has_settled = True
            self._note_topic(sent, refusal)
        self._stream.record(time.monotonic())
        while connection.subscribed:
            topic, refusal = connection.subscribed.popleft()
            if self._check.take_suback(connection, topic, refusal, now_s=time.monotonic()):
                continue
            if refusal:
                log.warning("mqtt: %s may not be read (%s); check the broker's access list", topic, refusal)
        while connection.received:
            message = connection.received.popleft()
            if not self._check.take_message(connection, message):
                self._handle(message)
        self._check.watch(time.monotonic())
        self._log.publishing(self._verdict(connection))

    def _verdict(self, connection: Connection) -> Verdict:
        """Tell whether the broker takes what we publish: by its own words, or by what the probe found."""
        if self.refused_topics:
            return "refused"
        return "allowed" if connection.protocol == V5 and self._has_settled else self._check.verdict

    def _note_topic(self, sent: _Sent, refusal: str | None) -> None:
        if refusal:
            if not sent.sequence and self.refused_topics.get(sent.topic) != refusal:
                log.warning("mqtt: %s refused (%s); check the broker's access list", sent.topic, refusal)
            self.refused_topics[sent.topic] = refusal
            return
        self.refused_topics.pop(sent.topic, None)
        with self._lock:
            if not sent.sequence and not sent.payload and self._retained.get(sent.topic) == b"":
                del self._retained[sent.topic]  # cleared at the broker: nothing to repeat
                self._pending.pop(sent.topic, None)

    def _handle(self, message: Message) -> None:
        handler = self._handlers.get(message.topic)
        if handler is None:
            return
        try:
            handler(message.payload, message.retained)
        except Exception:  # a handler of the daemon's must not end the connection
            log.exception("mqtt: the handler of %s failed", message.topic)

    def _lose(self, reason: str) -> str:
        """Book what the end of a connection leaves unanswered; return `reason`."""
        unsaved = [sent for sent in self._inflight.values() if not sent.sequence and self._is_event(sent)]
        self._live.extendleft((sent.topic, sent.payload, 1) for sent in reversed(unsaved))
        self._inflight.clear()
        if not self._closing.is_set():
            self._check.lose()
            self._stream.lose(reason)
        return reason


def pause_s(attempt: int) -> float:
    """Return the pause after failure `attempt` (from 0) of a broker.

    The first is anything up to 3 s, since a fleet loses its broker in one moment and must not return in one.
    """
    return random.uniform(*FIRST_PAUSE_S) if attempt == 0 else backoff_s(attempt)
