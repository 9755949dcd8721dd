"""Another client with the id of this device is recognised; a broker that crashes is not blamed on one."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from edge.daemon.handlers import report_connection
from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.mqtt.takeover import MAX_SENT, SHORT_CONNECTIONS, TakeoverDetector
from edge.delivery.mqtt.tuning import TUNING
from edge.delivery.publisher import Publisher
from edge.health import Health
from edge.hosts import Address
from tests.helpers.brokers import (
    BRISK,
    Mosquitto,
    is_empty,
    make_event,
    open_outbox,
    settings_of,
    wait_until,
    watching,
)

BROKER = Address("broker", 1883)
OTHER_BROKER = Address("other", 1883)
OWN, FOREIGN, EARLIER = b"own", b"foreign", b"earlier"
EVENTS = 30
QUICK = replace(BRISK, max_pause_s=3.0, calm_s=5.0)


class Bench:
    """A detector that connects once a second."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.detector = TakeoverDetector()

    def connect(
        self,
        *found: bytes,
        address: Address = BROKER,
        retained: bool = True,
        lasts_s: float = 1.0,
        reason: str = "closed",
        is_explained: bool = False,
    ) -> str:
        """Connect, find statuses, publish the own one, lose the connection; return why it ended."""
        detector = self.detector
        detector.begin(address, now_s=self.now_s)
        for status in found:
            detector.handle_status(status, retained=retained, now_s=self.now_s)
        detector.note_sent(OWN)
        detector.note_acknowledged()
        self.now_s += lasts_s
        return detector.connection_lost(reason, is_explained=is_explained, now_s=self.now_s)


def test_foreign_status_on_two_connections() -> None:
    """The first connection proves nothing, the third names the fault and the reason of its end."""
    bench = Bench()
    assert bench.connect(EARLIER) == "closed"
    assert bench.connect(FOREIGN) == "closed"
    assert bench.detector.fault == ""
    assert bench.connect(FOREIGN, FOREIGN) == "session_taken_over"
    assert bench.detector.fault == "duplicate_id"


def test_reason_code_of_the_broker() -> None:
    """One `session_taken_over` is enough."""
    bench = Bench()
    assert bench.connect(reason="session_taken_over") == "session_taken_over"
    assert bench.detector.fault == "duplicate_id"


def test_foreign_status_while_connected() -> None:
    """Brokers of a cluster may serve two clients with one id: a live foreign status is enough."""
    bench = Bench()
    bench.connect()
    bench.connect(FOREIGN, retained=False)
    assert bench.detector.fault == "duplicate_id"


@pytest.mark.parametrize("found", [(), (OWN,), (b"",), (EARLIER,)])
def test_broker_that_crashes(found: tuple[bytes, ...]) -> None:
    """What the broker restores is no proof; after five short connections the fault names both causes."""
    bench = Bench()
    for count in range(SHORT_CONNECTIONS):
        assert bench.detector.fault == ""
        assert bench.connect(*((EARLIER,) if count == 0 else found)) == "closed"
    assert bench.detector.fault == "unstable"


def test_broker_that_was_down() -> None:
    """A broker that refuses connections in between has ended them by itself."""
    bench = Bench()
    bench.connect()
    for _ in range(3):
        bench.connect(FOREIGN)
        bench.detector.connect_failed("refused")
    assert bench.detector.fault == ""


def test_another_broker() -> None:
    """What another broker keeps is from before, until this process has published there."""
    bench = Bench()
    bench.connect()
    bench.connect(EARLIER, address=OTHER_BROKER)
    bench.connect(EARLIER, address=OTHER_BROKER)
    bench.connect(EARLIER, address=OTHER_BROKER)
    assert bench.detector.fault == ""


def test_refused_messages_explain_short_connections() -> None:
    """mosquitto 2.0.11 closes the connection after each refused message."""
    bench = Bench()
    for _ in range(2 * SHORT_CONNECTIONS):
        bench.connect(is_explained=True)
    assert bench.detector.fault == ""


@pytest.mark.parametrize(("lasts_s", "fault"), [(TUNING.calm_s - 0.001, "duplicate_id"), (TUNING.calm_s, "")])
def test_fault_ends_after_a_long_connection(lasts_s: float, fault: str) -> None:
    """The other client pauses for a minute at most: then it would have come back."""
    bench = Bench()
    bench.connect(reason="session_taken_over")
    bench.detector.begin(BROKER, now_s=0.0)
    bench.detector.check(lasts_s)
    assert bench.detector.fault == fault


def test_own_statuses_are_remembered() -> None:
    """The newest 256 statuses of this process are not foreign."""
    bench = Bench()
    bench.connect()
    statuses = [str(number).encode() for number in range(MAX_SENT)]
    for status in statuses:
        bench.detector.note_sent(status)
    bench.connect(statuses[0])
    bench.connect(statuses[0])
    assert bench.detector.fault == ""


class Device:
    """A publisher of the device `kitchen` with an outbox, a health, and a status of its own."""

    def __init__(self, broker: Mosquitto, directory: Path, stack: ExitStack, number: int) -> None:
        self.health = Health()
        self.changes: list[ConnectionState] = []
        self.number = number
        self.outbox = open_outbox(directory / f"{number}.sqlite")
        stack.callback(self.outbox.close)
        self.publisher = Publisher(
            settings_of(broker), device="kitchen", outbox=self.outbox, on_state=self._note, tuning=QUICK
        )
        stack.callback(self.publisher.close)
        self._publish_status()
        self.health.subscribe(lambda *_: self._publish_status())
        self.publisher.start()

    def _publish_status(self) -> None:
        self.publisher.publish_state("status", {"reasons": self.health.reasons, "since": self.number})

    def _note(self, state: ConnectionState) -> None:
        self.changes.append(state)
        report_connection(self.health, state)

    def add_event(self, count: int) -> None:
        """Add an event whose number is unique among all devices."""
        self.outbox.append(make_event(1000 * self.number + count))
        self.publisher.event_added()

    @property
    def has_named_it(self) -> bool:
        """Whether the fault was named at any time."""
        return any("duplicate_id" in state.faults for state in self.changes)


def test_two_devices_with_one_id(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Both name it, and every event of both arrives, in order; when one device ends, the fault ends."""
    topic = "emotion/kitchen/event"
    with watching(mosquitto, topic) as watcher, ExitStack() as stack:
        devices = [Device(mosquitto, tmp_path, stack, number) for number in range(2)]
        for count in range(EVENTS):
            for device in devices:
                device.add_event(count)
            time.sleep(0.05)
        wait_until(lambda: all(device.has_named_it for device in devices), "both name the other")
        for device in devices:
            wait_until(is_empty(device.outbox), "an empty outbox", timeout_s=60)
        for device in devices:
            numbers = [json.loads(payload)["data"]["number"] for payload in watcher.on(topic)]
            first_seen = dict.fromkeys(n for n in numbers if n // 1000 == device.number)
            assert list(first_seen) == [1000 * device.number + count for count in range(EVENTS)]
            assert device.outbox.counts().refused == 0
        devices[1].publisher.close()
        wait_until(lambda: devices[0].health.reasons == [], "the fault ends", timeout_s=60)
        assert devices[0].publisher.connection_state.connected
