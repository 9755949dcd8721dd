"""Workers without progress within their limits are stuck."""

from __future__ import annotations

import pytest

from edge.delivery.outbox.queue import Outbox
from edge.health import Health
from edge.settings import MqttSettings
from tests.helpers.brokers import Broker, free_port, publishing, settings_of, wait_until


def test_each_worker_has_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its limit a worker is not stuck, a nanosecond later it is; progress ends that."""
    now = 0
    monkeypatch.setattr("edge.health.time.monotonic_ns", lambda: now)
    health = Health()
    health.progress("camera")
    health.progress("mqtt", limit_s=180)
    now = 15_000_000_000
    assert health.stuck() == []
    now += 1
    assert health.stuck() == ["camera"]
    now = 180_000_000_001
    assert health.stuck() == ["camera", "mqtt"]
    health.progress("mqtt", limit_s=180)
    assert health.stuck() == ["camera"]


def test_sender_makes_progress_with_and_without_a_broker(outbox: Outbox, broker: Broker) -> None:
    """The publisher reports progress while it waits for a broker and for messages."""
    for settings in (MqttSettings(port=free_port()), settings_of(broker)):
        calls: list[None] = []
        with publishing(settings, outbox, on_progress=lambda: calls.append(None)):
            wait_until(lambda: len(calls) >= 3, "three calls")
