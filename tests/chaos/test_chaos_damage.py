"""Random damage to the outbox of a killed device: what can be read arrives, the remainder is reported."""

from __future__ import annotations

import json
import logging
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.delivery.outbox.high_water_mark import BLOCK
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.writer import OutboxWriter
from edge.health import Health
from tests.chaos.fleet import Fleet, Plan, make_event, open_outbox, path_of
from tests.chaos.outcome import Outcome, pick
from tests.helpers.brokers import (
    Mosquitto,
    Watcher,
    free_port,
    publishing,
    running,
    settings_of,
    wait_until,
    watching,
)

EVENT = "emotion/kitchen/event"
SENT, CHECKPOINTED, LAST = 40, 120, 200  # sequences: sent; waiting in the database; waiting in its log
NEW = 5  # events after the restart
SEEDS = range(pick(3, 20))
PATIENCE_S = 60.0

Record = Callable[[Outcome], None]


@dataclass(frozen=True)
class Source:
    """The outbox of a device that was killed, and the payloads of its events by sequence."""

    plan: Plan
    payloads: dict[int, bytes]


@dataclass(frozen=True)
class Restart:
    """What one start on a damaged outbox did."""

    arrived: list[bytes]
    refused: set[int]
    is_reported: bool
    recover_s: float


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Send some events, leave more in the database after a clean stop, and more in its log after a kill."""
    directory = tmp_path_factory.mktemp("source")
    broker = Mosquitto(directory)
    with running(broker), watching(broker, EVENT) as watcher:
        plan = Plan(mqtt={"port": broker.port}, directory=str(directory / "device"), events=SENT)
        with Fleet(plan) as device:
            wait_until(device.has_delivered, "an empty outbox", timeout_s=PATIENCE_S)
        sent = watcher.on(EVENT)
    for last in (CHECKPOINTED, LAST):
        plan = Plan(mqtt={"port": free_port()}, directory=plan.directory, events=last)
        with Fleet(plan) as device:
            wait_until(lambda: newest(plan) == last, f"{last} events in the outbox", timeout_s=PATIENCE_S)
            if last == LAST:
                device.kill()
    copy = copied(plan, directory / "copy")
    with closing(open_outbox(copy, "kitchen")) as outbox:
        waiting = [row.payload for row in outbox.waiting(LAST)]
    return Source(plan, {json.loads(payload)["sequence"]: payload for payload in [*sent, *waiting]})


def newest(plan: Plan) -> int:
    """Return the newest sequence, read without moving the log into the database."""
    path = path_of(plan, "kitchen")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        (sequence,) = reader.execute("SELECT coalesce(max(sequence), 0) FROM events").fetchone()
    return int(sequence)


def copied(plan: Plan, directory: Path) -> Plan:
    """Copy the directory of a plan."""
    shutil.copytree(plan.directory, directory)
    return Plan(mqtt=plan.mqtt, directory=str(directory), events=plan.events)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the content of a file with flipped bits, foreign bytes or zeros, or cut off."""
    result = bytearray(content)
    kind = chance.choice(["bits", "bits", "bytes", "zeros", "cut"])
    if kind == "bits":
        for _ in range(chance.choice([1, 3, 30])):
            result[chance.randrange(len(result))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del result[chance.randrange(len(result)) :]
    else:
        start, size = chance.randrange(len(result)), chance.choice([16, 512, 4096])
        size = min(size, len(result) - start)
        result[start : start + size] = chance.randbytes(size) if kind == "bytes" else bytes(size)
    return bytes(result)


def restart(plan: Plan, broker: Mosquitto, watcher: Watcher, *, first_new: int) -> Restart:
    """Open the outbox as the daemon does, record events, and wait until they arrive."""
    before, health, started_s = len(watcher.on(EVENT)), Health(), time.monotonic()
    new = [make_event("kitchen", first_new + n) for n in range(NEW)]

    def arrived() -> list[bytes]:
        return watcher.on(EVENT)[before:]

    def has_arrived() -> bool:
        return {event.id for event in new} <= {json.loads(payload)["id"] for payload in arrived()}

    with closing(open_outbox(plan, "kitchen")) as outbox:
        with publishing(settings_of(broker), outbox) as publisher:
            writer = OutboxWriter(outbox, publisher, health, check_s=0.05)
            writer.start()
            with closing(writer):
                writer.record(new)
                wait_until(has_arrived, "the new events", timeout_s=PATIENCE_S)
                recover_s = time.monotonic() - started_s
                wait_until(lambda: is_reported(outbox) == ("outbox:corrupt" in health.reasons), "a report")
        assert outbox.set_aside is None or outbox.set_aside.exists()
        refused = {letter.sequence for letter in outbox.refused() if letter.reason == "corrupt"}
        return Restart(arrived(), refused, is_reported(outbox), recover_s)


def is_reported(outbox: Outbox) -> bool:
    """Return whether damaged files were set aside, which the status has to report."""
    return outbox.set_aside is not None


@pytest.mark.parametrize("part", ["database", "log"])
def test_damaged_outbox(
    part: str, source: Source, tmp_path: Path, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    """No event is changed, no number is given twice, and an event that cannot be read is reported."""
    lost = duplicated = unordered = reported = refused = gone = 0
    recover_s = 0.0
    caplog.set_level(logging.WARNING)
    broker = Mosquitto(tmp_path)
    with running(broker), watching(broker, EVENT) as watcher:
        for seed in SEEDS:
            plan = copied(source.plan, tmp_path / str(seed))
            file = Path(plan.directory) / ("kitchen.sqlite3" if part == "database" else "kitchen.sqlite3-wal")
            file.write_bytes(damaged(file.read_bytes(), random.Random(f"{part} {seed}")))
            result = restart(plan, broker, watcher, first_new=1000 * (seed + 1))

            numbers = [json.loads(payload)["sequence"] for payload in result.arrived]
            old = {n: payload for n, payload in zip(numbers, result.arrived, strict=True) if n <= LAST}
            assert old.items() <= source.payloads.items(), seed
            assert len(numbers) - len(old) == NEW, seed
            assert max(numbers) <= LAST + BLOCK + NEW, seed
            missing = set(range(SENT + 1, LAST + 1)) - old.keys() - result.refused
            lost += 0 if result.is_reported else len(missing)
            gone += len(missing) if result.is_reported else 0
            refused += len(result.refused)
            reported += result.is_reported
            duplicated += len(numbers) - len(set(numbers))
            unordered += numbers != sorted(numbers)
            recover_s = max(recover_s, result.recover_s)
            with closing(open_outbox(plan, "kitchen")) as outbox:  # a further start repeats no number
                assert outbox.append(make_event("kitchen", 999)) > max(numbers), seed
    note = f"{reported} set aside, {gone} events not readable and reported"
    load = f"{LAST - SENT} waiting events, {len(SEEDS)} seeds"
    record(Outcome("damage", load, f"damaged {part}", lost, duplicated, unordered, recover_s, note, refused))
    assert (lost, duplicated, unordered) == (0, 0, 0)
    assert "Traceback" not in caplog.text
