"""`emotion-edge bench`: how long each stage takes here, and what the whole daemon costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge import __version__
from edge.broker import EmbeddedBroker
from edge.card import TfliteClassifier, golden_input
from edge.demo import clip_path
from edge.errors import DeviceError
from edge.faces import CropSpec, FaceCropper
from edge.health import rss_bytes
from edge.listen import listen
from edge.media import read_sound, read_video_frames
from edge.pipeline import Eyes, open_ears, open_eyes, opener
from edge.reading import FaceReader
from edge.runtime import BACKENDS
from edge.settings import Config, MqttSettings
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Face, Frame, UInt8, rfc3339

REPEATS = 100
CROWDS = (1, 5, 30)  # faces in view
CROWD_S = 4.0  # of each
AROUND = 0.2  # of the face's size left around it
BACKEND_S = 3.0  # of each model on each backend: a slow one is not run a hundred times


def run_bench(config: Config, *, seconds: float) -> dict[str, Any]:
    """Measure on the shipped clip: stages in ms, speech as a real-time factor, then the daemon for a while.

    Stages are process time, so that other programs on the machine count less; the models on each backend
    are time on the clock, since an accelerator's is nobody's process time.
    """
    eyes = open_eyes(config)
    frames = [
        Frame(np.asarray(cv2.resize(frame.pixels, (640, 480)), np.uint8), frame.t_ns)
        for frame in read_video_frames(clip_path(), 0.1)
    ]
    still = frames[len(frames) // 2].pixels
    (face, *_) = eyes.finder.find(still)
    cropper = FaceCropper(CropSpec.from_features(eyes.classifier.card.input.features))
    crop = cropper.crop(still, face).copy()
    reader = eyes.reader or FaceReader()

    def whole() -> None:
        for found in eyes.finder.find(still):
            eyes.classifier.classify(cropper.crop(still, found))

    stages = {
        "detect": _timed(lambda: eyes.finder.detector.detect(still)),
        "landmarks": _timed(lambda: eyes.finder.refine(still, [face])),
        "crop": _timed(lambda: cropper.crop(still, face)),
        "face_model": _timed(lambda: eyes.classifier.classify(crop)),
        "face_path": _timed(whole),
        "reading": _timed(lambda: reader.read(still, face, 0)),
        "tracked_frame": _tracked(eyes, frames),
    }
    return {
        "version": 1,
        "program": __version__,
        "time": rfc3339(datetime.now(UTC)),
        "backend": eyes.classifier.backend,
        "stages": stages,
        "faces": {str(count): _crowd(eyes, still, face, count) for count in CROWDS},
        "backends": bench_backends(config),
        "speech": _speech(config),
        "daemon": _daemon(config, seconds),
    }


def _timed(work: Callable[[], object]) -> dict[str, float]:
    for _ in range(5):
        work()
    return _percentiles([_cost_ms(work) for _ in range(REPEATS)])


def _cost_ms(work: Callable[[], object]) -> float:
    start_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - start_ns) / 1e6


def bench_backends(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """Return p50 and p95 of each model on each backend, or the reason why it does not run there."""
    names = list(BACKENDS)
    if config.inference.backend.startswith("delegate:"):
        names.append(config.inference.backend)
    return {
        backend: {
            "face_model": _on_backend(opener(config, "face"), backend),
            "voice_model": _on_backend(opener(config, "voice"), backend),
        }
        for backend in names
    }


def _on_backend(open_on: Callable[[str], TfliteClassifier], backend: str) -> dict[str, Any]:
    try:
        classifier = open_on(backend)
        x = golden_input(classifier.card)
        for _ in range(5):
            classifier.classify(x)
        costs: list[float] = []
        end_s = time.monotonic() + BACKEND_S
        while len(costs) < REPEATS and time.monotonic() < end_s:
            start_ns = time.perf_counter_ns()
            classifier.classify(x)
            costs.append((time.perf_counter_ns() - start_ns) / 1e6)
    except DeviceError as error:
        return {"reason": error.reason, "detail": str(error)}
    return _percentiles(costs)


def _tracked(eyes: Eyes, frames: list[Frame]) -> dict[str, float]:
    fresh = Eyes(eyes.classifier, eyes.finder, eyes.reader)
    costs = [_cost_ms(lambda frame=frame: fresh.see(frame)) for frame in frames]  # type: ignore[misc]
    return {**_percentiles(costs), "mean_ms": round(float(np.mean(costs)), 3)}


def draw_crowd(still: UInt8, face: Face, count: int) -> UInt8:
    """Return a picture (960, 1280, 3) that shows one face `count` times, 30 at most, in rows of six."""
    x, y, w, h = face.box_px
    top, left = max(0, int(y - h * AROUND)), max(0, int(x - w * AROUND))
    patch = still[top : int(y + h * (1 + AROUND)), left : int(x + w * (1 + AROUND))]
    columns = 1 if count == 1 else 3 if count <= 6 else 6
    rows = -(-count // columns)
    cell_w, cell_h = 1280 // columns, 960 // rows
    scale = min(cell_w / patch.shape[1], cell_h / patch.shape[0])
    tile = cv2.resize(patch, None, fx=scale, fy=scale)[:cell_h, :cell_w]
    crowd = np.full((960, 1280, 3), 128, np.uint8)
    for number in range(count):
        row, column = divmod(number, columns)
        at_y = row * cell_h + (cell_h - tile.shape[0]) // 2
        at_x = column * cell_w + (cell_w - tile.shape[1]) // 2
        crowd[at_y : at_y + tile.shape[0], at_x : at_x + tile.shape[1]] = tile
    return crowd


def _crowd(eyes: Eyes, still: UInt8, face: Face, count: int) -> dict[str, float]:
    """Measure the face path as the daemon runs it, ten pictures a second, on so many faces."""
    crowd, fresh = draw_crowd(still, face, count), Eyes(eyes.classifier, eyes.finder, eyes.reader)
    costs: list[float] = []
    found = 0
    end_s = time.monotonic() + CROWD_S
    while len(costs) < REPEATS and time.monotonic() < end_s:
        frame = Frame(crowd, len(costs) * 100_000_000)
        start_ns = time.process_time_ns()
        found = max(found, len(fresh.see(frame)))
        costs.append((time.process_time_ns() - start_ns) / 1e6)
    mean_ms = float(np.mean(costs))
    fps = round(1e3 / mean_ms, 1)
    return {**_percentiles(costs), "mean_ms": round(mean_ms, 3), "fps_on_one_core": fps, "found": found}


def _percentiles(costs_ms: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(costs_ms, [50, 95])
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}


def _speech(config: Config) -> dict[str, float]:
    ears = open_ears(config)
    samples = read_sound(clip_path())
    start_ns = time.process_time_ns()
    windows = sum(1 for _ in ears.hear(AudioChunk(samples, 0)))
    cost_s = (time.process_time_ns() - start_ns) / 1e9
    factor = cost_s / (samples.size / SAMPLE_RATE_HZ)
    return {"real_time_factor": round(factor, 4), "ms_per_window": round(1e3 * cost_s / windows, 3)}


def _daemon(config: Config, seconds: float) -> dict[str, float]:
    """Run the daemon as its own process on the clip, and watch it from outside."""
    clip = f"file:{clip_path()}?loop"
    with tempfile.TemporaryDirectory() as directory, EmbeddedBroker(Path(directory) / "broker") as broker:
        settings = MqttSettings(host=broker.host, port=broker.port, prefix=config.mqtt.prefix)
        environment = {
            **os.environ,
            "EMOTION_EDGE__MQTT__HOST": broker.host,
            "EMOTION_EDGE__MQTT__PORT": str(broker.port),
            "EMOTION_EDGE__CAMERA__SOURCE": clip,
            "EMOTION_EDGE__MICROPHONE__SOURCE": clip,
            "EMOTION_EDGE__OUTBOX__PATH": str(Path(directory) / "outbox.sqlite3"),
            "EMOTION_EDGE__DEVICE__ID": "bench",
            "EMOTION_EDGE__DASHBOARD__BIND": "none",
            "EMOTION_EDGE__MQTT__DISCOVERY": "false",
            "EMOTION_EDGE__HEALTH__SOFT_LIMIT_C": "120",  # pictures left out would look like speed
        }
        listener = listen(settings, f"{settings.prefix}/bench/state", f"{settings.prefix}/bench/event")
        listener.wait_ready(5.0)
        start_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run"], env=environment, stderr=subprocess.DEVNULL
        )
        try:
            return _watch(process.pid, listener, start_s, seconds)
        finally:
            process.terminate()
            process.wait(10)
            listener.close()


def _watch(pid: int, listener: Any, start_s: float, seconds: float) -> dict[str, float]:
    first_s = 0.0
    latencies: list[float] = []
    warm: tuple[float, float] | None = None
    while (now_s := time.monotonic()) - start_s < seconds:
        message = listener.receive(0.05)
        if warm is None and now_s - start_s > 3:
            warm = (_cpu_s(pid), now_s)
        if message is None:
            continue
        document = json.loads(message.payload)
        if not first_s and document.get("probabilities"):
            first_s = time.monotonic() - start_s
        if document.get("type") == "emotion.changed":
            age_s = time.time() - _epoch_s(document["time"])
            latencies.append(1e3 * age_s)
    cpu = (_cpu_s(pid) - warm[0]) / (time.monotonic() - warm[1]) if warm else 0.0
    return {
        "first_prediction_s": round(first_s, 2),
        "cpu_share_of_core": round(cpu, 3),
        "rss_mb": round(rss_bytes(pid) / (1 << 20), 1),
        "event_latency_p95_ms": round(float(np.percentile(latencies, 95)), 1) if latencies else -1.0,
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _epoch_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
