"""One site: the daemon, the broker, and both are killed in mid-stream; every stored event arrives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from edge.delivery.outbox.queue import Outbox
from edge.sources.replay import clip_path
from tests.chaos.audit import Auditor
from tests.chaos.fleet import ROOT, Fleet, Plan
from tests.chaos.outcome import Outcome, pick
from tests.helpers.brokers import running, wait_until
from tests.helpers.sites import SiteMosquitto

EVENTS = pick(300, 5000)
RATE_HZ = pick(120.0, 100.0)
PATIENCE_S = pick(30.0, 120.0)
PASSWORD = "of-this-test"

Record = Callable[[Outcome], None]
Progress = Callable[[str], None]


class Site:
    """The sample mosquitto, one device and the auditor, with the times at which faults ended."""

    def __init__(self, broker: SiteMosquitto, device: Fleet, auditor: Auditor, progress: Progress) -> None:
        self.broker = broker
        self.device = device
        self.auditor = auditor
        self.faults_s: list[float] = []
        self._progress = progress

    def wait_for(self, count: int) -> None:
        """Wait until so many different events arrived."""

        def is_there() -> bool:
            self._progress(f"{self.auditor.arrived} of {EVENTS} events")
            return self.auditor.arrived >= count

        wait_until(is_there, f"{count} events", timeout_s=PATIENCE_S)

    def kill_broker(self) -> None:
        """Kill it, leave it away for a while, start it."""
        self.broker.kill()
        time.sleep(pick(0.5, 3.0))  # the outage
        self.broker.start()
        self.fault_is_over()

    def fault_is_over(self) -> None:
        """Note the time from which on recovery is counted."""
        self.faults_s.append(time.time())

    def outcome(self, test: str, fault: str) -> Outcome:
        """Wait for the remaining events and return the outcome."""
        with suppress(pytest.fail.Exception):  # the row lists how many are missing
            self.wait_for(EVENTS)
        auditor = self.auditor
        recoveries_s = [auditor.recover_s(fault_s) for fault_s in self.faults_s]
        return Outcome(
            test,
            f"{EVENTS} events",
            fault,
            lost=len(auditor.lost("kitchen", EVENTS)),
            duplicated=auditor.duplicated,
            out_of_order=auditor.out_of_order,
            recover_s=max(recoveries_s),
        )


@pytest.fixture
def site(tmp_path: Path, progress: Progress) -> Iterator[Site]:
    """A device that makes events from now on, the broker, and who counts."""
    with running_site(tmp_path, progress) as started:
        yield started


@contextmanager
def running_site(directory: Path, progress: Progress) -> Iterator[Site]:
    users = {"kitchen": PASSWORD, "reader": PASSWORD}
    broker = SiteMosquitto(directory, users)
    plan = Plan(
        mqtt={"port": broker.port},
        directory=str(directory / "device"),
        events=EVENTS,
        rate_hz=RATE_HZ,
        password=PASSWORD,
    )
    with (
        running(broker),
        Auditor([(broker.host, broker.port)], username="reader", password=PASSWORD) as auditor,
        Fleet(plan) as device,
    ):
        yield Site(broker, device, auditor, progress)


def check(outcome: Outcome, record: Record) -> None:
    """Put the row into the table; nothing may be lost, and first deliveries come in order."""
    record(outcome)
    assert outcome.lost == 0
    assert outcome.out_of_order == 0


def test_daemon_killed(site: Site, record: Record) -> None:
    """kill -9 of the device, again and again: what its outbox took arrives, gapless and in order."""
    kills = pick(2, 4)
    for kill in range(kills):
        site.wait_for((kill + 1) * EVENTS // (kills + 1))
        site.device.kill()
        site.fault_is_over()
        site.device.start()
    check(site.outcome("daemon", f"kill -9 x{kills}"), record)


def test_broker_killed(site: Site, record: Record) -> None:
    """kill -9 of mosquitto with the durable settings: what it acknowledged is on its disk, or comes again."""
    kills = pick(2, 3)
    for kill in range(kills):
        site.wait_for((kill + 1) * EVENTS // (kills + 1))
        site.kill_broker()
    check(site.outcome("broker", f"mosquitto kill -9 x{kills}"), record)


def test_broker_killed_while_the_consumer_is_away(site: Site, record: Record) -> None:
    """As before, but all that arrives afterwards is what the broker has kept on its disk."""
    kills = pick(2, 3)
    site.auditor.leave()
    for kill in range(kills):
        made = (kill + 1) * EVENTS // (kills + 1)
        wait_until(
            lambda: site.device.counts()["kitchen"].last_sequence >= made,
            f"{made} events in the outbox",
            timeout_s=PATIENCE_S,
        )
        site.kill_broker()
    wait_until(lambda: site.device.has_delivered(), "an empty outbox", timeout_s=PATIENCE_S)
    site.faults_s = [time.time()]  # recovery is that of the consumer
    site.auditor.come_back()
    check(site.outcome("broker", f"mosquitto kill -9 x{kills}, consumer away"), record)


def test_both_killed_at_once(site: Site, record: Record) -> None:
    """Both are killed at times of a seeded generator, now one, now the other, now both."""
    seed, faults = 5, pick(3, 10)
    chance = random.Random(seed)
    for fault in range(faults):
        site.wait_for(fault * EVENTS // (faults + 1) + chance.randrange(EVENTS // (faults + 1)))
        who = chance.choice(["device", "broker", "both"])
        if who != "device":
            site.broker.kill()
        if who != "broker":
            site.device.kill()
        time.sleep(chance.uniform(0, pick(0.3, 2.0)))
        starts = {"device": [site.device.start], "broker": [site.broker.start]}
        both = starts["device"] + starts["broker"]
        for start in starts.get(who, chance.sample(both, 2)):
            start()
        site.fault_is_over()
    check(site.outcome("both, at once", f"{faults} kills, seed {seed}"), record)


def test_whole_daemon_killed(tmp_path: Path, record: Record, progress: Progress) -> None:
    """`emotion-edge run` with camera, models and fusion, killed while it recognises: no number is missing."""
    kills = pick(1, 4)
    broker = SiteMosquitto(tmp_path, {"kitchen": PASSWORD, "reader": PASSWORD})
    password, path = tmp_path / "password", tmp_path / "outbox.sqlite3"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    clip = f"file:{clip_path()}?loop"
    environment = {
        **os.environ,
        "EMOTION_EDGE__DEVICE__ID": "kitchen",
        "EMOTION_EDGE__CAMERA__SOURCE": clip,
        "EMOTION_EDGE__MICROPHONE__SOURCE": clip,
        "EMOTION_EDGE__MQTT__PORT": str(broker.port),
        "EMOTION_EDGE__MQTT__USERNAME": "kitchen",
        "EMOTION_EDGE__MQTT__PASSWORD_FILE": str(password),
        "EMOTION_EDGE__OUTBOX__PATH": str(path),
    }
    faults_s = []
    with (
        running(broker),
        Auditor([(broker.host, broker.port)], username="reader", password=PASSWORD) as auditor,
    ):

        def wait_for(count: int) -> None:
            progress(f"{auditor.arrived} events")
            wait_until(lambda: auditor.arrived >= count, f"{count} events", timeout_s=60)

        for turn in range(kills + 1):
            with subprocess.Popen([sys.executable, "-m", "edge", "run"], env=environment, cwd=ROOT) as daemon:
                try:
                    wait_for(auditor.arrived + 4)
                finally:
                    daemon.send_signal(signal.SIGKILL if turn < kills else signal.SIGTERM)
            if turn < kills:
                faults_s.append(time.time())
        with closing(Outbox(path, device="kitchen", max_events=1000, max_bytes=1 << 24)) as outbox:
            last = outbox.counts().last_sequence
            assert outbox.counts().dropped == outbox.counts().refused == 0
        wait_until(lambda: auditor.arrived >= last, f"all {last} events")
    recover_s = max(auditor.recover_s(fault_s) for fault_s in faults_s)
    lost = len(auditor.lost("kitchen", last))
    fault = f"kill -9 x{kills}, with models and clip"
    check(
        Outcome("daemon", f"{last} events", fault, lost, auditor.duplicated, auditor.out_of_order, recover_s),
        record,
    )
