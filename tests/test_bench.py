"""`emotion-edge bench` measures what it says, fits its schema, and compares itself with the last run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from commands import run_edge

from edge.bench import draw_crowd
from edge.bench_history import compare, with_history
from edge.demo import clip_path
from edge.media import read_video_frames
from edge.messages import load_schema
from edge.pipeline import open_eyes
from edge.settings import Config

RESULT: dict[str, Any] = {
    "time": "2026-01-02T03:04:05.000Z",
    "stages": {"detect": {"p50_ms": 4.0, "p95_ms": 6.0}},
    "backends": {"gpu": {"face_model": {"reason": "no_device", "detail": "none"}}},
    "faces": {"30": {"p50_ms": 50.0, "found": 30, "fps_on_one_core": 20.0}},
    "daemon": {"rss_mb": 150.0, "event_latency_p95_ms": -1.0},
}


def run_bench(env: dict[str, str], *more: str) -> str:
    """Run the command; return what it printed."""
    done = run_edge("bench", "--seconds", "6", *more, env=env, timeout_s=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_runs(tmp_path: Path) -> None:
    """The first has nothing to compare itself with; the second shows people its ratios."""
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    first = json.loads(run_bench(env, "--json"))
    jsonschema.Draft202012Validator(load_schema("bench")).validate(first)
    assert first["compared"] is None
    assert first["daemon"]["first_prediction_s"] > 0
    assert first["faces"]["1"]["p50_ms"] < first["faces"]["30"]["p50_ms"]
    second = run_bench(env)
    assert f"last run: {first['time']}" in second
    (detect,) = (line.split("\t") for line in second.splitlines() if line.startswith("detect\t"))
    assert detect[-1].startswith("x")
    kept = json.loads((tmp_path / "emotion-edge" / "bench.json").read_text())
    assert kept["time"] > first["time"]


@pytest.mark.parametrize("count", [1, 5, 30])
def test_crowd_is_seen(count: int) -> None:
    """The detector finds nearly everybody who is drawn, so that the cost is that of so many faces."""
    finder = open_eyes(Config()).finder
    frames = list(read_video_frames(clip_path(), 0.1))
    still = frames[len(frames) // 2].pixels
    (face, *_) = finder.find(still)
    found = len(finder.find(draw_crowd(still, face, count)))
    assert count * 0.9 <= found <= count


def test_ratios_are_new_by_old() -> None:
    """Times and memory are compared; counts, rates and what was not measured are not."""
    slower = json.loads(json.dumps(RESULT))
    slower["stages"]["detect"]["p50_ms"] = 8.0
    assert compare(slower, RESULT) == {
        "stages.detect.p50_ms": 2.0,
        "stages.detect.p95_ms": 1.0,
        "faces.30.p50_ms": 1.0,
        "daemon.rss_mb": 1.0,
    }


def test_what_only_one_run_has_is_left_out() -> None:
    """A new stage or a lost backend has no ratio."""
    assert compare({"stages": {"new": {"p50_ms": 1.0}}}, RESULT) == {}


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff"])
def test_damaged_history_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """A file that a power cut spoilt costs one comparison."""
    path = tmp_path / "bench.json"
    path.write_bytes(damage)
    assert with_history(RESULT, path)["compared"] is None
    compared = with_history(RESULT, path)["compared"]
    assert compared["time"] == RESULT["time"]
    assert set(compared["ratios"].values()) == {1.0}
    assert list(tmp_path.iterdir()) == [path]


def test_state_that_cannot_be_written_costs_only_the_history(caplog: pytest.LogCaptureFixture) -> None:
    """The result is still there, and the log says what to set."""
    assert with_history(RESULT, Path("/dev/null/bench.json"))["compared"] is None
    assert "set XDG_STATE_HOME" in caplog.text
