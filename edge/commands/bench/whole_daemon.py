"""What the whole daemon costs: a process of its own on an embedded broker, watched from outside."""

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

from edge.config import ENV_PREFIX, to_toml
from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.subscriber import Listener, listen
from edge.errors import EdgeError
from edge.host.malloc import rss_bytes
from edge.settings import Config, DashboardSettings, DeviceSettings, HealthSettings, MqttSettings
from edge.sources.replay import clip_path
from edge.values import SAMPLE_RATE_HZ

WARM_S = 3.0  # after the start, before processor time is counted
EMPTY_FPS = 10
EMPTY_S = 4
CUT_S = 2.0  # how long the page is waited for, or a stream that stalls


def measure_daemon(config: Config, *, seconds: float) -> dict[str, float | None]:
    """Watch the daemon `seconds` among people, half of them with a page open, then half as long alone.

    It has the settings of `config` except for broker, device, sources and outbox. What did not come is None.
    Raises `EdgeError` when it ends by itself.
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
            busy = _watch_people(pid, listener, port, seconds)
        camera, microphone = draw_empty_room(directory)
        alone = bench_config(config, broker, directory, camera=camera, microphone=microphone, port=None)
        with _running(alone, directory) as pid:
            _pass(WARM_S)
            return {**busy, "idle_cpu_percent": round(100 * _share(pid, seconds / 2), 2)}


def bench_config(
    config: Config, broker: EmbeddedBroker, directory: Path, *, camera: str, microphone: str, port: int | None
) -> Config:
    """Return `config` as the measured daemon has it, without the user's broker, its secrets and its topics.

    The sources are tokens; `port` is the page's, None for no page.
    """
    return config.model_copy(
        update={
            # Nobody is at work in the clip.
            "device": DeviceSettings(id="bench"),
            "camera": config.camera.model_copy(update={"source": camera}),
            "microphone": config.microphone.model_copy(update={"source": microphone}),
            "mqtt": MqttSettings(
                host=broker.host, port=broker.port, prefix=config.mqtt.prefix, discovery=False
            ),
            "outbox": config.outbox.model_copy(update={"path": directory / "outbox.sqlite3"}),
            "dashboard": DashboardSettings(bind="none" if port is None else f"127.0.0.1:{port}"),
            # Pictures left out would look like speed.
            "health": HealthSettings(soft_limit_c=120.0),
        }
    )


def draw_empty_room(directory: Path) -> tuple[str, str]:
    """Write a clip of a wall with a sensor's noise, and the hum of a quiet room; return their tokens."""
    random = np.random.default_rng(7)
    wall = np.tile(np.linspace(60, 180, 640), (480, 1))[..., None]
    picture, sound = directory / "empty.mp4", directory / "quiet.wav"
    writer = cv2.VideoWriter(str(picture), cv2.VideoWriter.fourcc(*"mp4v"), EMPTY_FPS, (640, 480))
    for _ in range(EMPTY_FPS * EMPTY_S):
        writer.write(np.clip(wall + random.normal(0, 3, (480, 640, 3)), 0, 255).astype(np.uint8))
    writer.release()
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(random.normal(0, 30, SAMPLE_RATE_HZ * EMPTY_S).astype("<i2").tobytes())
    return f"file:{picture}?loop", f"file:{sound}?loop"


@contextmanager
def _running(config: Config, directory: Path) -> Iterator[int]:
    """Run a daemon while the block lasts; give its process id."""
    path = directory / "bench.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    # The variables are in `config` already, and would win over the file.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "run", "--config", str(path)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
        if (code := process.poll()) is not None:
            raise EdgeError(
                f"the measured daemon ended by itself with code {code}; `emotion-edge run` says why"
            )
    finally:
        process.terminate()
        process.wait(10)


def _listen(config: Config) -> Listener:
    root = f"{config.mqtt.prefix}/{config.device.id}"
    listener = listen(config.mqtt, f"{root}/state", f"{root}/event")
    listener.wait_ready(5.0)
    return listener


def _watch_people(pid: int, listener: Listener, port: int, seconds: float) -> dict[str, float | None]:
    start_s = time.monotonic()
    heard = _Heard(start_s)
    heard.listen(listener, WARM_S)
    closed = heard.share(pid, listener, max(1.0, seconds / 2 - WARM_S))
    stop, is_read = threading.Event(), threading.Event()
    reader = threading.Thread(target=_follow_page, args=(port, stop, is_read), daemon=True)
    reader.start()
    heard.listen(listener, 1.0)
    opened = heard.share(pid, listener, seconds / 2)
    memory = rss_bytes(pid) / (1 << 20)
    stop.set()
    reader.join(2 * CUT_S)
    return {
        "first_prediction_s": heard.first_s,
        "cpu_share_of_core": round(closed, 3),
        "page_open_cpu_percent": round(100 * opened, 1) if is_read.is_set() else None,
        "rss_mb": round(memory, 1),
        "event_latency_p95_ms": heard.latency_p95_ms,
    }


class _Heard:
    """What came over the broker since the start."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self.first_s: float | None = None
        self._latencies_ms: list[float] = []

    @property
    def latency_p95_ms(self) -> float | None:
        """From the capture of what caused an event to its arrival."""
        return round(float(np.percentile(self._latencies_ms, 95)), 1) if self._latencies_ms else None

    def listen(self, listener: Listener, seconds: float) -> None:
        """Take what comes for so long."""
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

    def share(self, pid: int, listener: Listener, seconds: float) -> float:
        """Listen for so long; return the share of a core that the process took meanwhile."""
        begun = (_cpu_s(pid), time.monotonic())
        self.listen(listener, seconds)
        return (_cpu_s(pid) - begun[0]) / (time.monotonic() - begun[1])


def _share(pid: int, seconds: float) -> float:
    begun = (_cpu_s(pid), time.monotonic())
    _pass(seconds)
    return (_cpu_s(pid) - begun[0]) / (time.monotonic() - begun[1])


def _pass(seconds: float) -> None:
    threading.Event().wait(seconds)


def _follow_page(port: int, stop: threading.Event, is_read: threading.Event) -> None:
    """Read the page's stream as a browser does; set `is_read` once something came."""
    while not stop.wait(0.1):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stream", timeout=CUT_S) as stream:
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
