"""Closes and opens the camera and the microphone for `set` messages and the buttons of the page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edge.daemon.workers import DeviceWorker
from edge.delivery import messages
from edge.delivery.publisher import Publisher
from edge.delivery.status import StatusTopic
from edge.health import Health
from edge.host.switches import Switches
from edge.page.live_view import LiveView


class DeviceSwitch:
    """Carries out the commands that `Switches` accepts: closes or opens the device and publishes it."""

    def __init__(
        self,
        workers: Mapping[str, DeviceWorker],
        switches: Switches,
        *,
        publisher: Publisher,
        status: StatusTopic,
        health: Health,
        live_view: LiveView,
    ) -> None:
        self._workers = workers
        self._switches = switches
        self._publisher = publisher
        self._status = status
        self._health = health
        self._live_view = live_view

    def switch_device(self, part: str, is_on: bool) -> None:
        """Open or close `camera` or `microphone` and publish its new state.

        `Switches` calls this on its thread, for a `set` message or a button of the page.
        """
        if part == "camera" and not is_on:
            self._live_view.stop_preview()
            self._status.set_preview(False)
        self._workers[part].switch(is_on)
        self._publish_enabled(part)
        self._health.touch()
        self._status.set_paused(self._switches.are_all_off)

    def start(self) -> None:
        """Publish the state of each switch, and take commands from now on."""
        for part in self._switches.parts:
            self._publish_enabled(part)
            self._publisher.subscribe(f"{part}/enabled/set", partial(self._switches.command, part))
        self._switches.start(self.switch_device)

    def _publish_enabled(self, part: str) -> None:
        payload = messages.enabled(self._switches.is_on(part))
        self._publisher.publish_state(f"{part}/enabled/state", payload)
