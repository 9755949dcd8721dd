"""Cameras over the network and on the Pi's ribbon cable, and what is said of those that do not work."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any, ClassVar

import media
import numpy as np
import pytest

from edge import camera
from edge.camera import open_camera
from edge.devices import list_cameras
from edge.errors import DeviceError

SIZE = {"fps": 10, "width": 64, "height": 48}


class Picamera2:
    """The part of picamera2's published interface that is used, with one camera that shows red."""

    busy = False
    calls: ClassVar[list[str]] = []

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [{"Num": 0, "Model": "imx708", "Location": 2, "Id": "/base/soc/i2c0mux/i2c@1/imx708@1a"}]

    def __init__(self, camera_num: int) -> None:
        if self.busy:
            raise RuntimeError("Failed to acquire camera: Device or resource busy")
        self.calls.append(f"open {camera_num}")

    def create_video_configuration(
        self, main: dict[str, Any], controls: dict[str, float]
    ) -> dict[str, dict[str, Any]]:
        return {"main": main, "controls": controls}

    def configure(self, configuration: dict[str, dict[str, Any]]) -> None:
        self._main, self._fps = configuration["main"], configuration["controls"]["FrameRate"]

    def start(self) -> None:
        self.calls.append("start")
        self._next_s = time.monotonic()

    def capture_array(self, name: str) -> np.ndarray[Any, Any]:
        assert name == "main"
        self._next_s += 1 / self._fps
        threading.Event().wait(max(0.0, self._next_s - time.monotonic()))
        width, height = self._main["size"]
        image = np.zeros((height, width, 3), np.uint8)
        # The manual's table: in memory RGB888 is B, G, R and BGR888 is R, G, B.
        image[..., {"RGB888": 2, "BGR888": 0}[self._main["format"]]] = 255
        return image

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> type[Picamera2]:
    """Install the module picamera2 with one camera."""
    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(Picamera2, "calls", [])
    return Picamera2


def test_network_camera_is_rgb_and_thinned() -> None:
    """Of 50 pictures a second at most 10 are converted, red is red, and none is older than a moment."""
    with media.MjpegServer(media.picture(), fps=50) as server:
        source = open_camera(server.url, **SIZE)
        frames = list(itertools.islice(source, 8))
        age_s = (time.monotonic_ns() - frames[-1].t_ns) / 1e9
        source.close()
    np.testing.assert_allclose(frames[0].pixels[40, 4], (255, 0, 0), atol=12)
    assert frames[0].pixels.shape == (48, 64, 3)
    assert (frames[-1].t_ns - frames[0].t_ns) / 1e9 > 7 * 0.09
    assert age_s < 0.2


def test_slow_reader_gets_the_newest_frame() -> None:
    """After half a second of other work the next frame is a new one."""
    with media.MjpegServer(media.picture(), fps=50) as server:
        source = open_camera(server.url, **SIZE)
        frames = iter(source)
        next(frames)
        busy_until_s = time.monotonic() + 0.5
        while time.monotonic() < busy_until_s:
            threading.Event().wait(0.01)
        assert time.monotonic_ns() - next(frames).t_ns < 250_000_000
        source.close()


def test_network_camera_that_hangs_up() -> None:
    """The end of a stream is a fault of the device, not the end of a file."""
    with media.MjpegServer(media.picture(), count=20) as server:
        source = open_camera(server.url, **SIZE)
        with pytest.raises(DeviceError, match="stopped sending pictures; ") as caught:
            list(source)
        source.close()
    assert caught.value.reason == "no_device"


def test_network_camera_that_freezes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that keeps the line open and says nothing is told from a slow one by the time-out."""
    monkeypatch.setattr(camera, "FROZEN_S", 0.6)
    with media.MjpegServer(media.picture(), count=20, then="stall") as server:
        source = open_camera(server.url, **SIZE)
        with pytest.raises(DeviceError, match=r"no picture for 0\.6 s; ") as caught:
            list(source)
        started_s = time.monotonic()
        source.close()
        assert time.monotonic() - started_s < 0.5
    assert caught.value.reason == "timeout"


def test_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening gives up after its time-out."""
    monkeypatch.setattr(camera, "OPEN_TIMEOUT_S", 1.0)
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
    assert "admin" not in source.name
    assert source.name == server.url.replace("//", "//***@")


@pytest.mark.parametrize(
    ("token", "reason", "remedy"),
    [
        ("v4l2:/dev/video99", "no_device", "no such device; `emotion-edge devices`"),
        ("v4l2:/dev/null", "unsupported", "not a video device"),
        ("gstreamer:videotestsrc ! appsink", "unsupported", "apt install python3-opencv"),
        ("http://127.0.0.1:9/video", "no_device", "check address"),
        ("rtsp://127.0.0.1:9/live", "no_device", "check address"),
        ("fake:unicorn", "unsupported", "fake:pattern"),
        ("smoke:signals", "unsupported", "`emotion-edge devices`"),
    ],
)
def test_sentence_for_what_does_not_open(token: str, reason: str, remedy: str) -> None:
    """Thing, value and remedy in one sentence, and a stable reason."""
    with pytest.raises(DeviceError) as caught:
        open_camera(token, **SIZE)
    assert str(caught.value).startswith(f"{token}: ")
    assert remedy in str(caught.value)
    assert caught.value.reason == reason


def test_libraries_are_quiet() -> None:
    """OpenCV and FFmpeg write nothing to stderr for an address without a camera."""
    code = """
from edge.camera import open_camera
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


def test_pi_camera(picamera2: type[Picamera2]) -> None:
    """The Pi camera is opened by its number, gives red as red, and is stopped and closed."""
    source = open_camera("picamera:0", fps=20, width=96, height=64)
    frames = list(itertools.islice(source, 3))
    source.close()
    assert frames[0].pixels.shape == (64, 96, 3)
    assert frames[0].pixels[0, 0].tolist() == [255, 0, 0]
    assert picamera2.calls == ["open 0", "start", "stop", "close"]


def test_pi_camera_faults(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number is `no_device`, one in use is `busy`."""
    with pytest.raises(DeviceError, match=r"^picamera:1: no such camera; .+") as missing:
        open_camera("picamera:1", **SIZE)
    monkeypatch.setattr(picamera2, "busy", True)
    with pytest.raises(DeviceError, match=r"^picamera:0: .+busy; .+") as busy:
        open_camera("picamera:0", **SIZE)
    assert (missing.value.reason, busy.value.reason) == ("no_device", "busy")


def test_without_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the module is missing, the sentence says how to get it."""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(DeviceError, match="apt install python3-picamera2") as caught:
        open_camera("picamera:0", **SIZE)
    assert caught.value.reason == "unsupported"


def test_auto_prefers_the_pi_camera(picamera2: type[Picamera2]) -> None:  # noqa: ARG001 - installs the module
    """With a Pi camera listed, `auto` is that camera and says so."""
    source = open_camera("auto", **SIZE)
    assert source.name == "picamera:0"
    assert next(iter(source)).pixels.shape == (48, 64, 3)
    source.close()


def test_auto_goes_on_after_a_fault(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its only camera in use, `auto` is `none`."""
    if own := [device.token for device in list_cameras() if device.token.startswith("v4l2:")]:
        pytest.skip(f"this machine has a camera of its own: {own[0]}")
    monkeypatch.setattr(picamera2, "busy", True)
    source = open_camera("auto", **SIZE)
    source.close()
    assert source.name == "none"
