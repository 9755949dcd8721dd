"""The speed that delivery promises, measured on this machine; run with `-s` to read the figures."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from brokers import Broker, Mosquitto, is_empty, make_event, publishing, settings_of, wait_until

from edge.outbox import Outbox

Record = Callable[[str, object], None]


def test_durable_events_a_second(outbox: Outbox, record_property: Record) -> None:
    """At least 3,000 events a second, each on the disk before `append_many` returns, in batches of twenty."""
    rates = []
    for round_ in range(3):  # the best of three: the others share this disk
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

    Nobody subscribes: with a subscriber, most of the time is mosquitto's own, which here writes its whole
    store at every change in order to survive kill -9.
    """
    with publishing(settings_of(mosquitto), outbox) as publisher:
        wait_until(lambda: publisher.link.connected, "a connection")
        mosquitto.stop()
        wait_until(lambda: not publisher.link.connected, "a lost connection")
        for start in range(0, 5000, 100):
            outbox.append_many([make_event(start + n, padding=300) for n in range(100)])
        mosquitto.start()
        wait_until(lambda: publisher.link.connected, "a new connection")
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


def wakes(name: str) -> int:
    """Return how often one thread of this process has gone to sleep."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return int(status.split("voluntary_ctxt_switches:")[1].split()[0])


def wake_now_and_then(stop: threading.Event) -> None:
    """Wake once a second for a tenth of a millisecond's work: what that costs is the machine's doing."""
    while not stop.wait(1.0):
        json.loads(json.dumps({str(number): number for number in range(200)}))


def test_idle_publisher_sleeps(broker: Broker, outbox: Outbox, record_property: Record) -> None:
    """Connected with nothing to do, the thread wakes about once a second and takes at most 1 % of a core.

    Some virtual machines take their memory back from whoever sleeps, and work is fifty times slower after
    each waking: there a thread that does hardly anything says how much.
    """
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the kernel keeps no CONFIG_SCHED_INFO")
    stop = threading.Event()
    other = threading.Thread(target=wake_now_and_then, args=(stop,), name="other", daemon=True)
    with publishing(settings_of(broker), outbox) as publisher:
        wait_until(lambda: publisher.link.connected, "a connection")
        wait_until(lambda: not publisher._inflight, "an end of the greetings")
        other.start()
        before_s, woken, others_s, started_s = cpu_s("mqtt"), wakes("mqtt"), cpu_s("other"), time.monotonic()
        threading.Event().wait(5.0)  # idleness is what is measured here
        lasted_s = time.monotonic() - started_s
        share, others = (cpu_s("mqtt") - before_s) / lasted_s, (cpu_s("other") - others_s) / lasted_s
        a_second = (wakes("mqtt") - woken) / lasted_s
    stop.set()
    other.join()
    record_property("idle_cpu_percent", round(100 * share, 3))
    print(f"the idle MQTT thread takes {100 * share:.3f} % of a core, the other {100 * others:.3f} %")
    print(f"it goes to sleep {a_second:.1f} times a second")
    assert a_second <= 10  # with waits for locks; a loop that looks every 100 ms has more
    assert share <= 0.01 + 5 * others
