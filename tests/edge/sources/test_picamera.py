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


def test_red_is_red_in_its_own_memory(picamera2: type[Picamera2]) -> None:  # noqa: F811
    """The YUV stream is converted to RGB before its buffer is released, and every buffer is released."""
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
    """An odd width is made even, and the padding of each row is not in the frame."""
    source = open_camera("picamera:0", fps=50, width=99, height=49)
    frame = next(iter(source))
    source.close()
    assert frame.pixels.shape == (48, 98, 3)
    assert frame.pixels.flags.c_contiguous
    np.testing.assert_allclose(frame.pixels[40, 97], (255, 0, 0), atol=3)


def test_low_rate_is_reached_by_dropping(picamera2: type[Picamera2]) -> None:  # noqa: F811
    """For one frame in two seconds the camera runs at five a second, so that a fault is detected in time."""
    source = open_camera("picamera:0", fps=0.5, width=64, height=48)
    next(iter(source))
    source.close()
    assert picamera2.opened is not None
    assert picamera2.opened.configuration["controls"] == {"FrameDurationLimits": (200_000, 200_000)}


def test_loose_cable(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Missing frames are a timeout; picamera2's jobs are cancelled and the camera is closed."""
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
    """Identical frames from the start are the fault `frozen`."""
    monkeypatch.setattr(picamera2, "still", True)
    monkeypatch.setattr(capture, "FROZEN_S", 0.5)
    source = open_camera("picamera:0", fps=50, width=64, height=48)
    with pytest.raises(DeviceError, match=r"picamera:0: the same frame for 0\.5 s; ") as caught:
        pytest.fail(f"a picture of {next(iter(source)).t_ns}")
    source.close()
    assert caught.value.reason == "frozen"


def test_close_that_hangs(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """If libcamera never stops, closing takes under half a second and the call counts as hanging."""
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
    wait_until(lambda: not drivers.is_hanging("camera"), "the camera is released")


def test_faults_at_opening(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """An unknown number is `no_device`, a camera in use is `busy`."""
    with pytest.raises(DeviceError, match=r"^picamera:7: no such camera; .+") as missing:
        open_camera("picamera:7", **SIZE)
    monkeypatch.setattr(picamera2, "busy", True)
    with pytest.raises(DeviceError, match=r"^picamera:0: .+in use; .+") as busy:
        open_camera("picamera:0", **SIZE)
    assert (missing.value.reason, busy.value.reason) == ("no_device", "busy")


def test_without_picamera2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the module, the error contains the command to install it."""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(DeviceError, match="apt install python3-picamera2") as caught:
        open_camera("picamera:0", **SIZE)
    assert caught.value.reason == "unsupported"


def test_old_picamera2(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """A version that cannot cancel a request is refused with the command to update it."""
    monkeypatch.delattr(picamera2, "cancel_all_and_flush")
    with pytest.raises(DeviceError, match="older than") as caught:
        open_camera("picamera:0", **SIZE)
    assert caught.value.reason == "unsupported"


@pytest.mark.usefixtures("picamera2")
def test_auto_prefers_the_pi_camera() -> None:
    """With a Pi camera in the list, `auto` opens it and logs its token."""
    source = open_camera("auto", **SIZE)
    assert source.name == "picamera:0"
    assert next(iter(source)).pixels.shape == (48, 64, 3)
    source.close()


def test_auto_with_a_busy_camera(picamera2: type[Picamera2], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """If the only camera is in use, `auto` is `busy` and not `absent`."""
    if own := [device.token for device in list_cameras() if device.token.startswith("v4l2:")]:
        pytest.skip(f"this machine has a camera of its own: {own[0]}")
    monkeypatch.setattr(picamera2, "busy", True)
    with pytest.raises(DeviceError) as caught:
        open_camera("auto", **SIZE)
    assert caught.value.reason == "busy"
