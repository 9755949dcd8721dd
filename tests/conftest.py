"""Fixtures that more than one test file uses."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.delivery.outbox.queue import Outbox
from tests.helpers.brokers import Broker, Mosquitto, Nats, running
from tests.helpers.commands import convert_here

# A shell that starts the tests in the background lets its children ignore Ctrl-C, which some of them test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert in this process and not in a child, for tests of what becomes of the file."""
    convert_here(monkeypatch)


@pytest.fixture(params=[Mosquitto, Nats], ids=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Each real broker in turn, on a port of its own."""
    directory = tmp_path / "broker"
    directory.mkdir()
    with running(request.param(directory)) as started:
        yield started


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """The broker that speaks MQTT 5."""
    broker = Mosquitto(tmp_path)
    with running(broker):
        yield broker


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """An empty outbox of the device `kitchen`."""
    path = tmp_path / "outbox.db"
    with closing(Outbox(path, device="kitchen", max_events=10_000, max_bytes=1 << 26)) as opened:
        yield opened
