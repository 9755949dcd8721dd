"""A device that fails is reported with its reason and recovers; the rest of the daemon goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge.backoff import backoff_s
from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.mqtt.connection import Message
from edge.delivery.subscriber import Listener, listen
from edge.errors import DeviceError
from edge.settings import MqttSettings
from edge.sources import worker
from tests.edge.sources.test_worker import Recorder
from tests.helpers import media
from tests.helpers.brokers import free_port, wait_until
from tests.helpers.sound_server import SoundServer, sound_server  # noqa: F401 - a fixture
from tests.system.test_system import collect, daemon, environment


def status_with(reason: str) -> Callable[[list[Message]], bool]:
    """Return a condition: the newest status has the reason."""

    def holds(messages: list[Message]) -> bool:
        payloads = [json.loads(message.payload) for message in messages if message.topic.endswith("/status")]
        return bool(payloads) and reason in payloads[-1]["reasons"]

    return holds


def running(messages: list[Message]) -> bool:
    """Return whether the newest status is `running`."""
    payloads = [json.loads(m.payload)["state"] for m in messages if m.topic.endswith("/status")]
    return bool(payloads) and payloads[-1] == "running"


def has_audio_window(messages: list[Message]) -> bool:
    """Return whether an audio window was processed: until then the microphone may still be opening."""
    payloads = [json.loads(m.payload)["counters"] for m in messages if m.topic.endswith("/stats")]
    return bool(payloads) and payloads[-1].get("windows", 0) > 0


def in_time(listener: Listener, until: Callable[[list[Message]], bool]) -> None:
    """Wait for a status within the five seconds that a fault may take, and one for the broker."""
    started_s = time.monotonic()
    collect(listener, until, 20)
    assert time.monotonic() - started_s < 6


def test_camera_that_freezes(tmp_path: Path) -> None:
    """A line that stays open without pictures is a fault in time; then a new connection is used."""
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), "emotion/lab/#")) as listener,
        media.MjpegServer(media.picture(), count=75, then="stall") as server,
    ):
        assert listener.wait_ready(10)
        env = environment("127.0.0.1", broker.port, tmp_path, EMOTION_EDGE__CAMERA__SOURCE=server.url)
        with daemon(env):
            collect(listener, running, 20)
            collect(listener, status_with("camera:timeout"), 20)
            in_time(listener, running)


def test_camera_that_is_pulled_out(tmp_path: Path) -> None:
    """Unplugged, the camera is a fault in time; plugged in again, it is used without a restart."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/video"
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), "emotion/lab/#")) as listener,
    ):
        assert listener.wait_ready(10)
        env = environment("127.0.0.1", broker.port, tmp_path, EMOTION_EDGE__CAMERA__SOURCE=url)
        server = media.MjpegServer(media.picture(), port=port)
        with daemon(env):
            collect(listener, running, 20)
            server.stop()
            in_time(listener, status_with("camera:no_device"))
            collect(listener, lambda seen: any(m.topic.endswith("/voice/state") for m in seen), 20)
            with media.MjpegServer(media.picture(), port=port):
                collect(listener, running, 20)


def test_microphone_that_is_pulled_out(tmp_path: Path, sound_server: SoundServer) -> None:  # noqa: F811
    """The same for sound: the camera goes on, and the microphone is used again once it is back."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (48_000 * 60, 2)).astype(np.float32)
    sound_server.play(noise)
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), "emotion/lab/#")) as listener,
    ):
        assert listener.wait_ready(10)
        microphone = {
            "EMOTION_EDGE__MICROPHONE__SOURCE": "alsa:default",
            "EMOTION_EDGE__MQTT__STATS_INTERVAL_S": "0.5",
        }
        with daemon(environment("127.0.0.1", broker.port, tmp_path, **microphone)):
            collect(listener, has_audio_window, 20)
            sound_server.unplug()
            in_time(listener, status_with("microphone:no_device"))
            collect(listener, lambda seen: any(m.topic.endswith("/face/state") for m in seen), 20)
            sound_server.connect()
            sound_server.play(noise)
            collect(listener, running, 20)


# What 4 s are for is tested where a camera freezes.
IMPATIENT = """
import sys
from edge.sources import live_camera as capture
from edge.__main__ import main
capture.FROZEN_S = 1.0
sys.exit(main(["run"]))
"""


def test_driver_that_never_returns_ends_the_daemon(tmp_path: Path) -> None:
    """After the third hanging call the daemon logs the reason, publishes `offline` and exits with 5."""
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), "emotion/lab/#")) as listener,
    ):
        assert listener.wait_ready(10)
        env = environment("127.0.0.1", broker.port, tmp_path, EMOTION_EDGE__CAMERA__SOURCE="fake:hang")
        # Read while it runs: the broker sends again what is not acknowledged in time, then out of order.
        with subprocess.Popen(
            [sys.executable, "-c", IMPATIENT], env=env, stderr=subprocess.PIPE, text=True
        ) as process:
            messages = collect(listener, lambda seen: seen and seen[-1].payload == b"offline", 60)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 5, errors
    assert "fake:hang: no frame for 1 s" in errors
    assert "its driver hangs, given up after 3 tries" in errors
    assert "Traceback" not in errors
    assert status_with("camera:timeout")(messages)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take the pauses out; return the attempts that they were asked for."""
    attempts: list[int] = []

    def pause_s(attempt: int) -> float:
        attempts.append(attempt)
        return 0.005

    monkeypatch.setattr(worker, "backoff_s", pause_s)
    return attempts


def test_device_that_was_never_there_is_no_fault(quick: list[int]) -> None:
    """`auto` without a camera: the daemon runs, looks again ever less often, and uses what comes."""
    recorder = Recorder()
    recorder.error = DeviceError("camera auto: none found", reason="absent")
    running_worker = recorder.worker()
    running_worker.start()
    wait_until(lambda: len(quick) >= 3, "three attempts")
    assert recorder.health.reasons == []
    assert quick[:3] == [1, 2, 3]
    recorder.error = None
    wait_until(lambda: "item" in recorder.log, "items from the new device")
    running_worker.close()
    assert not any(line.startswith("camera") for line in recorder.log)


def test_device_that_was_there_and_is_absent_stays_a_fault(quick: list[int]) -> None:
    """What is pulled out of an `auto` is missed."""
    recorder = Recorder()
    recorder.error = DeviceError("gone", reason="no_device")
    running_worker = recorder.worker()
    running_worker.start()
    wait_until(lambda: recorder.health.reasons, "a fault")
    recorder.error = DeviceError("camera auto: none found", reason="absent")
    seen = len(quick)
    wait_until(lambda: len(quick) > seen + 3, "more attempts")
    assert recorder.health.reasons == ["camera:no_device"]
    running_worker.close()


@pytest.mark.parametrize(("attempt", "most_s"), [(0, 1), (1, 2), (5, 32), (6, 60), (1000, 60)])
def test_pauses_double_up_to_a_minute(attempt: int, most_s: float) -> None:
    """One second at first, a minute at most, and never the same for all devices of a house."""
    pauses = [backoff_s(attempt) for _ in range(200)]
    assert most_s / 2 <= min(pauses) < max(pauses) <= most_s


def test_silent_microphone_is_listened_to_at_once(quick: list[int]) -> None:
    """The pause of a silent microphone stays the shortest, since speech may begin at any time."""
    recorder = Recorder()
    recorder.error = DeviceError("mic: perfect silence", reason="silent")
    running_worker = recorder.worker()
    running_worker.start()
    wait_until(lambda: len(quick) >= 4, "four attempts")
    running_worker.close()
    assert set(quick) == {0}
