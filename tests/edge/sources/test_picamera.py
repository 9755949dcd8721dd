"""A Raspberry Pi's camera through picamera2's published interface."""

from __future__ import annotations

import itertools
import sys
import threading
import time

import numpy as np
import pytest

from edge.errors import DeviceError
from edge.sources import driver_threads as drivers
from edge.sources import live_camera as capture
from edge.sources import picamera
from edge.sources.camera import open_camera
from edge.sources.devices import list_cameras
from tests.helpers.brokers import wait_until
from tests.helpers.fake_picamera2 import Picamera2, picamera2  # noqa: F401 - a fixture

SIZE = {"fps": 10, "width": 64, "height": 48}


def test_red_is_red_in_memory_of_our_own(picamera2: type[Picamera2]) -> None:  # noqa: F811
    """The small YUV stream is converted to RGB before its buffer goes back, and every buffer goes back."""
    source = open_camera("picamera:0", fps=50, width=128, height=64)
    frames = list(itertools.islice(source, 12))
    source.close()
    for frame in frames:
        assert frame.pixels.shape == (64, 128, 3)
        np.testing.assert_allclose(frame.pixels[40, 50], (255, 0, 0), atol=3)
    assert picamera2.opened is not None
    assert len(picamera2.opened.free) == 4
    assert picamera2.opened.configuration["encode"] == "lores"
    assert [call for call in picamera2.calls if call != "flush"] == ["open 0", "start", "stop", "close"]


@pytest.mark.usefixtures("picamera2")
def test_padding_is_cut_off() -> None:
    """An odd width is made even, and what the hardware adds to each row is not in the picture."""
    source = open_camera("picamera:0", fps=50, width=99, height=49)
    frame = next(iter(source))
    source.close()
    assert frame.pixels.shape == (48, 98, 3)
    assert frame.pixels.flags.c_contiguous
    np.testing.assert_allclose(frame.pixels[40, 97], (255, 0, 0), atol=3)


def test_slow_is_thinned(picamera2: type[Picamera2]) -> None:  # noqa: F811
    """One picture in two seconds is asked for as five a second, so that a fault is not hidden by the wait."""
    source = open_camera("picamera:0", fps=0.5, width=64, height=48)
    next(iter(source))
    source.close()
    assert picamera2.opened is not None
    assert picamera2.opened.configuration["controls"] == {"FrameDurationLimits": (200_000, 200_000)}


def test_loose_cable(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Pictures that stay away are a time-out; picamera2's jobs are cancelled, and the camera is closed."""
    monkeypatch.setattr(picamera2, "stops_after", 3)
    monkeypatch.setattr(picamera, "FROZEN_S", 0.5)
    source = open_camera("picamera:0", fps=50, width=64, height=48)
    with pytest.raises(
        DeviceError, match=r"picamera:0: no frame for 0\.5 s; check the ribbon cable"
    ) as caught:
        list(source)
    source.close()
    assert caught.value.reason == "timeout"
    assert picamera2.calls[-3:] == ["flush", "stop", "close"]


def test_stuck_sensor(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The same picture again and again is `frozen`, from the first one on."""
    monkeypatch.setattr(picamera2, "still", True)
    monkeypatch.setattr(capture, "FROZEN_S", 0.5)
    source = open_camera("picamera:0", fps=50, width=64, height=48)
    with pytest.raises(DeviceError, match=r"picamera:0: the same frame for 0\.5 s; ") as caught:
        pytest.fail(f"a picture of {next(iter(source)).t_ns}")
    source.close()
    assert caught.value.reason == "frozen"


def test_close_that_hangs(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """libcamera that never stops costs the daemon less than half a second, and is counted as hanging."""
    comes_back = threading.Event()
    monkeypatch.setattr(picamera2, "hangs", comes_back)
    source = open_camera("picamera:0", fps=50, width=64, height=48)
    next(iter(source))
    assert not drivers.is_hanging("camera")
    started_s = time.monotonic()
    source.close()
    assert time.monotonic() - started_s < 0.5
    assert drivers.is_hanging("camera")
    comes_back.set()
    wait_until(lambda: not drivers.is_hanging("camera"), "the camera is let go")


def test_faults_at_opening(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Another number is `no_device`, one in use is `busy`."""
    with pytest.raises(DeviceError, match=r"^picamera:7: no such camera; .+") as missing:
        open_camera("picamera:7", **SIZE)
    monkeypatch.setattr(picamera2, "busy", True)
    with pytest.raises(DeviceError, match=r"^picamera:0: .+in use; .+") as busy:
        open_camera("picamera:0", **SIZE)
    assert (missing.value.reason, busy.value.reason) == ("no_device", "busy")


def test_without_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the module is missing, the sentence says how to get it."""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(DeviceError, match="apt install python3-picamera2") as caught:
        open_camera("picamera:0", **SIZE)
    assert caught.value.reason == "unsupported"


def test_old_picamera2(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """One that cannot stop waiting for a picture is refused with what to type."""
    monkeypatch.delattr(picamera2, "cancel_all_and_flush")
    with pytest.raises(DeviceError, match="older than") as caught:
        open_camera("picamera:0", **SIZE)
    assert caught.value.reason == "unsupported"


@pytest.mark.usefixtures("picamera2")
def test_auto_prefers_the_pi_camera() -> None:
    """With a Pi camera listed, `auto` is that camera and says so."""
    source = open_camera("auto", **SIZE)
    assert source.name == "picamera:0"
    assert next(iter(source)).pixels.shape == (48, 64, 3)
    source.close()


def test_auto_tells_of_a_camera_in_use(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """With its only camera in use, `auto` is a fault that can pass, not a daemon without a camera."""
    if own := [device.token for device in list_cameras() if device.token.startswith("v4l2:")]:
        pytest.skip(f"this machine has a camera of its own: {own[0]}")
    monkeypatch.setattr(picamera2, "busy", True)
    with pytest.raises(DeviceError) as caught:
        open_camera("auto", **SIZE)
    assert caught.value.reason == "busy"
