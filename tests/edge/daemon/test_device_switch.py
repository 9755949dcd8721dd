"""A `set` message closes or opens its device, publishes the state and pauses the daemon if all are off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.daemon.device_switch import DeviceSwitch
from edge.delivery.mqtt.mailbox import Handler
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.delivery.status import StatusTopic
from edge.health import Health
from edge.host.switches import Switches
from edge.page.live_view import LiveView
from edge.settings import DeviceSettings, MqttSettings
from edge.values import Frame
from tests.helpers.brokers import wait_until


class RecordingPublisher(Publisher):
    """A publisher without a connection that records states and subscriptions."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(MqttSettings(), device="lab", outbox=outbox)
        self.states: list[tuple[str, Any]] = []
        self.handlers: dict[str, Handler] = {}

    def publish_state(self, subtopic: str, payload: Any) -> None:
        self.states.append((subtopic, payload))

    def subscribe(self, subtopic: str, handler: Handler) -> None:
        self.handlers[subtopic] = handler


class SwitchedWorker:
    """A worker that records how it is switched."""

    def __init__(self) -> None:
        self.switched: list[bool] = []

    def switch(self, is_on: bool) -> None:
        self.switched.append(is_on)


class Bench:
    """Two devices with their switches."""

    def __init__(self, path: Path, outbox: Outbox) -> None:
        self.health = Health()
        self.publisher = RecordingPublisher(outbox)
        self.live_view = LiveView()
        self.workers = {"camera": SwitchedWorker(), "microphone": SwitchedWorker()}
        self.switches = Switches(path, parts=tuple(self.workers), health=self.health)
        self.status = StatusTopic(self.publisher, self.health, {}, device=DeviceSettings())
        DeviceSwitch(
            self.workers,  # type: ignore[arg-type]
            self.switches,
            publisher=self.publisher,
            status=self.status,
            health=self.health,
            live_view=self.live_view,
        ).start()

    def send(self, subtopic: str, payload: bytes) -> None:
        """Receive a message and wait until the status follows it."""
        before = len(self.publisher.states)
        self.publisher.handlers[subtopic](payload, False)
        wait_until(lambda: len(self.publisher.states) >= before + 2, "state and status")


@pytest.fixture
def bench(tmp_path: Path, outbox: Outbox) -> Iterator[Bench]:
    """Both devices are on."""
    bench = Bench(tmp_path / "switches.json", outbox)
    yield bench
    bench.switches.close()


def test_states_are_published_at_the_start(bench: Bench) -> None:
    """Each device has a state and a topic for commands."""
    assert bench.publisher.states == [("camera/enabled/state", "ON"), ("microphone/enabled/state", "ON")]
    assert bench.publisher.handlers.keys() == {"camera/enabled/set", "microphone/enabled/set"}


def test_set_message_closes_the_device_and_publishes_it(bench: Bench) -> None:
    """Only the device of the topic; the status has a new time."""
    since = bench.health.since
    bench.send("camera/enabled/set", b"OFF")
    assert (bench.workers["camera"].switched, bench.workers["microphone"].switched) == ([False], [])
    (subtopic, payload), (status, _) = bench.publisher.states[-2:]
    assert (subtopic, payload, status) == ("camera/enabled/state", "OFF", "status")
    assert bench.status.payload["state"] == "running"
    assert bench.health.since > since


def test_daemon_is_paused_while_all_devices_are_off(bench: Bench) -> None:
    """The second one pauses it, either one ends that."""
    for subtopic, payload, state in (
        ("camera/enabled/set", b"OFF", "running"),
        ("microphone/enabled/set", b"OFF", "paused"),
        ("camera/enabled/set", b"ON", "running"),
    ):
        bench.send(subtopic, payload)
        assert bench.status.payload["state"] == state
    assert bench.workers["camera"].switched == [False, True]


def test_pausing_the_camera_ends_the_preview(bench: Bench) -> None:
    """The pixels are deleted, and the status reports it, before the device is closed."""
    now_ns = time.monotonic_ns()
    bench.live_view.start_preview(now_ns, "a")
    bench.live_view.add_frame(Frame(np.zeros((4, 4, 3), np.uint8), now_ns), [])
    bench.status.set_preview(True)
    previews = []
    switch = bench.workers["camera"].switch

    def recorded(is_on: bool) -> None:
        previews.append((bench.live_view.preview_jpeg(now_ns, "a"), bench.status.payload["preview"]))
        switch(is_on)

    bench.workers["camera"].switch = recorded  # type: ignore[method-assign]
    bench.send("camera/enabled/set", b"OFF")
    wait_until(lambda: bench.workers["camera"].switched, "the camera to be off")
    assert previews == [(None, False)]
    assert bench.live_view.state(now_ns).preview_s == 0
