"""A real daemon whose system clock is set back by three days, and its next start with that clock."""

from __future__ import annotations

import json
import time
from pathlib import Path

from edge.config import parse_config
from edge.settings import Config
from tests.helpers.brokers import Mosquitto, Watcher, running, wait_until, watching
from tests.helpers.daemons import living

ROOT = "emotion/lab"
THREE_DAYS_NS = 3 * 86_400 * 1_000_000_000
TIMES = {"state": "time", "event": "time", "stats": "time", "status": "since"}


class Clock:
    """The system clock, with a step that a test sets."""

    step_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.step_ns


def config_of(directory: Path, port: int) -> Config:
    """Return the configuration of a device whose camera is missing: it reports that in events."""
    return parse_config(
        {
            "device": {"id": "lab"},
            "camera": {"source": "fake:unplug"},
            "microphone": {"source": "none"},
            "mqtt": {"port": port, "stats_interval_s": 0.5},
            "outbox": {"path": str(directory / "outbox.db")},
            "inference": {"backend": "cpu"},
            "dashboard": {"bind": ""},
        }
    )


def times(watcher: Watcher, subtopic: str) -> list[str]:
    """Return the times of the messages of a topic, in the order of their arrival; each is RFC 3339."""
    return [json.loads(payload)[TIMES[subtopic]] for payload in watcher.on(f"{ROOT}/{subtopic}")]


def reported(watcher: Watcher) -> list[list[str]]:
    """Return the reasons of each status."""
    return [json.loads(payload)["reasons"] for payload in watcher.on(f"{ROOT}/status")]


def wait_for_more(watcher: Watcher) -> None:
    """Wait for two more states and statistics."""
    before = {subtopic: len(times(watcher, subtopic)) for subtopic in ("state", "stats")}
    for subtopic, count in before.items():
        wait_until(lambda t=subtopic, n=count: len(times(watcher, t)) >= n + 2, subtopic)  # type: ignore[misc]  # mypy cannot infer a lambda with defaults


def test_no_time_goes_back(tmp_path: Path) -> None:
    """No time of a message goes back, across a restart too, and the jump is reported."""
    broker, clock = Mosquitto(tmp_path), Clock()
    config = config_of(tmp_path, broker.port)
    with running(broker), watching(broker, f"{ROOT}/#") as watcher:
        with living(config, state_interval_s=0.3, wall_ns=clock):
            wait_for_more(watcher)
            wait_until(lambda: times(watcher, "event"), "an event")
            assert not any("time:set_back" in reasons for reasons in reported(watcher))
            clock.step_ns = -THREE_DAYS_NS
            wait_until(lambda: "time:set_back" in reported(watcher)[-1], "the jump is reported")
            wait_for_more(watcher)
        count = len(times(watcher, "event"))
        with living(config, state_interval_s=0.3, wall_ns=clock):
            wait_for_more(watcher)
            wait_until(lambda: len(times(watcher, "event")) > count, "an event after the restart")
            wait_until(lambda: "time:set_back" in reported(watcher)[-1], "the jump is reported again")
        for subtopic in ("event", "state", "stats", "status"):
            seen = times(watcher, subtopic)
            assert seen == sorted(seen), subtopic
