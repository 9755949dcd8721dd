"""What the daemon shows over HTTP, and what the buttons of its page do."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from edge import __version__
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.host.switches import Switches
from edge.page.live_view import LiveView, View
from edge.page.routes import Facts, describe
from edge.page.server import Answers
from edge.policy import allowed, sentence
from edge.settings import Config
from edge.values import PARTS, rfc3339

if TYPE_CHECKING:
    from edge.page.metrics import Metrics, Snapshot


class Shown:
    """Answers the web server, on its threads.

    `snapshot` and `status` return the daemon and its status payload as they are now; `on_preview` is called
    when a preview begins or is ended by its button.
    """

    def __init__(
        self,
        config: Config,
        *,
        publisher: Publisher,
        switches: Switches,
        board: LiveView,
        health: Health,
        snapshot: Callable[[], Snapshot],
        status: Callable[[], dict[str, Any]],
        on_preview: Callable[[], None],
    ) -> None:
        self._config = config
        self._publisher = publisher
        self._switches = switches
        self._board = board
        self._health = health
        self._snapshot = snapshot
        self._status = status
        self._on_preview = on_preview

    def answers(self) -> Answers:
        """Return what the server asks."""

        @cache
        def metrics() -> Metrics:
            # Imported with the rest of the web server, and by its thread.
            from edge.page.metrics import Metrics

            return Metrics(self._snapshot)

        return Answers(
            metrics=lambda: metrics().text(),
            stuck=self._health.stuck,
            status=self._status,
            is_connected=lambda: self._publisher.connection_state.connected,
            facts=Facts(
                board=self._board,
                now=self._now,
                switch=self._press,
                preview=self._preview,
                has_boxes=self._is_local or not allowed(self._config.device).restricted,
            ),
        )

    def _now(self, view: View) -> dict[str, Any]:
        now, broker = self._snapshot(), self._publisher.connection_state
        return {
            "device": self._config.device.id,
            "version": __version__,
            "time": rfc3339(datetime.now(UTC)),
            "payloads": {"status": self._status(), **now.told},
            "broker": {"connected": broker.connected, "reason": broker.reason, "protocol": broker.protocol},
            "enabled": {part: now.switches.get(part) for part in PARTS},
            "facts": [*describe(now, view), ["privacy", sentence(self._config.device)]],
            "preview_s": view.preview_s if self._may_preview else None,
        }

    def _press(self, part: str, is_on: bool) -> bool:
        if part not in self._switches.parts:
            return False
        self._switches.command(part, b"ON" if is_on else b"OFF", retained=False)
        return True

    @property
    def _may_preview(self) -> bool:
        """Only who sits at the device may see through its camera, to aim it."""
        return self._is_local and self._config.camera.source != "none"

    @property
    def _is_local(self) -> bool:
        """Tell whether what the page shows stays on the device."""
        address = self._config.dashboard.address
        return address is not None and address.is_loopback

    def _preview(self, is_on: bool) -> bool:
        if not self._may_preview:
            return False
        if is_on:
            self._board.start_preview(time.monotonic_ns())
        else:
            self._board.stop_preview()
        self._on_preview()
        return True
