"""The topic `status`: what the daemon does, what is wrong with it, and which backends run its models."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from edge import __version__
from edge.delivery import messages
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.inference.accelerator import backends
from edge.inference.fallback import FallbackClassifier
from edge.settings import DeviceSettings


class StatusTopic:
    """Publishes `status` when something in it changes; may be used from any thread.

    `is_paused` is whether camera and microphone are all switched off. `show_line` gets each status as one
    short line, for `systemctl status`.
    """

    def __init__(
        self,
        publisher: Publisher,
        health: Health,
        classifiers: Mapping[str, FallbackClassifier],
        *,
        device: DeviceSettings,
        is_paused: bool = False,
        show_line: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._publisher = publisher
        self._health = health
        self._classifiers = classifiers
        self._device = device
        self._show_line = show_line
        self._lock = threading.Lock()  # so that the newest status is published last
        self._is_paused = is_paused
        self._has_preview = False
        self._payload: dict[str, Any] = {}

    @property
    def payload(self) -> dict[str, Any]:
        """The last status published; empty before the first."""
        return self._payload

    def set_paused(self, is_paused: bool) -> None:
        """Publish that a device was switched, and whether all of them are off now."""
        self._is_paused = is_paused
        self.publish()

    def set_preview(self, is_on: bool) -> None:
        """Publish that a preview of the camera begins or ends; do nothing if that is known."""
        if is_on != self._has_preview:
            self._has_preview = is_on
            self.publish()

    def publish(self, state: str | None = None) -> None:
        """Publish the status now.

        `state` is starting or stopping; None derives it: paused while all devices are off, degraded while
        there is a fault, else running.
        """
        with self._lock:
            reasons = self._health.reasons
            if state is None:
                state = "paused" if self._is_paused else "degraded" if reasons else "running"
            self._payload = messages.status(
                state,
                reasons=reasons,
                since=self._health.since,
                version=__version__,
                backends=backends(self._classifiers),
                preview=self._has_preview,
                device=self._device,
            )
            self._publisher.publish_state("status", self._payload)
            self._show_line(f"{state} {' '.join(reasons)}".strip())
