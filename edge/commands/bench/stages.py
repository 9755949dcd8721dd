"""Measures the time of each stage and of each model on each backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import cv2
import numpy as np

from edge import __version__
from edge.commands.bench.targets import evaluate_targets
from edge.commands.bench.whole_daemon import measure_daemon
from edge.errors import DeviceError
from edge.face.crop import FaceCropper
from edge.face.measurements import FaceMeasurer
from edge.inference.backends import BACKENDS
from edge.inference.card import golden_input
from edge.inference.classifier import TfliteClassifier
from edge.inference.features import CropSpec
from edge.inference.models import open_model
from edge.pipeline import FacePipeline, open_face_pipeline, open_voice_pipeline
from edge.settings import Config
from edge.sources.media_files import read_audio, read_video_frames
from edge.sources.replay import clip_path
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Face, Frame, UInt8, rfc3339

REPEATS = 100
CROWDS = (1, 5, 30)  # faces in view
CROWD_S = 4.0  # limit for each crowd
MARGIN = 0.2  # around the face, as a share of its size
BACKEND_S = 3.0  # limit for each model on each backend, so that a slow one runs less than `REPEATS` times


def run_bench(config: Config, *, seconds: float) -> dict[str, Any]:
    """Measure the stages on the shipped clip, speech as a real-time factor, then the whole daemon.

    The daemon runs for `seconds` with people in view, and for half of that in an empty room.

    Stages are measured in processor time, so that other programs on the machine distort them less. The models
    on each backend are measured in elapsed time, because an accelerator's work is not processor time.
    """
    pipeline = open_face_pipeline(config)
    frames = [
        Frame(np.asarray(cv2.resize(frame.pixels, (640, 480)), np.uint8), frame.t_ns)
        for frame in read_video_frames(clip_path(), 0.1)
    ]
    still = frames[len(frames) // 2].pixels
    (face, *_) = pipeline.detector.detect(still)
    result = {
        "version": 1,
        "program": __version__,
        "time": rfc3339(datetime.now(UTC)),
        "backend": pipeline.classifier.backend,
        "stages": {**bench_stages(pipeline, still, face), "tracked_frame": _bench_tracking(pipeline, frames)},
        "faces": {str(count): _bench_crowd(pipeline, still, face, count) for count in CROWDS},
        "backends": bench_backends(config),
        "speech": _bench_speech(config),
        "daemon": measure_daemon(config, seconds=seconds),
    }
    return {**result, "targets": evaluate_targets(result)}


def bench_stages(pipeline: FacePipeline, still: UInt8, face: Face) -> dict[str, dict[str, float]]:
    """Return p50 and p95 in ms of each stage of the face path on one image (h, w, 3) with one face."""
    detector, classifier = pipeline.detector, pipeline.classifier
    cropper = FaceCropper(classifier.card.spec(CropSpec))
    crop = cropper.crop(still, face).copy()
    measurer = pipeline.measurer or FaceMeasurer()

    def whole_path() -> None:
        for detected in detector.detect(still):
            classifier.classify(cropper.crop(still, detected))

    return {
        "detect": _time_stage(lambda: detector.detector.detect(still)),
        "landmarks": _time_stage(lambda: detector.refine(still, [face])),
        "crop": _time_stage(lambda: cropper.crop(still, face)),
        "face_model": _time_stage(lambda: classifier.classify(crop)),
        "face_path": _time_stage(whole_path),
        "reading": _time_stage(lambda: measurer.measure(still, face, 0)),
    }


def _time_stage(work: Callable[[], object]) -> dict[str, float]:
    for _ in range(5):
        work()
    return _percentiles([_cost_ms(work) for _ in range(REPEATS)])


def _cost_ms(work: Callable[[], object]) -> float:
    start_ns = time.process_time_ns()
    work()
    return (time.process_time_ns() - start_ns) / 1e6


def bench_backends(config: Config) -> dict[str, dict[str, dict[str, Any]]]:
    """Return p50 and p95 in ms of each model on each backend, or the reason why it does not run there."""
    names = list(BACKENDS)
    if config.inference.backend.startswith("delegate:"):
        names.append(config.inference.backend)
    return {
        backend: {
            "face_model": _on_backend(partial(open_model, config, "face"), backend),
            "voice_model": _on_backend(partial(open_model, config, "voice"), backend),
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


def _bench_tracking(pipeline: FacePipeline, frames: list[Frame]) -> dict[str, float]:
    """Measure the face path on consecutive frames, in which faces are tracked."""
    fresh = pipeline.copy_without_history()
    costs = [_cost_ms(lambda frame=frame: fresh.process(frame)) for frame in frames]  # type: ignore[misc]
    return {**_percentiles(costs), "mean_ms": round(float(np.mean(costs)), 3)}


def draw_crowd(still: UInt8, face: Face, count: int) -> UInt8:
    """Return an image (960, 1280, 3) that shows one face `count` times, at most 30, in rows of six."""
    x, y, w, h = face.box_px
    top, left = max(0, int(y - h * MARGIN)), max(0, int(x - w * MARGIN))
    patch = still[top : int(y + h * (1 + MARGIN)), left : int(x + w * (1 + MARGIN))]
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


def _bench_crowd(pipeline: FacePipeline, still: UInt8, face: Face, count: int) -> dict[str, float]:
    """Measure the face path with tracking on `count` faces, at ten frames per second."""
    crowd, fresh = draw_crowd(still, face, count), pipeline.copy_without_history()
    costs: list[float] = []
    found = 0
    end_s = time.monotonic() + CROWD_S
    while len(costs) < REPEATS and time.monotonic() < end_s:
        frame = Frame(crowd, len(costs) * 100_000_000)
        start_ns = time.process_time_ns()
        found = max(found, len(fresh.process(frame)))
        costs.append((time.process_time_ns() - start_ns) / 1e6)
    mean_ms = float(np.mean(costs))
    fps = round(1e3 / mean_ms, 1)
    return {**_percentiles(costs), "mean_ms": round(mean_ms, 3), "fps_on_one_core": fps, "found": found}


def _percentiles(costs_ms: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(costs_ms, [50, 95])
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3)}


def _bench_speech(config: Config) -> dict[str, float]:
    """Measure the voice path on the audio of the shipped clip."""
    pipeline = open_voice_pipeline(config)
    samples = read_audio(clip_path())
    start_ns = time.process_time_ns()
    windows = sum(1 for _ in pipeline.process(AudioChunk(samples, 0)))
    cost_s = (time.process_time_ns() - start_ns) / 1e9
    factor = cost_s / (samples.size / SAMPLE_RATE_HZ)
    return {"real_time_factor": round(factor, 4), "ms_per_window": round(1e3 * cost_s / windows, 3)}
