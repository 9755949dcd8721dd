"""A fleet behind one broker: it restarts, and all come back, but not all at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.audit import Auditor
from tests.chaos.fleet import ConnectionChange, Fleet, Plan
from tests.chaos.outcome import Outcome, pick
from tests.helpers.brokers import running, wait_until
from tests.helpers.sites import SiteMosquitto

DEVICES = pick(50, 1000)
SECONDS = pick(3, 120)
RATE_HZ = pick(50.0, 200.0)  # of all together
EVENTS = round(SECONDS * RATE_HZ / DEVICES)  # of each
BIN_S = 0.1
MOST_IN_A_BIN = max(12, DEVICES // 10)
PASSWORD = "of-this-test"


def connects(changes: Sequence[ConnectionChange], since_s: float) -> list[float]:
    """Return when each device was connected for the first time after `since_s`, in seconds from then."""
    first: dict[str, float] = {}
    for change in changes:
        if change.connected and change.t_s > since_s:
            first.setdefault(change.device, change.t_s - since_s)
    return sorted(first.values())


def test_broker_restart_under_a_fleet(
    tmp_path: Path, record: Callable[[Outcome], None], progress: Callable[[str], None]
) -> None:
    """After a restart the connects are spread over seconds, and no event is lost."""
    devices = [f"device-{number}" for number in range(DEVICES)]
    broker = SiteMosquitto(tmp_path, dict.fromkeys([*devices, "reader"], PASSWORD))
    plan = Plan(
        mqtt={"port": broker.port},
        directory=str(tmp_path / "devices"),
        devices=devices,
        events=EVENTS,
        rate_hz=RATE_HZ,
        password=PASSWORD,
    )
    total = DEVICES * EVENTS
    with (
        running(broker),
        Auditor([(broker.host, broker.port)], username="reader", password=PASSWORD) as auditor,
        Fleet(plan) as fleet,
    ):

        def has_arrived(count: int) -> bool:
            progress(f"{auditor.arrived} of {total} events, {len(fleet.connected())} connected")
            return auditor.arrived >= count

        wait_until(lambda: len(fleet.connected()) == DEVICES, "all connected", timeout_s=60)
        wait_until(lambda: has_arrived(total // 3), "a third", timeout_s=SECONDS * 2)
        down_s = time.monotonic()
        broker.stop()
        broker.start()
        restarted_s = time.time()
        wait_until(
            lambda: len(connects(fleet.connection_changes(), down_s)) == DEVICES, "all back", timeout_s=120
        )
        wait_until(lambda: has_arrived(total), "all events", timeout_s=SECONDS * 3)
        times_s = connects(fleet.connection_changes(), down_s)
        histogram = Counter(int(t_s / BIN_S) for t_s in times_s)
        busiest = max(histogram.values())
        lost = sum(len(auditor.lost(device, EVENTS)) for device in devices)
        outcome = Outcome(
            "fleet",
            f"{DEVICES} devices, {total} events",
            "broker restart",
            lost,
            auditor.duplicated,
            auditor.out_of_order,
            times_s[-1],
            f"connects from {times_s[0]:.1f} to {times_s[-1]:.1f} s, at most {busiest} in 100 ms, "
            f"first event {auditor.recover_s(restarted_s):.1f} s",
        )
        print("connects per 100 ms:", [histogram[n] for n in range(max(histogram) + 1)])
    record(outcome)
    assert lost == 0
    assert auditor.out_of_order == 0
    assert busiest <= MOST_IN_A_BIN, sorted(histogram.items())
