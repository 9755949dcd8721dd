"""What is wrong with the device itself is told, once, and told to be over."""

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


class Watched:
    """A device whose conditions a test sets, and what became of them."""

    def __init__(self, tmp_path: Path) -> None:
        self.told: list[tuple[str, str]] = []
        self.health = Health()
        self.health.subscribe(lambda component, reason, _detail: self.told.append((component, reason)))
        self.watch = Monitor(tmp_path, self.health, soft_limit_c=78.0, fps=10.0, root=tmp_path)
        self.origin_s = self.watch.started_s

    def at(self, second: float, **conditions: object) -> list[str]:
        """Check at so many seconds after the start; return what is wrong then."""
        self.watch.update(Conditions(**conditions), self.origin_s + second)  # type: ignore[arg-type]
        return self.health.reasons


@pytest.fixture
def device(tmp_path: Path) -> Watched:
    """A device on which all is well so far."""
    return Watched(tmp_path)


def test_heat_slows_the_camera_and_is_told_until_all_is_well(device: Watched) -> None:
    """`device:hot` from the first step down to the last step up, told once; the gate follows."""
    assert device.at(0, temperature_c=77.9) == []
    assert device.at(5, temperature_c=78.0) == ["device:hot"]
    assert [device.watch.gate.accepts(n * 100_000_000) for n in range(4)] == [True, False, True, False]
    assert device.at(20, temperature_c=80.0) == ["device:hot"]
    assert device.watch.numbers()["frame_rate_factor"] == 0.25
    assert device.at(100, temperature_c=60.0) == ["device:hot"]
    assert device.at(160, temperature_c=60.0) == []
    assert device.told == [("device", "hot"), ("device", "")]
    assert all(device.watch.gate.accepts(n) for n in range(4))


def test_firmware_that_slows_the_processor(device: Watched) -> None:
    """The firmware's own limit is told, too, even where our limit is not reached."""
    assert device.at(0, throttled=SOFT_LIMIT) == ["device:throttled"]
    assert device.at(5, throttled=SOFT_LIMIT << SINCE) == []


def test_under_voltage_is_told_for_a_minute(device: Watched) -> None:
    """A dip of an instant is not missed in the status."""
    assert device.at(0, throttled=UNDER_VOLTAGE) == ["power:under_voltage"]
    assert device.at(POWER_S - 0.1, throttled=0) == ["power:under_voltage"]
    assert device.at(POWER_S, throttled=0) == []


def test_dip_between_two_checks(device: Watched) -> None:
    """The bit of what was tells, when it was not there before; one from before our start does not."""
    assert device.at(0, throttled=0) == []
    assert device.at(5, throttled=UNDER_VOLTAGE << SINCE) == ["power:under_voltage"]
    assert device.at(5 + POWER_S, throttled=UNDER_VOLTAGE << SINCE) == []


def test_dip_before_the_start_is_past(device: Watched) -> None:
    """Under-voltage while the device booted is the doctor's business, not the status's."""
    assert device.at(0, throttled=UNDER_VOLTAGE << SINCE) == []


@pytest.mark.parametrize(
    ("free", "wrong"), [(DISK_LOW_BYTES, []), (DISK_LOW_BYTES - 1, ["disk:low"]), (None, [])]
)
def test_disk_is_low_below_the_limit(device: Watched, free: int | None, wrong: list[str]) -> None:
    """One byte below, and not at the limit."""
    assert device.at(0, disk_free_bytes=free) == wrong


@pytest.mark.parametrize(
    ("free", "wrong"), [(DISK_ENOUGH_BYTES - 1, ["disk:low"]), (DISK_ENOUGH_BYTES, []), (None, ["disk:low"])]
)
def test_disk_recovers_above_another(device: Watched, free: int | None, wrong: list[str]) -> None:
    """It does not flap around one limit, and a disk that does not answer changes nothing."""
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
    device: Watched, second: float, synchronised: bool | None, wrong: list[str]
) -> None:
    """Five minutes after the start somebody must have set it, where that can be known."""
    assert device.at(second, is_clock_synchronised=synchronised) == wrong


def test_page_and_metrics_show_the_device() -> None:
    """What is known is a fact of the page by the name of its fault, and a gauge; what is not is neither."""
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
    told = read(render_metrics(now))
    assert told["emotion_edge_temperature_celsius", ""] == 81.2
    assert told["emotion_edge_frame_rate_factor", ""] == 0.25
    assert told["emotion_edge_disk_free_bytes", ""] == 12.3e9
    assert told["emotion_edge_clock_synchronised", ""] == 0
    assert told["emotion_edge_throttled", "reason=under_voltage"] == 1
    assert told["emotion_edge_throttled", "reason=throttled"] == 0
    silent = snapshot()
    assert not FACTS & {name for name, _ in describe(silent, live)}
    assert not any("celsius" in name or "disk" in name for name, _ in read(render_metrics(silent)))


def run(code: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run a daemon with something of it changed."""
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
    """Run it while the block lasts; it must stop when it is told to."""
    process = run(code, env)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def test_daemon_in_the_sun(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """A real daemon on a hot machine: `degraded` with the reason, pictures spared, all of it in `stats`."""
    zone(tmp_path, 0, "cpu-thermal", "82000")
    env = environment(mosquitto.host, mosquitto.port, tmp_path) | {
        "MACHINE": str(tmp_path),
        "EMOTION_EDGE__MQTT__STATS_INTERVAL_S": "1",
        "EMOTION_EDGE__HEALTH__SOFT_LIMIT_C": "78",
    }
    with watching(mosquitto, "emotion/lab/#") as seen, changed_daemon("", env):

        def counters() -> dict[str, float]:
            told = seen.on("emotion/lab/stats")
            return dict(json.loads(told[-1])["counters"]) if told else {}

        wait_until(lambda: counters().get("frames_spared", 0) > 5, "pictures that are not looked at")
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

        def hear(wanted: bytes) -> None:
            while server.recv(4096) != wanted:
                pass

        with changed_daemon(freeze, env):
            hear(b"READY=1")
            hear(b"WATCHDOG=1")
            ice.touch()
            hear(b"STATUS=no progress in camera")
            # As long as five pings would take, nothing but that.
            said = {server.recv(4096) for _ in range(5)}
            assert b"WATCHDOG=1" not in said
            ice.unlink()
            hear(b"WATCHDOG=1")
