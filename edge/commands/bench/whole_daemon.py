"""Measures processor time, memory and latency of the whole daemon, run as a process on an embedded broker."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.config import child_environment, to_toml
from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.subscriber import Listener, listen
from edge.errors import EdgeError
from edge.host.malloc import rss_bytes
from edge.settings import Config, DashboardSettings, DeviceSettings, HealthSettings, MqttSettings
from edge.sources.replay import clip_path
from edge.values import SAMPLE_RATE_HZ

WARM_UP_S = 3.0  # after the start, before processor time is counted
EMPTY_FPS = 10
EMPTY_S = 4
PAGE_TIMEOUT_S = 2.0  # for a connection to the page, and for its stream


def measure_daemon(config: Config, *, seconds: float) -> dict[str, float | None]:
    """Measure the daemon with people in view for `seconds`, then in an empty room for half of that.

    The page is open in the second half of `seconds`. The daemon has the settings of `config` except for
    broker, device, sources and outbox. A value that could not be measured is None.
    Raises `EdgeError` if the daemon stops by itself.
    """
    clip = f"file:{clip_path()}?loop"
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedBroker(Path(name) / "broker") as broker,
    ):
        directory = Path(name)
        port = _free_port()
        among_people = bench_config(config, broker, directory, camera=clip, microphone=clip, port=port)
        with _running(among_people, directory) as pid, closing(_listen(among_people)) as listener:
            busy = _measure_people(pid, listener, port, seconds)
        camera, microphone = draw_empty_room(directory)
        alone = bench_config(config, broker, directory, camera=camera, microphone=microphone, port=None)
        with _running(alone, directory) as pid:
            _wait(WARM_UP_S)
            return {**busy, "idle_cpu_percent": round(100 * _cpu_share(pid, seconds / 2), 2)}


def bench_config(
    config: Config, broker: EmbeddedBroker, directory: Path, *, camera: str, microphone: str, port: int | None
) -> Config:
    """Return `config` for the measured daemon: embedded broker, given sources, no secrets.

    `camera` and `microphone` are tokens; `port` is that of the page, None for no page.
    """
    return config.model_copy(
        update={
            # Context home: nothing in the clip is withheld.
            "device": DeviceSettings(id="bench"),
            "camera": config.camera.model_copy(update={"source": camera}),
            "microphone": config.microphone.model_copy(update={"source": microphone}),
            "mqtt": MqttSettings(
                host=broker.host, port=broker.port, prefix=config.mqtt.prefix, discovery=False
            ),
            "outbox": config.outbox.model_copy(update={"path": directory / "outbox.sqlite3"}),
            "dashboard": DashboardSettings(bind="none" if port is None else f"127.0.0.1:{port}"),
            # A hot device must not skip frames, which would look like speed.
            "health": HealthSettings(soft_limit_c=120.0),
        }
    )


def draw_empty_room(directory: Path) -> tuple[str, str]:
    """Write a video of a wall with sensor noise and audio of a quiet room; return their tokens."""
    random = np.random.default_rng(7)
    wall = np.tile(np.linspace(60, 180, 640), (480, 1))[..., None]
    video, audio = directory / "empty.mp4", directory / "quiet.wav"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), EMPTY_FPS, (640, 480))
    for _ in range(EMPTY_FPS * EMPTY_S):
        writer.write(np.clip(wall + random.normal(0, 3, (480, 640, 3)), 0, 255).astype(np.uint8))
    writer.release()
    with wave.open(str(audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(random.normal(0, 30, SAMPLE_RATE_HZ * EMPTY_S).astype("<i2").tobytes())
    return f"file:{video}?loop", f"file:{audio}?loop"


@contextmanager
def _running(config: Config, directory: Path) -> Iterator[int]:
    """Run a daemon while the block runs; yield its process id."""
    path = directory / "bench.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    # `config` contains the variables already; they would override the file.
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "run", "--config", str(path)],
        env=child_environment(),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
        if (code := process.poll()) is not None:
            raise EdgeError(
                f"the measured daemon stopped with exit code {code}; `emotion-edge run` prints the reason"
            )
    finally:
        process.terminate()
        process.wait(10)


def _listen(config: Config) -> Listener:
    root = f"{config.mqtt.prefix}/{config.device.id}"
    listener = listen(config.mqtt, f"{root}/state", f"{root}/event")
    listener.wait_ready(5.0)
    return listener


def _measure_people(pid: int, listener: Listener, port: int, seconds: float) -> dict[str, float | None]:
    start_s = time.monotonic()
    received = _Received(start_s)
    received.receive(listener, WARM_UP_S)
    closed = received.cpu_share(pid, listener, max(1.0, seconds / 2 - WARM_UP_S))
    stop, is_read = threading.Event(), threading.Event()
    reader = threading.Thread(target=_read_page, args=(port, stop, is_read), daemon=True)
    reader.start()
    received.receive(listener, 1.0)
    opened = received.cpu_share(pid, listener, seconds / 2)
    memory = rss_bytes(pid) / (1 << 20)
    stop.set()
    reader.join(2 * PAGE_TIMEOUT_S)
    return {
        "first_prediction_s": received.first_s,
        "cpu_share_of_core": round(closed, 3),
        "page_open_cpu_percent": round(100 * opened, 1) if is_read.is_set() else None,
        "rss_mb": round(memory, 1),
        "event_latency_p95_ms": received.latency_p95_ms,
    }


class _Received:
    """The messages of the daemon: time of the first prediction and latencies of the events."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self.first_s: float | None = None
        self._latencies_ms: list[float] = []

    @property
    def latency_p95_ms(self) -> float | None:
        """Time from the capture of a frame or audio to the arrival of its event."""
        return round(float(np.percentile(self._latencies_ms, 95)), 1) if self._latencies_ms else None

    def receive(self, listener: Listener, seconds: float) -> None:
        """Receive messages for `seconds`."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if (message := listener.receive(min(0.05, left_s))) is None:
                continue
            document: dict[str, Any] = json.loads(message.payload)
            if self.first_s is None and document.get("probabilities"):
                self.first_s = round(time.monotonic() - self._start_s, 2)
            if document.get("type") == "emotion.changed":
                age_s = time.time() - datetime.fromisoformat(document["time"]).timestamp()
                self._latencies_ms.append(1e3 * age_s)

    def cpu_share(self, pid: int, listener: Listener, seconds: float) -> float:
        """Receive messages for `seconds`; return the share of a core that the process used meanwhile."""
        start = (_cpu_s(pid), time.monotonic())
        self.receive(listener, seconds)
        return (_cpu_s(pid) - start[0]) / (time.monotonic() - start[1])


def _cpu_share(pid: int, seconds: float) -> float:
    start = (_cpu_s(pid), time.monotonic())
    _wait(seconds)
    return (_cpu_s(pid) - start[0]) / (time.monotonic() - start[1])


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def _read_page(port: int, stop: threading.Event, is_read: threading.Event) -> None:
    """Read the page's stream as a browser does; set `is_read` after the first line."""
    while not stop.wait(0.1):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream", timeout=PAGE_TIMEOUT_S) as stream:
                while not stop.is_set() and stream.readline():
                    is_read.set()
        except OSError:  # not served yet
            continue


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
