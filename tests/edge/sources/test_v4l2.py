"""A USB camera through OpenCV's own V4L2 code, with a library in front of libc as the camera (webcam.c)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.libraries import build

ROOT = Path(__file__).parents[3]
# Opens a camera, takes as many frames as wanted, prints what they were and how it ended.
WATCH = """
import itertools, json, sys, time
from edge.sources.camera import open_camera
from edge.errors import DeviceError

times_s, pixels, reason, text = [], None, "", ""
try:
    source = open_camera(sys.argv[1], fps=10, width=320, height=240)
    try:
        for frame in itertools.islice(source, int(sys.argv[2])):
            times_s.append(frame.t_ns / 1e9)
            pixels = frame.pixels
    finally:
        source.close()
except DeviceError as error:
    reason, text = error.reason, str(error)
shape = pixels.shape if pixels is not None else None
colour = pixels[100, 100].tolist() if pixels is not None else None
after_s = time.monotonic() - times_s[-1] if times_s else 0
result = dict(times_s=times_s, shape=shape, colour=colour, reason=reason, text=text, after_s=after_s)
print(json.dumps(result))
"""


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    """Build the camera; return its by-id name, which links to another number each time."""
    build(tmp_path / "webcam.so", (ROOT / "tests/helpers/webcam.c").read_text())
    by_id = tmp_path / "by-id"
    by_id.mkdir()
    (tmp_path / "video3").touch()
    (by_id / "usb-Webcam-video-index0").symlink_to("../video3")
    return by_id / "usb-Webcam-video-index0"


def watch(camera: Path, mode: str = "", *, count: int = 30) -> dict[str, Any]:
    """Use the camera in a process."""
    env = {
        **os.environ,
        "LD_PRELOAD": str(camera.parents[1] / "webcam.so"),
        "WEBCAM": str(camera.resolve()),
        "WEBCAM_MODE": mode,
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCH, f"v4l2:{camera}", str(count)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_webcam_by_its_stable_name(camera: Path) -> None:
    """Red frames in the wanted size, ten a second, by a name without the device number."""
    seen = watch(camera)
    assert seen["shape"] == [240, 320, 3]
    assert seen["colour"] == pytest.approx([255, 0, 0], abs=4)
    assert len(seen["times_s"]) == 30
    assert 2.8 < seen["times_s"][-1] - seen["times_s"][0] < 4
    camera.resolve().rename(camera.parents[1] / "video7")
    camera.unlink()
    camera.symlink_to("../video7")
    assert len(watch(camera)["times_s"]) == 30


@pytest.mark.parametrize(
    ("mode", "reason", "message"),
    [
        ("freeze", "timeout", "no frame for "),
        ("unplug", "no_device", "stopped sending frames; connect it again"),
        ("still", "frozen", "the same frame for 4 s; "),
    ],
)
def test_webcam_that_fails(camera: Path, mode: str, reason: str, message: str) -> None:
    """After its 20 frames the fault is reported with its own reason within five seconds."""
    seen = watch(camera, mode, count=90)
    assert seen["reason"] == reason, seen["text"]
    assert seen["text"].startswith(f"v4l2:{camera}: ")
    assert message in seen["text"]
    assert seen["after_s"] < 5
    assert len(seen["times_s"]) > 10


def test_webcam_in_use_by_another_program(camera: Path) -> None:
    """The error `busy` names the program."""
    holder = [sys.executable, "-c", "import sys; file = open(sys.argv[1]); print(); sys.stdin.read()"]
    with subprocess.Popen([*holder, camera], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = watch(camera, "busy")
        assert seen["reason"] == "busy"
        assert f": in use by {process.pid} (" in seen["text"]
        assert seen["text"].endswith("; stop that program")
        process.communicate()
