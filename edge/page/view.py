"""Reads the running daemon for the web server, and carries out the buttons of the page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edge import __version__
from edge.delivery.publisher import Publisher
from edge.delivery.status import StatusTopic
from edge.health import Health
from edge.host.switches import Switches
from edge.page.facts import describe
from edge.page.live_view import LiveState, LiveView
from edge.page.snapshot import Snapshot
from edge.page.statistics import Statistics
from edge.policy import allowed, sentence
from edge.settings import Config
from edge.values import PARTS, rfc3339


class PageView:
    """The daemon as the page and the metrics show it; every method runs on the web server's threads."""

    def __init__(
        self,
        config: Config,
        *,
        publisher: Publisher,
        switches: Switches,
        live_view: LiveView,
        health: Health,
        statistics: Statistics,
        status: StatusTopic,
    ) -> None:
        self.live_view = live_view
        self._config = config
        self._publisher = publisher
        self._switches = switches
        self._health = health
        self._statistics = statistics
        self._status = status

    @property
    def status(self) -> Mapping[str, Any]:
        """The newest payload of the status topic."""
        return self._status.payload

    @property
    def is_connected(self) -> bool:
        """Whether a broker is connected."""
        return self._publisher.connection_state.connected

    def stuck(self) -> list[str]:
        """Return the names of workers without progress."""
        return self._health.stuck()

    def snapshot(self) -> Snapshot:
        """Return numbers and states as they are now."""
        return self._statistics.snapshot()

    def message(self, live: LiveState, session: str, *, with_hour: bool) -> dict[str, Any]:
        """Return one message of the stream to a session, of the schema `page`.

        Without `with_hour` its `hour` is None.
        """
        snapshot, state = self.snapshot(), self._publisher.connection_state
        return {
            "device": self._config.device.id,
            "version": __version__,
            "time": rfc3339(datetime.now(UTC)),
            "payloads": snapshot.payloads,
            "broker": {"connected": state.connected, "reason": state.reason, "protocol": state.protocol},
            "enabled": {part: snapshot.switches.get(part) for part in PARTS},
            "facts": [*describe(snapshot, live), ["privacy", sentence(self._config.device)]],
            "boxes": [
                {"subject": box.subject, "box": list(box.box)} for box in live.boxes if self._shows_boxes
            ],
            "frame": None if live.size_px is None else {"width": live.size_px[0], "height": live.size_px[1]},
            "level_db": live.level_db,
            "hour": [list(change) for change in live.hour] if with_hour else None,
            "preview_s": live.preview_s if self._permits_preview else None,
            "preview_is_own": live.preview_s > 0 and live.preview_session == session,
        }

    def switch(self, part: str, is_on: bool) -> bool:
        """Switch the camera or the microphone; return False if this device does not have it."""
        if part not in self._switches.parts:
            return False
        if part == "camera" and not is_on:
            self.live_view.stop_preview()  # before the device closes, which takes time
        self._switches.command(part, b"ON" if is_on else b"OFF", retained=False)
        return True

    def set_preview(self, session: str, is_on: bool) -> bool:
        """Start the camera preview for a session, or stop any; return False if this page may not show it."""
        if not self._permits_preview or (is_on and not (session and self._switches.is_on("camera"))):
            return False
        if is_on:
            self.live_view.start_preview(time.monotonic_ns(), session)
        else:
            self.live_view.stop_preview()
        self._status.set_preview(is_on)
        return True

    def preview_jpeg(self, session: str) -> bytes | None:
        """Return the newest frame for the session that asked for it; None while the camera is off."""
        if not self._switches.is_on("camera"):
            return None
        return self.live_view.preview_jpeg(time.monotonic_ns(), session)

    @property
    def _is_local(self) -> bool:
        """Whether the page is served to this device only."""
        address = self._config.dashboard.address
        return address is not None and address.is_loopback

    @property
    def _permits_preview(self) -> bool:
        """The preview is for aiming the camera, by a person at the device."""
        return self._is_local and self._config.camera.source != "none"

    @property
    def _shows_boxes(self) -> bool:
        """Where the policy restricts what leaves the device, a page for other machines has no boxes."""
        return self._is_local or not allowed(self._config.device).restricted
