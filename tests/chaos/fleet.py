"""Devices that only deliver: the real publishers and outboxes, in a process that may be killed any time.

Run as a script it is that process: `fleet.py PLAN.json`. Each event is made, stored and sent as the daemon
does it; where the process starts again it goes on behind the last event that the outbox holds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.mqtt.tuning import TUNING
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.rows import Counts
from edge.delivery.publisher import Publisher
from edge.errors import OutboxError
from edge.settings import MqttSettings
from edge.values import EmotionEvent

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """What the process does: `events` of each device, `rate_hz` of all together."""

    mqtt: dict[str, Any]
    directory: str
    devices: list[str] = field(default_factory=lambda: ["kitchen"])
    events: int = 100
    rate_hz: float = 250.0
    password: str | None = None  # of every device, whose user name is its id
    max_bytes: int = 1 << 30
    retained: dict[str, int] = field(default_factory=dict)  # bytes of a message, by its full topic
    tuning: dict[str, Any] = field(default_factory=dict)  # other than that of every device
    stream: str = ""  # before each event id: different for devices with one id


@dataclass(frozen=True)
class ConnectionChange:
    """A device's connection came or went, at `t_s` of the monotonic clock, or its `faults` changed."""

    device: str
    connected: bool
    reason: str
    t_s: float
    faults: list[str] = field(default_factory=list)


class Fleet:
    """The handle of such a process: it can be started, killed as often as one likes, and asked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._directory = Path(plan.directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Fleet:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process; it connects and makes events at once."""
        path = self._directory / "plan.json"
        path.write_text(json.dumps(dataclasses.asdict(self.plan)))
        path.chmod(0o600)
        command = [sys.executable, "-m", "tests.chaos.fleet", str(path)]
        self._process = subprocess.Popen(command, cwd=ROOT)

    def kill(self) -> None:
        """End it with -9."""
        self._end(signal.SIGKILL)

    def connection_changes(self) -> list[ConnectionChange]:
        """Return how connections came and went so far."""
        path = self._directory / "connections.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        # A process that was killed may have left half a line.
        return [ConnectionChange(**json.loads(line)) for line in lines if line.endswith("}")]

    def connected(self) -> set[str]:
        """Return the devices whose last word was that they are connected."""
        last = {change.device: change.connected for change in self.connection_changes()}
        return {device for device, is_connected in last.items() if is_connected}

    def counts(self) -> dict[str, Counts]:
        """Return what each outbox counts, read beside the process as `emotion-edge outbox` reads it."""
        result = {}
        for device in self.plan.devices:
            path = path_of(self.plan, device)
            if not path.is_file():  # the process has just begun
                result[device] = Counts(0, 0, 0, 0, 0)
                continue
            with closing(DeadLetters(path)) as outbox:
                result[device] = outbox.contents().counts
        return result

    def has_delivered(self) -> bool:
        """Return whether every event of the plan was made and none waits."""
        return all(c.last_sequence == self.plan.events and not c.waiting for c in self.counts().values())

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(60)


def open_outbox(plan: Plan, device: str) -> Outbox:
    """Open the outbox of one device of the plan."""
    path = path_of(plan, device)
    return Outbox(path, device=device, max_events=1_000_000, max_bytes=plan.max_bytes)


def path_of(plan: Plan, device: str) -> Path:
    """Return the path of the outbox of one device."""
    return Path(plan.directory) / f"{device}.sqlite3"


def run(plan: Plan) -> None:
    """Make the events of a plan, then send the waiting ones until SIGTERM."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_000)), hard))
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    with (Path(plan.directory) / "connections.jsonl").open("a", buffering=1) as log:

        def note(device: str, state: ConnectionState) -> None:
            change = ConnectionChange(
                device, state.connected, state.reason, state.since_ns / 1e9, sorted(state.faults)
            )
            log.write(json.dumps(dataclasses.asdict(change)) + "\n")
            publish_status(device, state)

        def publish_status(device: str, state: ConnectionState | None = None) -> None:
            reasons = [] if state is None else sorted(state.faults)
            publishers[device].publish_state("status", {"reasons": reasons, "process": os.getpid()})

        outboxes = {device: open_outbox(plan, device) for device in plan.devices}
        publishers: dict[str, Publisher] = {}
        for device, outbox in outboxes.items():
            settings = MqttSettings(**plan.mqtt, username=device if plan.password else None)
            publishers[device] = Publisher(
                settings,
                device=device,
                outbox=outbox,
                password=plan.password,
                on_state=partial(note, device),
                tuning=replace(TUNING, **plan.tuning),
            )
            for topic, size in plan.retained.items():
                publishers[device].publish_retained(topic, b"x" * size)
            publish_status(device)
            publishers[device].start()
        made = {device: outbox.counts().last_sequence for device, outbox in outboxes.items()}
        next_s = time.monotonic()
        while not stop and any(count < plan.events for count in made.values()):
            for device, outbox in outboxes.items():
                if stop or made[device] >= plan.events:
                    continue
                made[device] += 1
                append(outbox, make_event(plan.stream + device, made[device]))
                publishers[device].event_added()
                next_s += 1 / plan.rate_hz
                time.sleep(max(0.0, next_s - time.monotonic()))
        while not stop:
            time.sleep(0.1)
        with ThreadPoolExecutor(64) as pool:  # each close may take its second
            list(pool.map(Publisher.close, publishers.values()))
        for outbox in outboxes.values():
            outbox.close()


def append(outbox: Outbox, event: EmotionEvent) -> None:
    """Append an event; while another process holds the database, wait as the daemon's writer does."""
    while True:
        try:
            outbox.append(event)
        except OutboxError as error:
            if error.reason != "locked":
                raise
            time.sleep(0.05)
        else:
            return


def make_event(device: str, number: int) -> EmotionEvent:
    """Return an event as large as those of the daemon, whose id follows from its number."""
    labels = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    data = {
        "subject": "room",
        "emotion": labels[number % 7],
        "previous": labels[(number - 1) % 7],
        "confidence": 0.75,
        "probabilities": dict.fromkeys(labels, 0.1428),
    }
    return EmotionEvent(
        id=f"{device}-{number}", type="emotion.changed", time=datetime.now(UTC), t_ns=0, data=data
    )


if __name__ == "__main__":
    run(Plan(**json.loads(Path(sys.argv[1]).read_text())))
