"""`emotion-edge analyze` gives a result or one clear error for each file, and goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from edge.delivery.messages import load_schema
from edge.sources.replay import clip_path

ROOT = Path(__file__).parents[3]


def analyze(*arguments: str) -> tuple[int, list[dict[str, object]], str]:
    """Run the command; return its exit code, its JSON lines (each checked by the schema) and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", "analyze", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, load_schema("analyze"))
    return done.returncode, lines, done.stderr


def test_clip_gives_face_voice_and_fused() -> None:
    """One line for a video: its face, its voice, and both fused."""
    code, (line,), _ = analyze(str(clip_path()))
    assert code == 0
    assert line["kind"] == "video"
    assert len(line["faces"]) == 1  # type: ignore[arg-type]
    assert line["voice"] is not None
    assert line["fused"]["emotion"] != "absent"  # type: ignore[index]
    assert line["fatigue"]["level"] != "absent"  # type: ignore[index]


def test_every_gives_one_line_a_step() -> None:
    """`--every` 1000 ms of a 19 s clip are 19 lines in time order."""
    code, lines, _ = analyze(str(clip_path()), "--every", "1000")
    times = [line["t_s"] for line in lines]
    assert code == 0
    assert len(lines) == 19
    assert times == sorted(times)  # type: ignore[type-var]
    # Frames in between are processed ten times a second, or blinks could not be counted.
    levels = [line["fatigue"]["level"] for line in lines]  # type: ignore[index]
    assert "absent" not in levels[1:]
    # Its lips move most while it is surprised.
    assert {line["speaker"] for line in lines[9:11]} == {"person-1"}
    assert {face["subject"] for line in lines for face in line["faces"]} == {"person-1"}  # type: ignore[attr-defined]


def test_modality_leaves_the_other_out() -> None:
    """`--modality voice` processes no frame."""
    _, (line,), _ = analyze(str(clip_path()), "--modality", "voice")
    assert line["faces"] == []
    assert line["voice"] is not None
    assert line["fatigue"] is None


@pytest.fixture
def odd_files(tmp_path: Path) -> list[Path]:
    """Images of every unusual kind, then files that are not media."""
    random = np.random.default_rng(1)
    images = {
        "one.png": np.zeros((1, 1, 3), np.uint8),
        "grey.png": random.integers(0, 255, (90, 70), np.uint8),
        "alpha.png": random.integers(0, 255, (90, 70, 4), np.uint8),
        "huge.jpg": np.full((1000, 16_000, 3), 90, np.uint8),
    }
    for name, pixels in images.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / "text.mp4").write_text("this is no film")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:200])
    return [tmp_path / name for name in (*images, "text.mp4", "empty.wav", "cut.png", "missing.jpg")]


def test_bad_files_are_one_error_each_and_the_rest_is_done(odd_files: list[Path]) -> None:
    """Four good lines, four errors, exit code 1, no traceback."""
    code, lines, stderr = analyze(*map(str, odd_files))
    assert code == 1
    assert [line["file"] for line in lines] == [str(path) for path in odd_files]
    assert ["error" in line for line in lines] == [False] * 4 + [True] * 4
    assert "Traceback" not in stderr


@pytest.mark.parametrize("command", [["analyze", "missing.jpg", "--json"], ["config", "show"]])
def test_full_standard_output_is_one_sentence(command: list[str]) -> None:
    """A full disk behind standard output is one error and exit code 1."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edge", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("emotion-edge: standard output: No space left on device; ")
    assert done.stderr.count("\n") == 1
