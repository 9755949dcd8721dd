"""Publishes retained states, and the outbox's events in order and at least once.

publisher = Publisher(settings, device="kitchen", outbox=outbox)
publisher.start()
publisher.publish_state("state", {...})      # the newest is kept, and sent again at every connect
outbox.append(event); publisher.event_added()
publisher.close()
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from edge.delivery.messages import OFFLINE
from edge.delivery.mqtt.connection import Connection, ConnectionFailed, Connector
from edge.delivery.mqtt.connection_state import ConnectionLog, ConnectionState
from edge.delivery.mqtt.mailbox import Handler, Mailbox, Outgoing
from edge.delivery.mqtt.publish_probe import PublishProbe
from edge.delivery.mqtt.reconnect import ReconnectBackoff
from edge.delivery.mqtt.send_queue import SendQueue
from edge.delivery.mqtt.session import Session
from edge.delivery.mqtt.size_trial import SizeTrial
from edge.delivery.mqtt.takeover import DUPLICATE_ID, TakeoverDetector
from edge.delivery.mqtt.topics import Topics
from edge.delivery.mqtt.tuning import TUNING, Tuning
from edge.delivery.outbox.queue import Outbox
from edge.policy import OPEN, Policy
from edge.settings import MqttSettings
from edge.values import EmotionEvent, encode

log = logging.getLogger(__name__)


class Publisher:
    """Keeps one connection open on a thread of its own; every method returns at once.

    Other threads put messages into the `Mailbox`; the thread connects, and a `Session` sends them and the
    events of the outbox. States describe the present: only the newest of each topic is kept, in memory.
    An event leaves the outbox a second after its PUBACK, or becomes a dead letter when the broker refuses it
    (MQTT 5).

    This is the only gate for the topics and events of `policy`: states and live messages that it does not
    permit are dropped here; events that it does not permit, which an earlier context may have stored, become
    dead letters. What the permitted payloads contain is limited where they are made: group counts in
    `Announcer`, counters in `edge.page.statistics`.
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
        on_acked: Callable[[float], None] = lambda _seconds: None,
        on_progress: Callable[[], None] = lambda: None,
        tuning: Tuning = TUNING,
    ) -> None:
        self._tuning = tuning
        self._policy = policy
        self._topics = Topics(settings.prefix, device)
        self._mailbox = Mailbox(self._topics, max_live=tuning.max_live)
        self._connector = Connector(settings, f"emotion-edge-{device}", password, tuning=tuning)
        self._backoff = ReconnectBackoff(tuning, brokers=self._connector.brokers)
        self._log = ConnectionLog(on_state)
        self._takeover = TakeoverDetector(tuning=tuning)
        self._on_progress = on_progress  # called while the thread makes progress, connected or not
        self._new_session: Callable[[Connection], Session] = partial(
            Session,
            topics=self._topics,
            mailbox=self._mailbox,
            send_queue=SendQueue(outbox, policy=policy, tuning=tuning),
            probe=PublishProbe(self._topics.probe, tuning=tuning),
            trial=SizeTrial(self._topics.probe, tuning=tuning),
            takeover=self._takeover,
            connection_log=self._log,
            tuning=tuning,
            on_acked=on_acked,  # gets the seconds from sending to the acknowledgement
            on_progress=on_progress,
        )
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    @property
    def connection_state(self) -> ConnectionState:
        """Whether and to which broker the device is connected, and whether that accepts its messages."""
        return self._log.state

    @property
    def refused_topics(self) -> dict[str, str]:
        """The topics whose last message the broker refused, each with the reason."""
        return dict(self._log.refused_topics)

    @property
    def live_dropped(self) -> int:
        """How many live messages were dropped because too many were waiting."""
        return self._mailbox.live_dropped

    @property
    def payloads(self) -> dict[str, dict[str, Any]]:
        """The newest JSON payload of each state that the policy permits, by subtopic such as `face/state`."""
        return {self._topics.subtopic(topic): state for topic, state in self._mailbox.states().items()}

    def permits_event(self, event_type: str) -> bool:
        """Return whether the policy permits events of this type to be stored and published."""
        return self._policy.permits_event(event_type)

    def topic(self, subtopic: str) -> str:
        """Return the full topic, such as `emotion/kitchen/state`."""
        return self._topics.full(subtopic)

    def start(self) -> None:
        """Connect in the background and stay connected."""
        self._thread.start()

    def publish_state(self, subtopic: str, payload: Mapping[str, Any] | str) -> None:
        """Publish retained, QoS 1, if the policy permits the topic; a newer payload replaces an older one."""
        if self._policy.permits_topic(subtopic):
            state = None if isinstance(payload, str) else payload
            self._mailbox.put_retained(self.topic(subtopic), encode(payload), state)

    def clear_retained(self, subtopic: str) -> None:
        """Remove a retained topic from the broker, now or at the next connect."""
        self.publish_retained(self.topic(subtopic), b"")

    def publish_retained(self, topic: str, payload: bytes) -> None:
        """Publish retained, QoS 1, to a full topic, such as that of Home Assistant's discovery."""
        self._mailbox.put_retained(topic, payload)

    def publish_stats(self, payload: Mapping[str, Any]) -> None:
        """Publish `stats`, QoS 0, not retained; dropped while offline."""
        self._publish_if_connected("stats", payload, qos=0)

    def publish_live(self, subtopic: str, payload: Mapping[str, Any] | str) -> None:
        """Publish QoS 1, not retained, such as `ha_event`; dropped while offline."""
        self._publish_if_connected(subtopic, payload, qos=1)

    def publish_unsaved(self, event: EmotionEvent) -> None:
        """Publish an event that the outbox could not store: without `sequence`, from memory, best effort."""
        if not self._policy.permits_event(event.type):
            return
        message = event.to_cloudevent(device=self._topics.device, sequence=0)
        del message["sequence"]
        self._mailbox.put_live(Outgoing(self._topics.event, encode(message)))

    def event_added(self) -> None:
        """Wake the thread, since the outbox holds a new event."""
        self._mailbox.wake.set()

    def subscribe(self, subtopic: str, handler: Handler) -> None:
        """Call `handler(payload, retained)` on the publisher's thread for each message of this topic."""
        self.subscribe_topic(self.topic(subtopic), handler)

    def subscribe_topic(self, topic: str, handler: Handler) -> None:
        """Subscribe to a full topic without wildcards, such as `homeassistant/status`."""
        self._mailbox.subscribe(topic, handler)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what can be sent, keep the last second for `offline` and its PUBACK, and disconnect."""
        self._mailbox.close(deadline_s=time.monotonic() + timeout_s)
        if self._thread.ident is not None:
            self._thread.join(timeout_s + 0.5)
        if not self._thread.is_alive():
            self._mailbox.wake.close()

    def _publish_if_connected(self, subtopic: str, payload: Mapping[str, Any] | str, *, qos: int) -> None:
        if self.connection_state.connected and self._policy.permits_topic(subtopic):
            self._mailbox.put_live(Outgoing(self.topic(subtopic), encode(payload), qos=qos))

    def _run(self) -> None:
        """Connect, serve the connection until it ends, pause; again until closed."""
        while not self._mailbox.is_closing:
            self._on_progress()
            try:
                reason = self._connect_and_serve()
            except ConnectionFailed as error:
                reason = error.reason
                self._takeover.connect_failed(reason)
            except Exception:  # the outermost loop of the thread: the next connection starts afresh
                log.exception("mqtt: the connection is closed after an internal error")
                reason = "internal"
            self._log.report_lost(self._connector.address, reason, is_closing=self._mailbox.is_closing)
            self._mailbox.wait_closing(self._backoff.next_s())

    def _connect_and_serve(self) -> str:
        """Return why the connection ended; raise `ConnectionFailed` where there was none."""
        connection = self._connector.open(will=(self._topics.availability, OFFLINE.encode()))
        opened_s = time.monotonic()
        session = self._new_session(connection)
        reason = "internal"
        try:
            reason = session.serve()
        finally:
            connection.abort()
            # mosquitto 2.0.11 closes the connection after each refused message: the pause must stay short.
            is_useful = session.has_delivered or time.monotonic() - opened_s >= self._tuning.stable_s
            # Two clients with one id end each other's connections: the pauses must grow.
            if is_useful and self._takeover.fault != DUPLICATE_ID:
                self._backoff.reset()
        return reason
