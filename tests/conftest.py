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

# The longest files, alternately one that computes and one that waits. They start first: a long file that
# starts last keeps one worker busy while the others have ended.
LONGEST = (
    "models/recipes/test_report.py",
    "edge/sources/test_sources.py",
    "converter/test_conversion.py",
    "edge/delivery/test_publisher.py",
    "edge/page/test_browser.py",
    "chaos/test_chaos_site.py",
    "edge/commands/test_bench.py",
    "system/test_system.py",
    "edge/inference/test_gpu.py",
    "system/test_recovery.py",
    "system/test_soak.py",
    "chaos/test_chaos_cluster.py",
    "edge/commands/test_analyze.py",
    "edge/commands/test_doctor.py",
    "converter/test_bad_models.py",
    "edge/sources/test_replay.py",
    "models/recipes/test_face_cnn.py",
    "chaos/test_chaos_network.py",
    "converter/test_convert_command.py",
    "edge/delivery/home_assistant/test_home_assistant.py",
    "models/recipes/test_eye_state.py",
    "edge/delivery/mqtt/test_connector.py",
    "models/recipes/test_report_baselines.py",
    "edge/delivery/mqtt/test_publish_probe.py",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each file to one worker: the longest first, then the folders mixed.

    A file on one worker makes its fixtures once. A test that computes runs beside one that waits. Without
    workers the order stays as it is.
    """
    if not hasattr(config, "workerinput"):
        return
    files: dict[str, list[Path]] = {}
    for item in items:
        folder = item.path.relative_to(config.rootpath).parts[1]
        if item.path not in files.setdefault(folder, []):
            files[folder].append(item.path)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(config.rootpath))))
    position = {path: n / len(paths) for paths in files.values() for n, path in enumerate(paths)}
    position |= {config.rootpath / "tests" / name: n - len(LONGEST) for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: position[item.path])


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
