"""GStreamer pipelines as cameras, with the real gst-launch-1.0 and a clip."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from edge.errors import DeviceError
from edge.sources import gstreamer
from edge.sources.camera import open_camera
from edge.values import Frame
from tests.helpers import media
from tests.helpers.brokers import wait_until

pytestmark = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None,
    reason="GStreamer is missing: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good",
)
SIZE = {"fps": 10, "width": 64, "height": 48}
TEST_CARD = "gstreamer:videotestsrc is-live=true ! video/x-raw,width={},height={},framerate=30/1"


def pipelines() -> list[psutil.Process]:
    """Return the child processes that run a pipeline."""
    return [child for child in psutil.Process().children() if "gst_launch" in " ".join(child.cmdline())]


@pytest.fixture(autouse=True)
def registry(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep GStreamer's plug-in cache out of the home directory; afterwards no process of it runs."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path_factory.getbasetemp() / "state"))
    yield
    assert pipelines() == []


def motion_jpeg(path: Path) -> Path:
    """Write a clip of 2 s with a red and a blue half, in a format of the "good" plug-ins."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(50):
            picture = av.VideoFrame.from_ndarray(media.picture(), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def test_clip_is_a_camera(tmp_path: Path) -> None:
    """A clip through GStreamer has its colours, at most ten frames a second, and ends as a fault."""
    clip = motion_jpeg(tmp_path / "a clip.mkv")
    token = f'gstreamer:filesrc location="{clip}" ! matroskademux ! jpegdec ! clocksync'
    source = open_camera(token, **SIZE)
    frames: list[Frame] = []
    with pytest.raises(DeviceError, match=r"stopped sending frames; ") as caught:
        frames.extend(source)
    source.close()
    assert 15 <= len(frames) <= 21
    np.testing.assert_allclose(frames[0].pixels[40, 4], (255, 0, 0), atol=12)
    np.testing.assert_allclose(frames[0].pixels[40, 60], (0, 0, 255), atol=12)
    assert caught.value.reason == "no_device"


@pytest.mark.parametrize(("width", "height"), [(98, 64), (320, 240), (99, 51)])
def test_padding_of_rows_is_removed(width: int, height: int) -> None:
    """The size is that of the pipeline; the padding of a row is not in the frame."""
    source = open_camera(TEST_CARD.format(width, height), **SIZE)
    pixels = next(iter(source)).pixels
    source.close()
    assert pixels.shape == (height, width, 3)
    # The test card's first bars are white and yellow, its last blue.
    assert pixels[5, 5].min() > 180
    assert pixels[5, width - 3].tolist() == pytest.approx([0, 0, 180], abs=80)


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("nosuch ! videoconvert", 'no element "nosuch"'),
        ("filesrc location=/nowhere.mkv ! matroskademux ! jpegdec", "Resource not found"),
        ("videotestsrc name='a", "quote it as in a shell"),
    ],
)
def test_pipeline_that_does_not_start(pipeline: str, message: str) -> None:
    """The error contains GStreamer's message."""
    with pytest.raises(DeviceError) as caught:
        open_camera(f"gstreamer:{pipeline}", **SIZE)
    assert str(caught.value).startswith(f"gstreamer:{pipeline}: ")
    assert message in str(caught.value)


def test_pipeline_without_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A source without frames is a timeout, and its process is gone."""
    monkeypatch.setattr(gstreamer, "OPEN_TIMEOUT_S", 1.0)
    silent = tmp_path / "silent"
    os.mkfifo(silent)
    keep_open = os.open(silent, os.O_RDWR)
    with pytest.raises(DeviceError, match="no frame in 1 s") as caught:
        open_camera(f"gstreamer:filesrc location={silent} ! matroskademux ! jpegdec", **SIZE)
    os.close(keep_open)
    assert caught.value.reason == "timeout"


def test_frozen_process_can_be_closed() -> None:
    """A stopped process is killed at once."""
    source = open_camera(TEST_CARD.format(64, 48), **SIZE)
    next(iter(source))
    (child,) = pipelines()
    child.send_signal(signal.SIGSTOP)
    started_s = time.monotonic()
    source.close()
    assert time.monotonic() - started_s < 0.5


def test_killed_process_is_a_fault() -> None:
    """A process that dies is reported at once."""
    source = open_camera(TEST_CARD.format(64, 48), **SIZE)
    (child,) = pipelines()
    threading.Timer(0.3, child.kill).start()
    started_s = time.monotonic()
    with pytest.raises(DeviceError, match="stopped sending frames"):
        list(source)
    source.close()
    assert time.monotonic() - started_s < 2


def test_no_process_is_left_behind() -> None:
    """After kill -9 of the daemon its gst-launch ends by itself, because its pipe is closed."""
    code = (
        "import sys; from edge.sources.camera import open_camera;"
        "source = open_camera(sys.argv[1], fps=10, width=64, height=48);"
        "next(iter(source)); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, TEST_CARD.format(64, 48)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        process.kill()
    child.wait(5)


def test_process_without_frames_is_not_left_behind(tmp_path: Path) -> None:
    """After kill -9 of the daemon a pipeline that sends nothing ends as well."""
    silent = tmp_path / "silent"
    os.mkfifo(silent)
    keep_open = os.open(silent, os.O_RDWR)
    token = f"gstreamer:filesrc location={silent} ! matroskademux ! jpegdec"
    code = (
        "import sys; from edge.sources.gstreamer import GstDriver; GstDriver(sys.argv[1], fps=9).wait_ready()"
    )
    command = [sys.executable, "-c", code, token.removeprefix("gstreamer:")]
    with subprocess.Popen(command) as process:
        wait_until(lambda: bool(psutil.Process(process.pid).children()), "the child")
        (child,) = psutil.Process(process.pid).children()
        wait_until(lambda: child.num_threads() > 1, "the pipeline")
        process.kill()
    child.wait(5)
    os.close(keep_open)


def test_jetson_camera_needs_only_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's source becomes a whole pipeline, scaled in hardware to the wanted width."""
    started: list[str] = []

    def driver(pipeline: str, *, fps: float) -> None:
        started.append(f"{pipeline} at {fps:g}")
        raise DeviceError("no Jetson here")

    monkeypatch.setattr(gstreamer, "GstDriver", driver)
    for token in ("gstreamer:nvarguscamerasrc", "gstreamer:nvarguscamerasrc sensor-id=1"):
        with pytest.raises(DeviceError, match=f"^{token}: no Jetson here"):
            open_camera(token, fps=10, width=642, height=480)
    assert started[0].startswith("nvarguscamerasrc ! video/x-raw(memory:NVMM),")
    assert started[1].startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),")
    assert started[0].endswith("! nvvidconv ! video/x-raw,format=I420,width=640,height=360 at 10")


def test_jetson_pipeline_is_well_formed() -> None:
    """With NVIDIA's two elements replaced, GStreamer accepts the pipeline."""
    stand_in = "videotestsrc is-live=true ! videoconvert ! videoscale ! video/x-raw,format=I420 ! identity"
    rest = gstreamer._JETSON_REST.format(width=64, height=36).replace("(memory:NVMM)", "")
    source = open_camera(f"gstreamer:{stand_in}{rest.replace('nvvidconv', 'videoscale')}", **SIZE)
    assert next(iter(source)).pixels.shape == (36, 64, 3)
    source.close()


def test_frames_have_memory_of_their_own() -> None:
    """A frame that is kept does not change when others come."""
    source = open_camera("gstreamer:videotestsrc is-live=true pattern=snow ! video/x-raw,width=64", **SIZE)
    kept = [(frame.pixels, frame.pixels.copy()) for frame in itertools.islice(source, 6)]
    source.close()
    for pixels, copy in kept:
        np.testing.assert_array_equal(pixels, copy)


def test_passwords_of_a_pipeline_stay_secret() -> None:
    """Neither error nor name contains the login of rtspsrc."""
    with pytest.raises(DeviceError) as caught:
        open_camera("gstreamer:nosuch location=rtsp://me:hunter2@camera/ user-pw=hunter2", **SIZE)
    assert "hunter2" not in str(caught.value)


def test_passwords_of_a_pipeline_are_in_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline runs, and neither arguments nor variables of a process have its password."""
    monkeypatch.setenv("EMOTION_EDGE__CAMERA__SOURCE", "gstreamer:souphttpsrc user-pw=hunter2")
    source = open_camera(f"{TEST_CARD.format(64, 48)} ! identity name=user-pw=hunter2", **SIZE)
    next(iter(source))
    (child,) = pipelines()
    assert "hunter2" not in " ".join(child.cmdline())
    assert "hunter2" not in str(child.environ())
    source.close()
