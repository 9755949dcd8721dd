"""The topic `status` follows faults, switches and the preview."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from edge.delivery.messages import load_schema
from edge.delivery.outbox.queue import Outbox
from edge.delivery.publisher import Publisher
from edge.delivery.status import StatusTopic
from edge.health import Health
from edge.settings import DeviceSettings, MqttSettings

PASSED_OVER = {"gpu": "no_device"}
CPU: dict[str, Any] = {
    task: SimpleNamespace(backend="cpu", passed_over=PASSED_OVER) for task in ("face", "voice")
}


class Bench:
    """A status topic with a publisher that has no connection."""

    def __init__(self, outbox: Outbox, *, is_paused: bool = False) -> None:
        self.health = Health()
        self.lines: list[str] = []
        self.publisher = Publisher(MqttSettings(), device="lab", outbox=outbox)
        self.status = StatusTopic(
            self.publisher,
            self.health,
            CPU,
            device=DeviceSettings(),
            is_paused=is_paused,
            show_line=self.lines.append,
        )

    def published(self) -> dict[str, Any]:
        """Return the status at the publisher, checked by the schema."""
        payload = self.publisher.payloads["status"]
        jsonschema.Draft202012Validator(load_schema("status")).validate(payload)
        return payload


@pytest.fixture
def bench(outbox: Outbox) -> Bench:
    """Devices that are on, and no fault."""
    return Bench(outbox)


def test_payload_is_what_was_published(bench: Bench) -> None:
    """Empty before the first status, then equal to the one at the publisher."""
    assert bench.status.payload == {}
    bench.status.publish("starting")
    assert bench.published() == bench.status.payload
    assert bench.published()["state"] == "starting"
    assert bench.published()["backends"]["face"] == {"backend": "cpu", "passed_over": PASSED_OVER}
    assert bench.published()["context"] == "home"


def test_fault_makes_the_state_degraded_until_it_ends(bench: Bench) -> None:
    """The reasons and the time of the change come from the health, and the line names the state."""
    bench.health.subscribe(lambda *_: bench.status.publish())
    bench.health.fault("camera", "no_device", "")
    assert (bench.published()["state"], bench.published()["reasons"]) == ("degraded", ["camera:no_device"])
    bench.health.clear("camera")
    assert (bench.published()["state"], bench.published()["reasons"]) == ("running", [])
    assert bench.lines == ["degraded camera:no_device", "running"]


def test_all_devices_off_is_paused_even_with_a_fault(bench: Bench) -> None:
    """The fault stays among the reasons; the state is running again when a device is on."""
    bench.health.fault("disk", "low", "")
    bench.status.set_paused(True)
    assert (bench.published()["state"], bench.published()["reasons"]) == ("paused", ["disk:low"])
    bench.health.clear("disk")
    bench.status.set_paused(False)
    assert bench.published()["state"] == "running"


def test_devices_that_are_off_from_the_start_are_paused(outbox: Outbox) -> None:
    """The switches of the last run count before the first command."""
    bench = Bench(outbox, is_paused=True)
    bench.status.publish()
    assert bench.published()["state"] == "paused"
    bench.status.publish("stopping")
    assert bench.published()["state"] == "stopping"


def test_preview_is_published_when_it_begins_and_ends(bench: Bench) -> None:
    """The clock reports it every second; only a change is published."""
    for is_on in (False, True, True, False, False):
        bench.status.set_preview(is_on)
    assert len(bench.lines) == 2
    assert bench.published()["preview"] is False
