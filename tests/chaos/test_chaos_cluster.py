"""Many sites: three NATS nodes of the shipped configuration, of which one after the other is killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.audit import Auditor
from tests.chaos.fleet import Fleet, Plan
from tests.chaos.outcome import Outcome, pick
from tests.helpers.brokers import wait_until
from tests.helpers.sites import NatsNode, running_cluster

DEVICES = pick(6, 50)
EVENTS = pick(40, 200)  # of each
RATE_HZ = pick(60.0, 150.0)  # of all together
BACK_S = 30.0
PATIENCE_S = 120.0


def test_cluster_loses_one_node_after_the_other(
    tmp_path: Path, record: Callable[[Outcome], None], progress: Callable[[str], None]
) -> None:
    """kill -9 of the node of most clients, then of another when the first is back: nothing is lost."""
    devices = [f"room-{number}" for number in range(1, DEVICES + 1)]
    total = DEVICES * EVENTS
    with running_cluster(tmp_path, devices) as nodes:
        addresses = [(node.host, node.port) for node in nodes]
        plan = Plan(
            mqtt={"host": [f"{host}:{port}" for host, port in addresses]},
            directory=str(tmp_path / "devices"),
            devices=devices,
            events=EVENTS,
            rate_hz=RATE_HZ,
            password="change-me-1",
        )
        with Auditor(addresses, username="reader", password="change-me-2") as auditor, Fleet(plan) as fleet:

            def has_arrived(count: int) -> bool:
                progress(f"{auditor.arrived} of {total} events, {len(fleet.connected())} connected")
                return auditor.arrived >= count

            def kill(node: NatsNode) -> float:
                """Kill a node; return how long it took until every device had a connection again."""
                killed_s = time.monotonic()
                clients = node.clients()
                node.kill()

                def dropped() -> int:
                    return len(
                        {
                            change.device
                            for change in fleet.connection_changes()
                            if not change.connected and change.t_s > killed_s
                        }
                    )

                # One of its clients may have been the auditor.
                wait_until(lambda: dropped() >= clients - 1, f"{clients} lost connections")
                wait_until(lambda: len(fleet.connected()) == DEVICES, "all back", timeout_s=PATIENCE_S)
                return time.monotonic() - killed_s

            wait_until(lambda: len(fleet.connected()) == DEVICES, "all connected", timeout_s=60)
            wait_until(lambda: has_arrived(total // 5), "a fifth", timeout_s=PATIENCE_S)
            first = max(nodes, key=NatsNode.clients)
            backs_s = [kill(first)]
            first.start()
            wait_until(lambda: first.accepts("reader", "change-me-2"), "the first again", timeout_s=60)
            wait_until(lambda: has_arrived(total // 2), "half", timeout_s=PATIENCE_S)
            second = max((node for node in nodes if node is not first), key=NatsNode.clients)
            backs_s.append(kill(second))
            second.start()
            wait_until(lambda: has_arrived(total), "all events", timeout_s=PATIENCE_S)
        lost = sum(len(auditor.lost(device, EVENTS)) for device in devices)
    outcome = Outcome(
        "cluster",
        f"3 NATS nodes, R3, {DEVICES} devices, {total} events",
        "kill -9 of two nodes in turn",
        lost,
        auditor.duplicated,
        auditor.out_of_order,
        max(backs_s),
    )
    record(outcome)
    assert lost == 0
    assert max(backs_s) <= BACK_S
