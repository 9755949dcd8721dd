"""What other threads pass to the MQTT thread: messages to publish, topics to subscribe, when to close."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.delivery.messages import OFFLINE, ONLINE
from edge.delivery.mqtt.topics import Topics
from edge.delivery.mqtt.wakeup import WakeUp

Handler = Callable[[bytes, bool], None]  # payload, and whether the broker had stored it


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, slots=True)
class _Retained:
    """The newest payload of a retained topic, and its JSON object if it is one."""

    payload: bytes
    state: dict[str, Any] | None = None


class Mailbox:
    """Retained payloads, live messages and subscriptions that wait for the connection; all thread-safe.

    Of each retained topic only the newest payload is kept, and every new connection sends it again. Live
    messages are sent once, in order; the oldest is dropped when `max_live` are waiting.
    """

    def __init__(self, topics: Topics, *, max_live: int) -> None:
        self.wake = WakeUp()
        self.live_dropped = 0
        self._topics = topics
        self._changed = threading.Condition()
        self._retained = {topics.availability: _Retained(ONLINE.encode())}
        self._pending: dict[str, None] = {}  # topics of `_retained` that the connection has to send, in order
        self._live: deque[Outgoing] = deque(maxlen=max_live)
        self._handlers: dict[str, Handler] = {}
        self._to_subscribe: list[str] = []
        self._deadline_s = float("inf")

    def put_retained(self, topic: str, payload: bytes, state: Mapping[str, Any] | None = None) -> None:
        """Replace the payload of a retained topic; an empty one clears the topic at the broker."""
        with self._changed:
            self._retained[topic] = _Retained(payload, None if state is None else dict(state))
            self._pending[topic] = None
        self.wake.set()

    def put_live(self, message: Outgoing) -> None:
        """Add a message to be sent once."""
        with self._changed:
            self.live_dropped += len(self._live) == self._live.maxlen
            self._live.append(message)
        self.wake.set()

    def subscribe(self, topic: str, handler: Handler) -> None:
        """Set the handler of a topic and subscribe it, now and at every new connection."""
        with self._changed:
            self._handlers[topic] = handler
            self._to_subscribe.append(topic)
        self.wake.set()

    def states(self) -> dict[str, dict[str, Any]]:
        """Return the newest JSON object of each retained topic, by full topic."""
        with self._changed:
            items = self._retained.items()
            return {topic: retained.state for topic, retained in items if retained.state is not None}

    def close(self, *, deadline_s: float) -> None:
        """Order the MQTT thread to publish `offline` and to end by `deadline_s` (monotonic)."""
        with self._changed:
            self._deadline_s = deadline_s
            self._changed.notify_all()
        self.wake.set()

    @property
    def deadline_s(self) -> float:
        """When the MQTT thread has to end; infinite until `close`."""
        return self._deadline_s

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._deadline_s < float("inf")

    def wait_closing(self, timeout_s: float) -> None:
        """Return when `close` is called, or after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_closing, timeout_s)

    def begin_connection(self) -> None:
        """Queue every subscription and every retained topic again: `status` first, `online` last."""
        with self._changed:
            self._to_subscribe = list(self._handlers)
            ends = (self._topics.status, self._topics.availability)
            first = [topic for topic in ends[:1] if topic in self._retained]
            rest = [topic for topic in self._retained if topic not in ends]
            self._pending = dict.fromkeys([*first, *rest, self._topics.availability])

    def queue_only_offline(self) -> None:
        """Replace everything that waits by `offline`."""
        with self._changed:
            self._retained[self._topics.availability] = _Retained(OFFLINE.encode())
            self._pending = {self._topics.availability: None}
            self._live.clear()

    @property
    def is_empty(self) -> bool:
        """Whether no message waits."""
        with self._changed:
            return not self._pending and not self._live

    def take(self) -> Outgoing | None:
        """Remove and return the next message: retained topics first, since they describe the present."""
        with self._changed:
            topic = next(iter(self._pending), None)
            if topic is not None:
                del self._pending[topic]
                return Outgoing(topic, self._retained[topic].payload, retain=True)
            return self._live.popleft() if self._live else None

    def take_subscriptions(self) -> list[str]:
        """Remove and return the topics that the connection has to subscribe."""
        with self._changed:
            topics, self._to_subscribe = self._to_subscribe, []
            return topics

    def put_back(self, messages: Iterable[Outgoing]) -> None:
        """Put unsent or unacknowledged messages back: live ones at the head of the queue, in order."""
        with self._changed:
            messages = list(messages)
            self._pending.update(dict.fromkeys(message.topic for message in messages if message.retain))
            self._live.extendleft(message for message in reversed(messages) if not message.retain)

    def forget_cleared(self, topic: str) -> None:
        """Stop sending a topic that was cleared at the broker, unless it has a payload again."""
        with self._changed:
            if topic in self._retained and not self._retained[topic].payload:
                del self._retained[topic]
                self._pending.pop(topic, None)

    def handler(self, topic: str) -> Handler | None:
        """Return the handler of a topic."""
        return self._handlers.get(topic)
