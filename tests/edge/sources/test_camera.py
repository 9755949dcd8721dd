"""Network cameras, and the errors of cameras that do not work."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from edge.config import parse_config, to_toml
from edge.errors import DeviceError
from edge.sources import live_camera as capture
from edge.sources import opencv_camera
from edge.sources.camera import open_camera
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from tests.helpers import media
from tests.helpers.rtsp_server import RtspServer

SIZE = {"fps": 10, "width": 64, "height": 48}


def test_network_camera_is_rgb_at_the_wanted_rate() -> None:
    """Of 50 frames a second at most 10 are converted, red stays red, and none is old."""
    with media.MjpegServer(media.picture(), fps=50) as server:
        source = open_camera(server.url, **SIZE)
        frames = list(itertools.islice(source, 8))
        age_s = (time.monotonic_ns() - frames[-1].t_ns) / 1e9
        source.close()
    np.testing.assert_allclose(frames[0].pixels[40, 4], (255, 0, 0), atol=12)
    assert frames[0].pixels.shape == (48, 64, 3)
    assert (frames[-1].t_ns - frames[0].t_ns) / 1e9 > 7 * 0.09
    assert age_s < 0.5  # in a queue of all frames the eighth would wait for 0.64 s


def test_slow_reader_gets_the_newest_frame() -> None:
    """After half a second without reading, the next frame is a new one."""
    with media.MjpegServer(media.picture(), fps=50) as server:
        source = open_camera(server.url, **SIZE)
        frames = iter(source)
        next(frames)
        busy_until_s = time.monotonic() + 0.5
        while time.monotonic() < busy_until_s:
            threading.Event().wait(0.01)
        assert time.monotonic_ns() - next(frames).t_ns < 250_000_000
        source.close()


def test_network_camera_that_disconnects() -> None:
    """The end of a stream is a fault of the device, not the end of a file."""
    with media.MjpegServer(media.picture(), count=20) as server:
        source = open_camera(server.url, **SIZE)
        with pytest.raises(DeviceError, match="stopped sending frames; ") as caught:
            list(source)
        source.close()
    assert caught.value.reason == "no_device"


def test_network_camera_that_freezes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that keeps the connection open and sends nothing is a timeout."""
    monkeypatch.setattr(capture, "FROZEN_S", 0.6)
    with media.MjpegServer(media.picture(), count=20, then="stall") as server:
        source = open_camera(server.url, **SIZE)
        with pytest.raises(DeviceError, match=r"no frame for .+ s; ") as caught:
            list(source)
        started_s = time.monotonic()
        source.close()
        assert time.monotonic() - started_s < 0.5
    assert caught.value.reason == "timeout"


def test_rtsp_camera() -> None:
    """H.264 over RTSP: the first frame is decoded although the next key frame is 10 s away."""
    first = next(read_video_frames(clip_path())).pixels.astype(int)
    with RtspServer(clip_path()) as server:
        source = open_camera(server.url, **SIZE)
        frames = list(itertools.islice(source, 10))
        source.close()
    assert np.abs(frames[0].pixels - first).mean() < 4
    assert 0.7 < (frames[-1].t_ns - frames[0].t_ns) / 1e9 < 1.5


def test_rtsp_camera_that_freezes_and_comes_back() -> None:
    """A connection without data is a fault within 5 s; a new server at the same port is used."""
    with RtspServer(clip_path()) as server:
        source = open_camera(server.url, **SIZE)
        next(iter(source))
        server.stall()
        started_s = time.monotonic()
        with pytest.raises(DeviceError) as caught:
            list(source)
        assert time.monotonic() - started_s < 5
        source.close()
    assert caught.value.reason in ("timeout", "no_device")
    with pytest.raises(DeviceError, match="no video there"):
        open_camera(server.url, **SIZE)
    with RtspServer(clip_path(), port=server.port):
        source = open_camera(server.url, **SIZE)
        assert next(iter(source)).pixels.shape == (480, 640, 3)
        source.close()


def test_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening ends after its timeout."""
    monkeypatch.setattr(opencv_camera, "OPEN_TIMEOUT_S", 1.0)
    with media.MjpegServer(media.picture(), count=0, then="stall") as server:
        started_s = time.monotonic()
        with pytest.raises(DeviceError, match="no answer in 1 s; ") as caught:
            open_camera(server.url, **SIZE)
    assert time.monotonic() - started_s < 3
    assert caught.value.reason == "timeout"


def test_password_stays_secret() -> None:
    """Neither an error nor the name of a source shows user and password of a network camera."""
    with media.MjpegServer(media.picture()) as server:
        secret = server.url.replace("//", "//admin:hunter2@")
        with pytest.raises(DeviceError) as caught:
            open_camera(secret.replace("/video", "/nothing"), **SIZE)
        source = open_camera(secret, **SIZE)
        source.close()
    assert "hunter2" not in str(caught.value)
    shown = to_toml(parse_config({"camera": {"source": secret}}))
    assert f'source = "{source.name}"' in shown, "what `config show` prints"
    assert "admin" not in source.name
    assert source.name == server.url.replace("//", "//***@")


@pytest.mark.parametrize(
    ("token", "reason", "remedy"),
    [
        ("v4l2:/dev/video99", "no_device", "no such device; `emotion-edge devices`"),
        ("v4l2:/dev/null", "unsupported", "not a video device"),
        ("http://127.0.0.1:9/video", "no_device", "check address"),
        ("rtsp://127.0.0.1:9/live", "no_device", "check address"),
        ("fake:unicorn", "unsupported", "fake:pattern"),
        ("smoke:signals", "unsupported", "`emotion-edge devices`"),
    ],
)
def test_error_of_a_camera_that_does_not_open(token: str, reason: str, remedy: str) -> None:
    """The error has thing, value and remedy in one sentence, and a stable reason."""
    with pytest.raises(DeviceError) as caught:
        open_camera(token, **SIZE)
    assert str(caught.value).startswith(f"{token}: ")
    assert remedy in str(caught.value)
    assert caught.value.reason == reason


def test_libraries_are_quiet() -> None:
    """OpenCV and FFmpeg write nothing to stderr for an address without a camera."""
    code = """
from edge.sources.camera import open_camera
from edge.errors import DeviceError
for token in ("rtsp://127.0.0.1:9/live", "http://127.0.0.1:9/video", "v4l2:/dev/null"):
    try:
        open_camera(token, fps=10, width=64, height=48)
    except DeviceError:
        continue
    raise SystemExit(token)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
