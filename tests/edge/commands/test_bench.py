"""`emotion-edge bench`: its measurements, its schema and the comparison with the last run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.commands.bench.history import compare, with_history
from edge.commands.bench.report import print_bench
from edge.commands.bench.stages import draw_crowd
from edge.commands.bench.targets import SpeedTarget
from edge.commands.bench.whole_daemon import bench_config
from edge.config import load_config, parse_config, to_toml
from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.messages import load_schema
from edge.pipeline import open_face_pipeline
from edge.settings import Config
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from tests.helpers.commands import run_edge

RESULT: dict[str, Any] = {
    "time": "2026-01-02T03:04:05.000Z",
    "stages": {"detect": {"p50_ms": 4.0, "p95_ms": 6.0}},
    "backends": {"gpu": {"face_model": {"reason": "no_device", "detail": "none"}}},
    "faces": {"30": {"p50_ms": 50.0, "found": 30, "fps_on_one_core": 20.0}},
    "daemon": {"rss_mb": 150.0, "event_latency_p95_ms": None},
}


def test_run_and_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It measures the user's config on an embedded broker; the tables show targets and ratios."""
    secret = tmp_path / "password"
    secret.write_text("secret")
    secret.chmod(0o600)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[camera]\nfps = 5\n[device]\ncontext = "workplace"\n[mqtt]\nhost = "nobody.invalid"\n'
        f'prefix = "site/mood"\nusername = "kitchen"\npassword_file = "{secret}"\n'
    )
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "EMOTION_EDGE__MQTT__PORT": "1"}
    done = run_edge("bench", "--seconds", "4", "--json", "--config", str(config), env=env, timeout_s=200)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    jsonschema.Draft202012Validator(load_schema("bench")).validate(first)
    assert first["compared"] is None
    assert first["daemon"]["first_prediction_s"] is not None  # so the embedded broker has the user's prefix
    assert 0 < first["daemon"]["idle_cpu_percent"] < first["daemon"]["page_open_cpu_percent"]
    assert first["faces"]["1"]["p50_ms"] < first["faces"]["30"]["p50_ms"]
    history = tmp_path / "emotion-edge" / "bench.json"
    assert json.loads(history.read_text())["time"] == first["time"]
    print_bench(with_history(first, history), as_json=False)
    printed = capsys.readouterr().out
    assert f"last run: {first['time']}" in printed
    (detect,) = (line.split("\t") for line in printed.splitlines() if line.startswith("detect\t"))
    assert detect[-1] == "x1.00"
    rows = [line.split("\t") for line in printed.splitlines() if line.startswith("empty room")]
    assert rows[0][-1] == ("yes" if first["daemon"]["idle_cpu_percent"] <= 5 else "no")


def test_measured_daemon_has_the_settings_but_not_the_broker(tmp_path: Path) -> None:
    """Frame rate, models, backend and prefix are the user's; broker, password and device are not."""
    config = parse_config(
        {
            "device": {"id": "kitchen", "context": "workplace"},
            "camera": {"source": "rtsp://me:secret@camera/1", "fps": 3.0, "width": 320},
            "models": {"face": "mine", "directory": str(tmp_path / "models")},
            "inference": {"backend": "gpu"},
            "fusion": {"ema_s": 2.0},
            "mqtt": {"host": "far.away", "prefix": "site/mood", "keepalive_s": 5},
        }
    )
    with EmbeddedBroker(tmp_path / "broker") as broker:
        made = bench_config(config, broker, tmp_path, camera="file:/a.mp4?loop", microphone="none", port=8000)
    path = tmp_path / "bench.toml"
    path.write_text(to_toml(made))
    measured = load_config(path, environ={})
    assert measured == made
    assert (measured.models, measured.inference, measured.fusion) == (
        config.models,
        config.inference,
        config.fusion,
    )
    assert measured.camera == config.camera.model_copy(update={"source": "file:/a.mp4?loop"})
    assert (measured.mqtt.prefix, measured.mqtt.host) == ("site/mood", "127.0.0.1")
    assert measured.dashboard.bind == "127.0.0.1:8000"
    assert measured.device.context == "home"


@pytest.mark.parametrize(
    ("value", "is_floor", "ratio", "met"),
    [(8.0, False, 1.0, True), (8.01, False, 1.0, False), (8.0, True, 1.0, True), (7.99, True, 1.0, False)],
)
def test_target_is_met_at_its_limit(value: float, is_floor: bool, ratio: float, met: bool) -> None:
    """A value at the limit meets the target, a step beyond it does not."""
    target = SpeedTarget("speed", "a.b", 8.0, is_floor).evaluate({"a": {"b": value}})
    assert (target["ratio"], target["met"]) == (ratio, met)


def test_target_without_a_measure_is_neither_met_nor_missed() -> None:
    """Without a first prediction there is no time to it."""
    target = SpeedTarget("restart", "a.b", 2.0).evaluate({"a": {"b": None}})
    assert target["value"] is target["ratio"] is target["met"] is None


@pytest.mark.parametrize("count", [1, 5, 30])
def test_crowd_is_detected(count: int) -> None:
    """The detector finds at least 90 % of the drawn faces, so that their cost is measured."""
    detector = open_face_pipeline(Config()).detector
    frames = list(read_video_frames(clip_path(), 0.1))
    still = frames[len(frames) // 2].pixels
    (face, *_) = detector.detect(still)
    found = len(detector.detect(draw_crowd(still, face, count)))
    assert count * 0.9 <= found <= count


def test_ratios_are_new_by_old() -> None:
    """Times and memory are compared; counts, rates and missing values are not."""
    slower = json.loads(json.dumps(RESULT))
    slower["stages"]["detect"]["p50_ms"] = 8.0
    assert compare(slower, RESULT) == {
        "stages.detect.p50_ms": 2.0,
        "stages.detect.p95_ms": 1.0,
        "faces.30.p50_ms": 1.0,
        "daemon.rss_mb": 1.0,
    }


def test_measure_of_one_run_is_not_compared() -> None:
    """A new stage or a lost backend has no ratio."""
    assert compare({"stages": {"new": {"p50_ms": 1.0}}}, RESULT) == {}


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff"])
def test_damaged_history_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """A file damaged by a power cut costs only one comparison."""
    path = tmp_path / "bench.json"
    path.write_bytes(damage)
    assert with_history(RESULT, path)["compared"] is None
    compared = with_history(RESULT, path)["compared"]
    assert compared["time"] == RESULT["time"]
    assert set(compared["ratios"].values()) == {1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_state_costs_only_the_history(caplog: pytest.LogCaptureFixture) -> None:
    """The result is returned, and the log names the variable to set."""
    assert with_history(RESULT, Path("/dev/null/bench.json"))["compared"] is None
    assert "set XDG_STATE_HOME" in caplog.text
