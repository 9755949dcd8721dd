"""Faults of the device itself are reported once, and their end is reported."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edge.health import Health
from edge.host.conditions import Conditions
from edge.host.monitor import CLOCK_S, DISK_ENOUGH_BYTES, DISK_LOW_BYTES, POWER_S, Monitor
from edge.page.facts import describe
from edge.page.live_view import LiveView
from edge.page.metrics import render_metrics
from tests.edge.host.test_conditions import zone
from tests.edge.page.test_metrics import read, snapshot
from tests.helpers.brokers import Mosquitto, wait_until, watching
from tests.system.test_system import ROOT, environment

FACTS = {"device", "power", "memory", "disk", "clock"}
UNDER_VOLTAGE, SOFT_LIMIT, SINCE = 0x1, 0x8, 16


class Monitored:
    """A device whose conditions a test sets, and the changes of its faults."""

    def __init__(self, tmp_path: Path) -> None:
        self.changes: list[tuple[str, str]] = []
        self.health = Health()
        self.health.subscribe(lambda component, reason, _detail: self.changes.append((component, reason)))
        self.monitor = Monitor(tmp_path, self.health, soft_limit_c=78.0, fps=10.0, root=tmp_path)
        self.origin_s = self.monitor.started_s

    def at(self, second: float, **conditions: object) -> list[str]:
        """Update at `second` seconds after the start; return the current faults."""
        self.monitor.update(Conditions(**conditions), self.origin_s + second)  # type: ignore[arg-type]
        return self.health.reasons


@pytest.fixture
def device(tmp_path: Path) -> Monitored:
    """A device without faults."""
    return Monitored(tmp_path)


def test_heat_slows_the_camera_until_it_has_cooled_down(device: Monitored) -> None:
    """`device:hot` lasts from the first step down to the last step up, and is reported once."""
    assert device.at(0, temperature_c=77.9) == []
    assert device.at(5, temperature_c=78.0) == ["device:hot"]
    assert [device.monitor.gate.accepts(n * 100_000_000) for n in range(4)] == [True, False, True, False]
    assert device.at(20, temperature_c=80.0) == ["device:hot"]
    assert device.monitor.numbers()["frame_rate_factor"] == 0.25
    assert device.at(100, temperature_c=60.0) == ["device:hot"]
    assert device.at(160, temperature_c=60.0) == []
    assert device.changes == [("device", "hot"), ("device", "")]
    assert all(device.monitor.gate.accepts(n) for n in range(4))


def test_firmware_that_slows_the_processor(device: Monitored) -> None:
    """The firmware's own limit is a fault even below the configured limit."""
    assert device.at(0, throttled=SOFT_LIMIT) == ["device:throttled"]
    assert device.at(5, throttled=SOFT_LIMIT << SINCE) == []


def test_under_voltage_lasts_a_minute(device: Monitored) -> None:
    """A short dip stays in the status for `POWER_S`."""
    assert device.at(0, throttled=UNDER_VOLTAGE) == ["power:under_voltage"]
    assert device.at(POWER_S - 0.1, throttled=0) == ["power:under_voltage"]
    assert device.at(POWER_S, throttled=0) == []


def test_dip_between_two_checks(device: Monitored) -> None:
    """The bit since the boot reports a dip if it is new since the last check."""
    assert device.at(0, throttled=0) == []
    assert device.at(5, throttled=UNDER_VOLTAGE << SINCE) == ["power:under_voltage"]
    assert device.at(5 + POWER_S, throttled=UNDER_VOLTAGE << SINCE) == []


def test_dip_before_the_start_is_past(device: Monitored) -> None:
    """Under-voltage before the start of the daemon is not a fault of now."""
    assert device.at(0, throttled=UNDER_VOLTAGE << SINCE) == []


@pytest.mark.parametrize(
    ("free", "wrong"), [(DISK_LOW_BYTES, []), (DISK_LOW_BYTES - 1, ["disk:low"]), (None, [])]
)
def test_disk_is_low_below_the_limit(device: Monitored, free: int | None, wrong: list[str]) -> None:
    """The fault begins one byte below the limit, not at it."""
    assert device.at(0, disk_free_bytes=free) == wrong


@pytest.mark.parametrize(
    ("free", "wrong"), [(DISK_ENOUGH_BYTES - 1, ["disk:low"]), (DISK_ENOUGH_BYTES, []), (None, ["disk:low"])]
)
def test_disk_recovers_above_another(device: Monitored, free: int | None, wrong: list[str]) -> None:
    """It ends at a second limit; a disk that does not answer changes nothing."""
    device.at(0, disk_free_bytes=0)
    assert device.at(5, disk_free_bytes=free) == wrong


@pytest.mark.parametrize(
    ("second", "synchronised", "wrong"),
    [
        (CLOCK_S - 0.1, False, []),
        (CLOCK_S, False, ["clock:not_synchronised"]),
        (CLOCK_S, None, []),
        (CLOCK_S, True, []),
    ],
)
def test_clock_has_its_time(
    device: Monitored, second: float, synchronised: bool | None, wrong: list[str]
) -> None:
    """A clock that is known not to be synchronised is a fault `CLOCK_S` after the start."""
    assert device.at(second, is_clock_synchronised=synchronised) == wrong


def test_page_and_metrics_show_the_device() -> None:
    """Each known condition is a fact of the page and a gauge; unknown ones are neither."""
    hot = {"temperature_c": 81.2, "frame_rate_factor": 0.25, "rss_bytes": 150_000_000, "throttled": 0x10001}
    now = snapshot(counters={**hot, "disk_free_bytes": 12_300_000_000, "clock_synchronised": 0})
    live = LiveView().state(0)
    assert {name: text for name, text in describe(now, live) if name in FACTS} == {
        "device": "81 °C, camera slowed to 25%",
        "power": "under voltage",
        "memory": "150 MB",
        "disk": "12.3 GB free",
        "clock": "not synchronised",
    }
    metrics = read(render_metrics(now))
    assert metrics["emotion_edge_temperature_celsius", ""] == 81.2
    assert metrics["emotion_edge_frame_rate_factor", ""] == 0.25
    assert metrics["emotion_edge_disk_free_bytes", ""] == 12.3e9
    assert metrics["emotion_edge_clock_synchronised", ""] == 0
    assert metrics["emotion_edge_throttled", "reason=under_voltage"] == 1
    assert metrics["emotion_edge_throttled", "reason=throttled"] == 0
    silent = snapshot()
    assert not FACTS & {name for name, _ in describe(silent, live)}
    assert not any("celsius" in name or "disk" in name for name, _ in read(render_metrics(silent)))


def run(code: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run a daemon after `code`, which changes it."""
    lines = [
        "import pathlib, signal, sys, time",
        "import edge.daemon, edge.health",
        "from edge.config import load_config",
        "from edge.page.live_view import LiveView",
        code,
        "daemon = edge.daemon.Daemon(load_config(), root=pathlib.Path(sys.argv[1]))",
        "signal.signal(signal.SIGTERM, lambda *_: daemon.stop())",
        "daemon.run()",
    ]
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines), env["MACHINE"]], env=env, cwd=ROOT)


@contextmanager
def changed_daemon(code: str, env: dict[str, str]) -> Iterator[None]:
    """Run it during the block; it must stop on SIGTERM."""
    process = run(code, env)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def test_hot_daemon_skips_frames(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A real daemon on a hot machine is `degraded`, skips frames, and reports both."""
    zone(tmp_path, 0, "cpu-thermal", "82000")
    env = environment(mosquitto.host, mosquitto.port, tmp_path) | {
        "MACHINE": str(tmp_path),
        "EMOTION_EDGE__MQTT__STATS_INTERVAL_S": "1",
        "EMOTION_EDGE__HEALTH__SOFT_LIMIT_C": "78",
    }
    with watching(mosquitto, "emotion/lab/#") as seen, changed_daemon("", env):

        def counters() -> dict[str, float]:
            stats = seen.on("emotion/lab/stats")
            return dict(json.loads(stats[-1])["counters"]) if stats else {}

        wait_until(lambda: counters().get("frames_spared", 0) > 5, "skipped frames")
        wait_until(
            lambda: json.loads(seen.on("emotion/lab/status")[-1])["reasons"] == ["device:hot"], "the reason"
        )
        assert json.loads(seen.on("emotion/lab/status")[-1])["state"] == "degraded"
        assert counters()["temperature_c"] == 82.0
        assert counters()["frame_rate_factor"] < 1
        assert counters()["disk_free_bytes"] > 0


def test_frozen_worker_stops_the_watchdog_pings(tmp_path: Path) -> None:
    """While the camera's thread hangs, no WATCHDOG=1 comes and STATUS names it; pings resume when it does."""
    ice = tmp_path / "ice"
    freeze = f"""
ice = pathlib.Path({str(ice)!r})
edge.health.Health.progress.__kwdefaults__["limit_s"] = 2.0
from edge.daemon.handlers import FrameHandler
handle = FrameHandler.handle
def freeze(self, frame):
    while ice.exists():
        time.sleep(0.05)
    handle(self, frame)
FrameHandler.handle = freeze
"""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(20)
        env = environment("127.0.0.1", 1, tmp_path) | {
            "MACHINE": str(tmp_path),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "600000",
        }

        def receive(wanted: bytes) -> None:
            while server.recv(4096) != wanted:
                pass

        with changed_daemon(freeze, env):
            receive(b"READY=1")
            receive(b"WATCHDOG=1")
            ice.touch()
            receive(b"STATUS=no progress in camera")
            # During five pings, only the status is sent.
            messages = {server.recv(4096) for _ in range(5)}
            assert b"WATCHDOG=1" not in messages
            ice.unlink()
            receive(b"WATCHDOG=1")
