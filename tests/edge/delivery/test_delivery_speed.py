"""Throughput of the delivery and its cost when idle; `make bench` prints the figures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.delivery.outbox.queue import Outbox
from tests.helpers.brokers import (
    Broker,
    Mosquitto,
    is_empty,
    make_event,
    publishing,
    settings_of,
    wait_until,
    watching,
)

pytestmark = pytest.mark.bench

Record = Callable[[str, object], None]


def test_durable_events_a_second(outbox: Outbox, record_property: Record) -> None:
    """At least 3,000 events a second, each on the disk before `append_many` returns, in batches of twenty."""
    rates = []
    for round_ in range(3):  # the best of three, since other processes use the disk too
        started_s = time.monotonic()
        for start in range(0, 3000, 20):
            outbox.append_many([make_event(10_000 * round_ + start + n, padding=700) for n in range(20)])
        rates.append(3000 / (time.monotonic() - started_s))
    record_property("durable_events_per_second", round(max(rates)))
    print(f"{max(rates):.0f} durable events a second in batches of 20")
    assert max(rates) >= 3000


def test_waiting_events_after_a_reconnect(
    mosquitto: Mosquitto, outbox: Outbox, record_property: Record
) -> None:
    """5,000 events that waited for the broker are acknowledged by it within 5 s of its return.

    Without a subscriber, which would take most of the time: mosquitto here writes its whole store at every
    change in order to survive kill -9.
    """
    with publishing(settings_of(mosquitto), outbox) as publisher:
        wait_until(lambda: publisher.connection_state.connected, "a connection")
        mosquitto.stop()
        wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
        for start in range(0, 5000, 100):
            outbox.append_many([make_event(start + n, padding=300) for n in range(100)])
        mosquitto.start()
        wait_until(lambda: publisher.connection_state.connected, "a new connection")
        started_s = time.monotonic()
        wait_until(is_empty(outbox), "an empty outbox", timeout_s=60)
        took_s = time.monotonic() - started_s
        assert outbox.counts().refused == outbox.counts().dropped == 0
    record_property("publish_5000_s", round(took_s, 2))
    print(f"5,000 waiting events published in {took_s:.2f} s")
    assert took_s <= 5.0


def cpu_s(name: str) -> float:
    """Return the processor time of one thread of this process."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    assert thread.native_id is not None
    fields = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def test_idle_publisher_sleeps(broker: Broker, outbox: Outbox, record_property: Record) -> None:
    """Connected and idle, the thread uses at most 1 % of a core."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel keeps no CONFIG_SCHED_INFO")
    availability = "emotion/kitchen/availability"
    with watching(broker, availability) as watcher, publishing(settings_of(broker), outbox):
        watcher.wait_for(availability, b"online")
        before_s, started_s = cpu_s("mqtt"), time.monotonic()
        threading.Event().wait(5.0)  # the thread is measured while it is idle
        share = (cpu_s("mqtt") - before_s) / (time.monotonic() - started_s)
    record_property("idle_cpu_percent", round(100 * share, 3))
    print(f"the idle MQTT thread takes {100 * share:.3f} % of a core")
    assert share <= 0.01
