"""Opens cameras by token: one dict of schemes, each imported when it is asked for.

v4l2:/dev/v4l/by-id/...   rtsp://...   http://...   gstreamer:PIPELINE   through OpenCV
picamera:0                through picamera2
file:clip.mp4[?loop]      fake:pattern                                   replay.py, fakes.py
auto                      a Pi camera, else the first USB camera that delivers, else none
none                      nothing, for ever
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

# Read when OpenCV opens its first stream. Without them FFmpeg writes to stderr and keeps seconds of delay.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay")

import cv2
import numpy as np

from edge.errors import DeviceError
from edge.fakes import FakeCamera, Nothing
from edge.replay import FileCamera, Thinner
from edge.values import Frame, Source, UInt8

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 5.0
FROZEN_S = 5.0  # a camera that says nothing for so long is stuck, whatever its driver believes
_CLOSE_S = 0.4
_LIST = "`emotion-edge devices` lists cameras"

# linux/videodev2.h: VIDIOC_QUERYCAP fills struct v4l2_capability, 104 bytes; device_caps is at byte 88.
_VIDIOC_QUERYCAP = 0x80685600
_CAPTURE = 0x00000001 | 0x00001000  # V4L2_CAP_VIDEO_CAPTURE, ..._MPLANE


class _Driver(Protocol):
    """A camera that is open. `grab` blocks until the next picture, `retrieve` converts it."""

    def grab(self) -> bool: ...

    def retrieve(self) -> UInt8 | None: ...

    def release(self) -> None: ...


class LiveCamera:
    """A device whose pictures are fetched by a thread of its own, so that only the newest one waits.

    At most `fps` pictures a second are converted; the others are thrown away as the driver hands them out.
    Iterating raises `DeviceError` when the driver fails or is silent for `FROZEN_S`.
    """

    def __init__(self, name: str, driver: _Driver, *, fps: float) -> None:
        self.name = name
        self._driver = driver
        self._thinner = Thinner(fps)
        self._news = threading.Condition()
        self._frame: Frame | None = None
        self._error: DeviceError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._grab, name="camera", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._news:
                happened = self._news.wait_for(lambda: self._closed or self._frame or self._error, FROZEN_S)
                if self._closed:
                    return
                frame, self._frame = self._frame, None
                if frame is None and self._error is not None:
                    raise self._error
            if frame is not None:
                yield frame
            elif not happened:
                raise DeviceError(
                    f"{self.name}: no picture for {FROZEN_S:g} s; check its cable and power", reason="timeout"
                )

    def close(self) -> None:
        """End the iteration at once and release the device, waiting a little for its driver."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        # A driver may hang in `grab`; its daemon thread releases the device whenever it comes back.
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_S)

    def _grab(self) -> None:
        try:
            while not self._closed:
                if not self._driver.grab():
                    raise DeviceError(f"{self.name}: stopped sending pictures; connect it again")
                t_ns = time.monotonic_ns()
                if not self._thinner.takes(t_ns):
                    continue
                pixels = self._driver.retrieve()
                if pixels is not None:
                    self._tell(frame=Frame(pixels, t_ns))
        except DeviceError as error:
            self._tell(error=error)
        except Exception as error:  # the outermost loop of a thread: a driver may throw anything
            self._tell(error=DeviceError(f"{self.name}: the driver failed ({error}); connect it again"))
        finally:
            self._driver.release()

    def _tell(self, *, frame: Frame | None = None, error: DeviceError | None = None) -> None:
        with self._news:
            self._frame, self._error = frame, error
            self._news.notify_all()


class _OpenCvDriver:
    """Anything that `cv2.VideoCapture` opens."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def grab(self) -> bool:
        return self._capture.grab()

    def retrieve(self) -> UInt8 | None:
        ok, bgr = self._capture.retrieve()
        return cast(UInt8, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)) if ok else None

    def release(self) -> None:
        self._capture.release()


class _PiDriver:
    """A camera on the ribbon cable, through libcamera. It is asked for `fps`, so nothing is thrown away."""

    def __init__(self, camera: Any, *, fps: float, width: int, height: int) -> None:
        self._camera = camera
        # picamera2 names formats by the order in a word: its BGR888 is R, G, B in memory.
        configuration = camera.create_video_configuration(
            main={"size": (width, height), "format": "BGR888"}, controls={"FrameRate": fps}
        )
        camera.configure(configuration)
        camera.start()
        self._pixels: UInt8 | None = None

    def grab(self) -> bool:
        self._pixels = self._camera.capture_array("main")
        return True

    def retrieve(self) -> UInt8 | None:
        return np.ascontiguousarray(self._pixels) if self._pixels is not None else None

    def release(self) -> None:
        self._camera.stop()
        self._camera.close()


def open_camera(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    """Open the camera that `token` names; the size is a wish, a file or a network camera keeps its own.

    Blocks for at most a few seconds. Raises `DeviceError` with a reason and a remedy.
    """
    opener = _OPENERS.get(token.partition(":")[0])
    if opener is None:
        raise DeviceError(f"{token}: not a kind of camera; {_LIST} with their tokens", reason="unsupported")
    return opener(token, fps=fps, width=width, height=height)


def public_name(token: str) -> str:
    """Return the token without user and password, for logs, errors and status topics."""
    return re.sub(r"//[^/@]*@", "//***@", token)


def _open_v4l2(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    path = Path(token.removeprefix("v4l2:"))
    _check_v4l2(token, path)
    # By its real node: OpenCV takes names other than /dev/videoN for files in some versions.
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DeviceError(f"{token}: in use; stop the other program (`fuser {path}` names it)", reason="busy")
    if width * height > 640 * 480:
        # Uncompressed, USB 2 carries only a few large pictures a second.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    for key, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, width),
        (cv2.CAP_PROP_FRAME_HEIGHT, height),
        (cv2.CAP_PROP_FPS, fps),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        capture.set(key, value)
    return LiveCamera(token, _OpenCvDriver(capture), fps=fps)


def _check_v4l2(token: str, path: Path) -> None:
    """Find out what OpenCV keeps to itself: why a node cannot be opened."""
    try:
        node = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        raise DeviceError(f"{token}: no such device; {_LIST}") from None
    except PermissionError:
        raise DeviceError(
            f"{token}: not permitted; `sudo usermod -aG video $USER` and log in again",
            reason="no_permission",
        ) from None
    except OSError as error:
        reason = "busy" if error.errno == errno.EBUSY else "no_device"
        raise DeviceError(f"{token}: {error.strerror}; connect it again", reason=reason) from None
    capability = bytearray(104)
    try:
        fcntl.ioctl(node, _VIDIOC_QUERYCAP, capability)
    except OSError:
        raise DeviceError(f"{token}: not a video device; {_LIST}", reason="unsupported") from None
    finally:
        os.close(node)
    if not int.from_bytes(capability[88:92], "little") & _CAPTURE:
        raise DeviceError(f"{token}: a video device that takes no pictures; {_LIST}", reason="unsupported")


def _open_network(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - the camera decides
    name = public_name(token)
    timeout_ms = round(OPEN_TIMEOUT_S * 1000)
    started_s = time.monotonic()
    capture = cv2.VideoCapture(
        token,
        cv2.CAP_FFMPEG,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(FROZEN_S * 1000)],
    )
    if capture.isOpened():
        return LiveCamera(name, _OpenCvDriver(capture), fps=fps)
    if time.monotonic() - started_s >= OPEN_TIMEOUT_S * 0.9:
        raise DeviceError(f"{name}: no answer in {OPEN_TIMEOUT_S:g} s; check the address", reason="timeout")
    raise DeviceError(f"{name}: no video there; check address, port, path, user and password")


def _open_gstreamer(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - in the pipeline
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise DeviceError(
            f"{token}: this OpenCV has no GStreamer, as all from PyPI; `sudo apt install python3-opencv` "
            "(on a Jetson NVIDIA's own) and a venv with --system-site-packages",
            reason="unsupported",
        )
    pipeline = token.removeprefix("gstreamer:")
    if "appsink" not in pipeline:
        pipeline += " ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise DeviceError(f"{token}: the pipeline does not start; try gst-launch-1.0", reason="unsupported")
    return LiveCamera(token, _OpenCvDriver(capture), fps=fps)


def _open_picamera(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    try:
        picamera2: Any = importlib.import_module("picamera2")
    except ImportError:
        raise DeviceError(
            f"{token}: picamera2 is not installed; `sudo apt install python3-picamera2` and a venv with "
            "--system-site-packages, or `pip install emotion-edge[picamera]`",
            reason="unsupported",
        ) from None
    number = int(token.removeprefix("picamera:"))
    if number not in [camera["Num"] for camera in picamera2.Picamera2.global_camera_info()]:
        raise DeviceError(f"{token}: no such camera; check the ribbon cable; {_LIST}")
    camera = None
    try:
        camera = picamera2.Picamera2(number)
        driver = _PiDriver(camera, fps=fps, width=width, height=height)
    except RuntimeError as error:
        # What libcamera says of a camera that another process has.
        if camera is not None:
            camera.close()
        raise DeviceError(f"{token}: {error}; stop the other program that uses it", reason="busy") from None
    return LiveCamera(token, driver, fps=fps)


def _open_auto(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    from edge.devices import list_cameras  # which in turn knows the drivers

    for device in list_cameras():
        try:
            camera = open_camera(device.token, fps=fps, width=width, height=height)
        except DeviceError as error:
            log.info("camera auto: skipped, %s", error)
            continue
        try:
            if next(iter(camera), None) is not None:
                log.info("camera auto: %s", device.token)
                return camera
        except DeviceError as error:
            log.info("camera auto: skipped, %s", error)
        camera.close()
    log.info("camera %s: none found", token)
    return _open_none("none", fps=fps, width=width, height=height)


def _open_file(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - the file decides
    return FileCamera(token, fps=fps)


def _open_fake(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    return FakeCamera(token, fps=fps, width=width, height=height)


def _open_none(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - nothing needs none
    return cast(Source[Frame], Nothing(token))


_OPENERS: dict[str, Callable[..., Source[Frame]]] = {
    "auto": _open_auto,
    "fake": _open_fake,
    "file": _open_file,
    "gstreamer": _open_gstreamer,
    "http": _open_network,
    "https": _open_network,
    "none": _open_none,
    "picamera": _open_picamera,
    "rtsp": _open_network,
    "rtsps": _open_network,
    "v4l2": _open_v4l2,
}
