"""Cameras on a Raspberry Pi's ribbon cable, through picamera2 and libcamera."""

from __future__ import annotations

import importlib
import os
import threading
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from edge.errors import DeviceError
from edge.sources.holders import in_use
from edge.sources.live_camera import FROZEN_S, LiveCamera
from edge.values import Frame, Source, UInt8

_LEAST_FPS = 5.0  # a lower rate is reached by dropping frames, so that a stuck camera is detected in time
_POLL_S = 0.25  # how soon a closed camera stops waiting for a frame


def load_picamera2() -> Any:
    """Import picamera2; `ImportError` where it is missing. libcamera then reports only errors."""
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")
    return importlib.import_module("picamera2")


class PiDriver:
    """An open camera that delivers YUV 4:2:0 in its own memory, scaled in hardware.

    Frames are converted directly from that memory, once.
    """

    def __init__(self, picamera2: Any, camera: Any, *, fps: float, width: int, height: int) -> None:
        self._mapped = picamera2.MappedArray
        self._camera = camera
        self._cancelled = threading.Event()
        self._request: Any = None
        size = (width - width % 2, height - height % 2)  # YUV 4:2:0 has one colour for 2x2 pixels
        frame_us = round(1e6 / max(fps, _LEAST_FPS))
        # "lores" is the stream that every Pi delivers as YUV; it may not be larger than "main".
        configuration = camera.create_video_configuration(
            main={"size": size, "format": "YUV420"},
            lores={"size": size, "format": "YUV420"},
            raw=None,
            buffer_count=4,
            queue=False,  # a queued frame would be old
            encode="lores",
            controls={"FrameDurationLimits": (frame_us, frame_us)},
        )
        camera.configure(configuration)
        self._width = int(camera.camera_configuration()["lores"]["size"][0])
        camera.start()

    def grab(self) -> bool:
        self._release_request()
        job = self._camera.capture_request(wait=False)
        for _ in range(round(FROZEN_S / _POLL_S)):
            try:
                self._request = self._camera.wait(job, timeout=_POLL_S)
            except TimeoutError:
                if self._cancelled.is_set():
                    break
            else:
                return True
        # As picamera2 advises before closing a camera that stopped: `stop` and `close` wait for its jobs.
        self._camera.cancel_all_and_flush()
        if self._cancelled.is_set():
            return False
        raise DeviceError(f"no frame for {FROZEN_S:g} s; check the ribbon cable", reason="timeout")

    def retrieve(self) -> UInt8 | None:
        with self._mapped(self._request, "lores", write=False) as mapped:
            yuv = mapped.array  # (h * 3 / 2, stride) uint8, rows may be padded
            rgb = cast(UInt8, cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_I420))
            del yuv  # memory of the camera, invalid after its release
        self._release_request()
        return rgb if rgb.shape[1] == self._width else np.ascontiguousarray(rgb[:, : self._width])

    def cancel(self) -> None:
        self._cancelled.set()

    def release(self) -> None:
        self._release_request()
        self._camera.stop()
        self._camera.close()

    def _release_request(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            request.release()


def open_picamera(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    """Open `picamera:N`. Raises `DeviceError`."""
    try:
        picamera2 = load_picamera2()
    except ImportError:
        raise DeviceError(
            f"{token}: picamera2 is not installed; `sudo apt install python3-picamera2` and a venv with "
            "--system-site-packages, or `pip install picamera2`",
            reason="unsupported",
        ) from None
    if not hasattr(picamera2.Picamera2, "cancel_all_and_flush"):
        raise DeviceError(
            f"{token}: picamera2 is older than 0.3.22; `sudo apt update && sudo apt full-upgrade`",
            reason="unsupported",
        )
    number = int(token.removeprefix("picamera:"))
    if number not in [camera["Num"] for camera in picamera2.Picamera2.global_camera_info()]:
        nodes = _media_nodes()
        if nodes and not any(os.access(node, os.R_OK | os.W_OK, effective_ids=True) for node in nodes):
            raise DeviceError(
                f"{token}: not permitted; `sudo usermod -aG video $USER` and log in again",
                reason="no_permission",
            )
        raise DeviceError(
            f"{token}: no such camera; check the ribbon cable; `emotion-edge devices` lists them"
        )
    camera = None
    try:
        camera = picamera2.Picamera2(number)
        driver = PiDriver(picamera2, camera, fps=fps, width=width, height=height)
    except RuntimeError as error:
        # libcamera's error for a camera that another process has opened.
        if camera is not None:
            camera.close()
        raise DeviceError(f"{token}: {error}; {in_use(*_media_nodes())}", reason="busy") from None
    return LiveCamera(token, driver, fps=fps, from_sensor=True)


def _media_nodes() -> list[Path]:
    return sorted(Path("/dev").glob("media[0-9]*"))
