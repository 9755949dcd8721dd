"""A USB camera through OpenCV's own V4L2 code, with a library in front of libc as the camera (webcam.c)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library in front of libc."""
    path = tmp_path_factory.mktemp("webcam") / "webcam.so"
    build(path, (ROOT / "tests/helpers/webcam.c").read_text())
    return path


def connect(directory: Path) -> Path:
    """Make a camera's device node; return its by-id name, which links to another number each time."""
    by_id = directory / "by-id"
    by_id.mkdir(parents=True)
    (directory / "video3").touch()
    (by_id / "usb-Webcam-video-index0").symlink_to("../video3")
    return by_id / "usb-Webcam-video-index0"


def watch(camera: Path, library: Path, mode: str = "", *, count: int = 30) -> dict[str, Any]:
    """Use the camera in a process."""
    env = {
        **os.environ,
        "LD_PRELOAD": str(library),
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


def test_webcam_by_its_stable_name(library: Path, tmp_path: Path) -> None:
    """Red frames in the wanted size, ten a second, by a name without the device number."""
    camera = connect(tmp_path)
    seen = watch(camera, library)
    assert seen["shape"] == [240, 320, 3]
    assert seen["colour"] == pytest.approx([255, 0, 0], abs=4)
    assert len(seen["times_s"]) == 30
    assert 2.8 < seen["times_s"][-1] - seen["times_s"][0] < 4
    camera.resolve().rename(camera.parents[1] / "video7")
    camera.unlink()
    camera.symlink_to("../video7")
    assert len(watch(camera, library, count=5)["times_s"]) == 5


FAILURES = {
    "freeze": ("timeout", "no frame for "),
    "unplug": ("no_device", "stopped sending frames; connect it again"),
    "still": ("frozen", "the same frame for 4 s; "),
}


@pytest.fixture(scope="module")
def failures(
    library: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Use all cameras that fail, at once; return the name of each camera and what became of it."""
    directory = tmp_path_factory.mktemp("failures")

    def fail(mode: str) -> tuple[Path, dict[str, Any]]:
        camera = connect(directory / mode)
        return camera, watch(camera, library, mode, count=90)

    with ThreadPoolExecutor(len(FAILURES)) as threads:
        return dict(zip(FAILURES, threads.map(fail, FAILURES), strict=True))


@pytest.mark.parametrize("mode", FAILURES)
def test_webcam_that_fails(failures: dict[str, tuple[Path, dict[str, Any]]], mode: str) -> None:
    """After its 20 frames the fault is reported with its own reason within five seconds."""
    (camera, seen), (reason, message) = failures[mode], FAILURES[mode]
    assert seen["reason"] == reason, seen["text"]
    assert seen["text"].startswith(f"v4l2:{camera}: ")
    assert message in seen["text"]
    assert seen["after_s"] < 5
    assert len(seen["times_s"]) > 10


def test_webcam_in_use_by_another_program(library: Path, tmp_path: Path) -> None:
    """The error `busy` names the program."""
    camera = connect(tmp_path)
    holder = [sys.executable, "-c", "import sys; file = open(sys.argv[1]); print(); sys.stdin.read()"]
    with subprocess.Popen([*holder, camera], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = watch(camera, library, "busy")
        assert seen["reason"] == "busy"
        assert f": in use by {process.pid} (" in seen["text"]
        assert seen["text"].endswith("; stop that program")
        process.communicate()
