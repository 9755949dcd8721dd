"""The network between device and broker: gone without a word, slow, half-open; every event arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.chaos.audit import Auditor
from tests.chaos.fleet import Fleet, Plan
from tests.chaos.outcome import Outcome, pick
from tests.chaos.proxy import Proxy
from tests.helpers.brokers import running, wait_until
from tests.helpers.sites import SiteMosquitto

EVENTS = pick(200, 5000)
RATE_HZ = pick(60.0, 80.0)
KEEPALIVE_S = pick(5, 20)
HOLE_S = pick(2.0, 60.0)
SLOW_S = pick(2.0, 30.0)
PASSWORD = "of-this-test"

Record = Callable[[Outcome], None]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """A device that makes events behind a proxy, and who counts them at the broker."""

    proxy: Proxy
    device: Fleet
    auditor: Auditor
    progress: Progress

    def wait_for(self, count: int) -> None:
        """Wait until so many different events arrived."""

        def is_there() -> bool:
            self.progress(f"{self.auditor.arrived} of {EVENTS} events")
            return self.auditor.arrived >= count

        wait_until(
            is_there, f"{count} events", timeout_s=EVENTS / RATE_HZ + 4 * KEEPALIVE_S + HOLE_S + SLOW_S
        )

    def has_reconnected_since(self, t_s: float) -> bool:
        """Return whether the device lost its connection after `t_s` (monotonic) and has a new one."""
        return any(change.connected and change.t_s > t_s for change in self.device.connection_changes())

    def outcome(self, fault: str, recover_s: float, note: str = "") -> Outcome:
        """Wait for the remaining events and return the outcome."""
        self.wait_for(EVENTS)
        lost = len(self.auditor.lost("kitchen", EVENTS))
        auditor = self.auditor
        load = f"{EVENTS} events"
        return Outcome(
            "network", load, fault, lost, auditor.duplicated, auditor.out_of_order, recover_s, note
        )


@pytest.fixture
def network(tmp_path: Path, progress: Progress) -> Iterator[Network]:
    """The sample mosquitto, a proxy before it, and a device that makes events from now on."""
    broker = SiteMosquitto(tmp_path, {"kitchen": PASSWORD, "reader": PASSWORD})
    with (
        running(broker),
        Auditor([(broker.host, broker.port)], username="reader", password=PASSWORD) as auditor,
        Proxy(broker.host, broker.port) as proxy,
    ):
        plan = Plan(
            mqtt={"port": proxy.port, "keepalive_s": KEEPALIVE_S},
            directory=str(tmp_path / "device"),
            events=EVENTS,
            rate_hz=RATE_HZ,
            password=PASSWORD,
        )
        with Fleet(plan) as device:
            yield Network(proxy, device, auditor, progress)


def check(outcome: Outcome, record: Record) -> None:
    """Put the row into the table and hold it against what must be."""
    record(outcome)
    assert outcome.lost == 0
    assert outcome.out_of_order == 0
    assert outcome.recover_s <= 2 * KEEPALIVE_S


def test_black_hole(network: Network, record: Record) -> None:
    """Nothing passes for a while, not even a goodbye; afterwards the stream goes on where it was."""
    network.wait_for(EVENTS // 3)
    network.proxy.cut()
    time.sleep(HOLE_S)  # the fault itself
    network.proxy.mend()
    mended_s = time.time()
    outcome = network.outcome(f"black hole {HOLE_S:.0f} s", 0.0)
    recover_s = network.auditor.recover_s(mended_s)
    check(replace(outcome, recover_s=recover_s), record)


def test_slow_link(network: Network, record: Record) -> None:
    """A network slower than the events delays them, and loses neither an event nor the connection."""
    network.wait_for(EVENTS // 4)
    started_s = time.monotonic()
    network.proxy.slow(bytes_per_s=16_000, delay_s=0.3)
    time.sleep(SLOW_S)  # the fault itself
    network.proxy.slow(bytes_per_s=float("inf"), delay_s=0.0)
    mended_s = time.time()
    outcome = network.outcome(f"16 kB/s, 0.3 s, for {SLOW_S:.0f} s", 0.0)
    check(replace(outcome, recover_s=network.auditor.recover_s(mended_s)), record)
    assert not network.has_reconnected_since(started_s)


def test_half_open_connection(network: Network, record: Record) -> None:
    """The connection is dead without a FIN or RST: the device notices and reconnects in time."""
    network.wait_for(EVENTS // 3)
    network.proxy.forget()
    forgotten_s = time.monotonic()
    wait_until(
        lambda: network.has_reconnected_since(forgotten_s), "a new connection", timeout_s=4 * KEEPALIVE_S + 10
    )
    recover_s = time.monotonic() - forgotten_s
    check(network.outcome("half-open connection", recover_s, f"keep-alive {KEEPALIVE_S} s"), record)
