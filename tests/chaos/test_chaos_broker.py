"""Brokers that crash at each connect or take only a part, and a link that damages: every event arrives."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.audit import Auditor
from tests.chaos.fleet import Fleet, Plan
from tests.chaos.outcome import Outcome, pick
from tests.helpers.brokers import Mosquitto, running, wait_until
from tests.helpers.packets import PUBACK, PUBLISH, Action, Packet, PacketPath, packet_path

RATE_HZ = 100.0
PATIENCE_S = pick(60.0, 180.0)
CRASHES = pick(8, 20)
FAULTS = pick(25, 200)
DISCOVERY = "homeassistant/device/kitchen/config"
DISCOVERY_BYTES = 7400
# There is no fleet to spread; a connection that ends at once must not pause the test for a minute.
BRISK = {"first_pause_s": (0.02, 0.2), "stable_s": 0.0, "size_pause_s": (0.02, 0.2)}
WAR_S = pick(15.0, 30.0)  # two devices with one id run at least so long
WAR_CONNECTIONS = 20  # of both, while the pauses grow to a minute
V5, V311 = (5, 4), (4,)

Record = Callable[[Outcome], None]
Progress = Callable[[str], None]


def plan_of(port: int, directory: Path, events: int, **tuning: object) -> Plan:
    """Return a device whose discovery message has its real size."""
    return Plan(
        mqtt={"port": port, "keepalive_s": 5},
        directory=str(directory / "device"),
        events=events,
        rate_hz=RATE_HZ,
        retained={DISCOVERY: DISCOVERY_BYTES},
        tuning={**BRISK, **tuning},
    )


def connects(device: Fleet) -> int:
    """Return how often the device was connected so far."""
    return len({change.t_s for change in device.connection_changes() if change.connected})


def finish(device: Fleet, auditor: Auditor, load: Outcome, record: Record) -> None:
    """Wait for the remaining events, put the row into the table, and hold it against what must be."""
    events = device.plan.events
    since_s = time.time()
    with suppress(pytest.fail.Exception):  # the row lists how many are missing
        wait_until(device.has_delivered, "an empty outbox", timeout_s=PATIENCE_S)
        wait_until(lambda: auditor.arrived >= events, "all events", timeout_s=PATIENCE_S)
    counts = device.counts()["kitchen"]
    outcome = Outcome(
        load.test,
        f"{events} events",
        load.fault,
        lost=len(auditor.lost("kitchen", events)),
        duplicated=auditor.duplicated,
        out_of_order=auditor.out_of_order,
        recover_s=time.time() - since_s,
        note=load.note,
        dead_letters=counts.refused,
    )
    record(outcome)
    assert (outcome.lost, outcome.out_of_order, outcome.dead_letters, counts.dropped) == (0, 0, 0, 0)


def row(test: str, fault: str, note: str = "") -> Outcome:
    """Return the names of a row, without its counts."""
    return Outcome(test, "", fault, 0, 0, 0, 0.0, note)


def test_broker_that_crashes_at_each_connect(tmp_path: Path, record: Record, progress: Progress) -> None:
    """mosquitto is killed as soon as the device is connected, many times in a row."""
    events, seed = pick(400, 2000), 19
    chance = random.Random(seed)
    broker = Mosquitto(tmp_path)
    plan = plan_of(broker.port, tmp_path, events, protocols=V5)
    with running(broker), Auditor([(broker.host, broker.port)]) as auditor, Fleet(plan) as device:
        for crash in range(CRASHES):
            wait_until(lambda: connects(device) > crash, f"connection {crash + 1}")
            time.sleep(chance.choice([0.0, 0.01, 0.05, 0.2]))  # what is in flight then
            broker.kill()
            broker.start()
            progress(f"crash {crash + 1} of {CRASHES}, {auditor.arrived} events")
        finish(device, auditor, row("broker", f"killed at each connect x{CRASHES}, seed {seed}"), record)


class Damage:
    """Damages a share of the packets of both directions, until there were `faults`."""

    def __init__(self, seed: int, faults: int, *, freezes: int) -> None:
        self.left = faults
        self._freezes = freezes
        self._chance = random.Random(seed)

    def __call__(self, packet: Packet) -> Action:
        """Choose what happens to a packet."""
        if self.left <= 0 or packet.kind not in (1, 2, PUBLISH, PUBACK) or self._chance.random() > 0.05:
            return "pass"
        actions: list[Action] = ["close", "truncate", "pass_and_close"]
        if packet.kind == PUBACK and not packet.from_device:
            actions += ["drop"] * 4
        if self._freezes:
            actions.append("freeze")
        action = self._chance.choice(actions)
        self._freezes -= action == "freeze"
        self.left -= 1
        return action


def describe(path: PacketPath) -> str:
    """Return how often each fault happened."""
    return ", ".join(f"{action} {count}" for action, count in sorted(path.counts.items()) if action != "pass")


@pytest.mark.parametrize("seed", pick([1], [1, 2, 3, 4, 5]))
@pytest.mark.parametrize("protocols", [V5, V311], ids=["5", "3.1.1"])
def test_link_that_damages(
    tmp_path: Path, record: Record, progress: Progress, seed: int, protocols: tuple[int, ...]
) -> None:
    """Half-open, truncated in mid-packet, acknowledgements lost, connections closed at any packet."""
    events = pick(400, 2000)
    broker, damage = Mosquitto(tmp_path), Damage(seed, FAULTS, freezes=pick(1, 5))
    with (
        running(broker),
        Auditor([(broker.host, broker.port)]) as auditor,
        packet_path(broker.host, broker.port, damage) as path,
        Fleet(plan_of(path.port, tmp_path, events, protocols=protocols, no_ack_s=3.0)) as device,
    ):

        def is_over() -> bool:
            progress(f"{damage.left} faults left, {auditor.arrived} events")
            return damage.left == 0 or device.has_delivered()

        wait_until(is_over, "all faults", timeout_s=PATIENCE_S)
        version = "3.1.1" if protocols == V311 else "5"
        names = row("network", f"damaged packets, MQTT {version}, seed {seed}", describe(path))
        finish(device, auditor, names, record)


@pytest.mark.parametrize("limit", [3000, 1500])
@pytest.mark.parametrize("protocols", [V5, V311], ids=["5", "3.1.1"])
def test_broker_with_a_size_limit(
    tmp_path: Path, record: Record, limit: int, protocols: tuple[int, ...]
) -> None:
    """The discovery message is left out and named, with a stated limit (MQTT 5) and without one (3.1.1)."""
    broker = Mosquitto(tmp_path, f"max_packet_size {limit}")
    plan = plan_of(broker.port, tmp_path, pick(200, 2000), protocols=protocols)
    with running(broker), Auditor([(broker.host, broker.port)]) as auditor, Fleet(plan) as device:
        wait_until(
            lambda: any("packet_too_large" in change.faults for change in device.connection_changes()),
            "packet_too_large",
            timeout_s=PATIENCE_S,
        )
        version = "3.1.1" if protocols == V311 else "5"
        names = row("broker", f"max_packet_size {limit}, MQTT {version}", "packet_too_large named")
        finish(device, auditor, names, record)
        assert connects(device) <= (15 if protocols == V311 else 1)


def test_broker_without_retained_messages(tmp_path: Path, record: Record) -> None:
    """The fault is named, and the events flow."""
    broker = Mosquitto(tmp_path, "retain_available false")
    plan = plan_of(broker.port, tmp_path, pick(200, 2000))
    with running(broker), Auditor([(broker.host, broker.port)]) as auditor, Fleet(plan) as device:
        wait_until(
            lambda: any("retain_not_supported" in change.faults for change in device.connection_changes()),
            "retain_not_supported",
        )
        names = row("broker", "retain_available false", "retain_not_supported named")
        finish(device, auditor, names, record)


def test_takeover_war(tmp_path: Path, record: Record, progress: Progress) -> None:
    """Two devices with one id end each other's connections; both name it, and every event arrives."""
    events = pick(200, 2000)
    broker = Mosquitto(tmp_path)
    plans = [
        Plan(
            mqtt={"port": broker.port, "keepalive_s": 5},
            directory=str(tmp_path / stream),
            events=events,
            rate_hz=RATE_HZ,
            tuning={"first_pause_s": (0.05, 0.5)},
            stream=stream,
        )
        for stream in ("first", "second")
    ]
    since_s = time.monotonic()
    with (
        running(broker),
        Auditor([(broker.host, broker.port)], by_id=True) as auditor,
        Fleet(plans[0]) as first,
        Fleet(plans[1]) as second,
    ):
        devices = (first, second)

        def is_over() -> bool:
            progress(f"{sum(map(connects, devices))} connections, {auditor.arrived} events")
            return all(device.has_delivered() for device in devices) and all(map(has_named_it, devices))

        def has_named_it(device: Fleet) -> bool:
            return any("duplicate_id" in change.faults for change in device.connection_changes())

        with suppress(pytest.fail.Exception):  # the row lists what is missing
            wait_until(is_over, "all events of both", timeout_s=3 * PATIENCE_S)
        took_s = time.monotonic() - since_s
        time.sleep(max(0.0, WAR_S - took_s))
        count = sum(map(connects, devices))
        counts = [device.counts()["kitchen"] for device in devices]
        outcome = Outcome(
            "broker",
            f"2 x {events} events",
            "two devices with one id",
            lost=sum(len(auditor.lost(f"{plan.stream}kitchen", events)) for plan in plans),
            duplicated=auditor.duplicated,
            out_of_order=auditor.out_of_order,
            recover_s=took_s,
            note=f"{count} connections in {max(WAR_S, took_s):.0f} s",
            dead_letters=sum(c.refused for c in counts),
        )
        record(outcome)
        assert all(map(has_named_it, devices))
        assert (outcome.lost, outcome.out_of_order, outcome.dead_letters) == (0, 0, 0)
        assert sum(c.dropped for c in counts) == 0
        assert count <= WAR_CONNECTIONS
