"""The topics below `emotion/<device>`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """Full topic names of one device."""

    prefix: str
    device: str

    def full(self, subtopic: str) -> str:
        """Return the full topic, such as `emotion/kitchen/face/state`."""
        return f"{self.prefix}/{self.device}/{subtopic}"

    def subtopic(self, topic: str) -> str:
        """Return the part below the device, such as `face/state`; a topic of others stays as it is."""
        return topic.removeprefix(self.full(""))

    @property
    def availability(self) -> str:
        """Where `online` and `offline` go; also the topic of the will."""
        return self.full("availability")

    @property
    def status(self) -> str:
        """The state of the daemon; the first topic that a new connection sends."""
        return self.full("status")

    @property
    def event(self) -> str:
        """The stream of the outbox."""
        return self.full("event")

    @property
    def probe(self) -> str:
        """Where `PublishProbe` publishes to itself."""
        return self.full("probe")
