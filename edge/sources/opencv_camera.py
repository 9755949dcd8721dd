"""USB cameras (V4L2) and network cameras (RTSP, HTTP MJPEG) through OpenCV."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import cast

# Read when OpenCV opens its first stream. Without them FFmpeg writes to stderr and loses frames over UDP.
# Not `nobuffer`: it drops the key frame that opening has read, and the next one may be 10 s away.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|flags;low_delay")

import cv2

from edge.errors import DeviceError
from edge.masking import mask_credentials
from edge.sources.holders import in_use
from edge.sources.live_camera import FROZEN_S, LiveCamera
from edge.values import Frame, Source, UInt8

OPEN_TIMEOUT_S = 4.0
READ_TIMEOUT_S = FROZEN_S - 0.3  # so that `grab` returns before it counts as hanging
_LIST = "`emotion-edge devices` lists cameras"

# linux/videodev2.h: VIDIOC_QUERYCAP fills struct v4l2_capability, 104 bytes; device_caps is at byte 88.
_VIDIOC_QUERYCAP = 0x80685600
_CAPTURE = 0x00000001 | 0x00001000  # V4L2_CAP_VIDEO_CAPTURE, ..._MPLANE


class OpenCvDriver:
    """Anything that `cv2.VideoCapture` opens."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def grab(self) -> bool:
        started_s = time.monotonic()
        is_grabbed = self._capture.grab()
        if time.monotonic() - started_s >= READ_TIMEOUT_S:
            # FFmpeg timed out, and its decoder then returned a frame that it had buffered: an old one.
            raise DeviceError(
                f"no frame for {READ_TIMEOUT_S:g} s; check its cable and power", reason="timeout"
            )
        return is_grabbed

    def retrieve(self) -> UInt8 | None:
        ok, bgr = self._capture.retrieve()
        return cast(UInt8, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)) if ok else None

    def cancel(self) -> None:
        """Do nothing: OpenCV cannot be interrupted, its timeouts end `grab`."""

    def release(self) -> None:
        self._capture.release()


def open_v4l2(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    """Open `v4l2:/dev/...`; raise `DeviceError` with the reason, which OpenCV does not report."""
    path = Path(token.removeprefix("v4l2:"))
    _check_v4l2(token, path)
    # By its real node: some versions of OpenCV treat names other than /dev/videoN as files.
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise DeviceError(f"{token}: {in_use(path)}", reason="busy")
    if width * height > 640 * 480:
        # USB 2 carries only a few large uncompressed frames a second.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    for key, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, width),
        (cv2.CAP_PROP_FRAME_HEIGHT, height),
        (cv2.CAP_PROP_FPS, fps),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        capture.set(key, value)
    return LiveCamera(token, OpenCvDriver(capture), fps=fps, from_sensor=True)


def open_network(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - the camera decides
    """Open `rtsp://...` or `http://...`; opening and reading time out after a few seconds."""
    name = mask_credentials(token)
    started_s = time.monotonic()
    capture = cv2.VideoCapture(
        token,
        cv2.CAP_FFMPEG,
        [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            round(OPEN_TIMEOUT_S * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            round(READ_TIMEOUT_S * 1000),
        ],
    )
    if capture.isOpened():
        return LiveCamera(name, OpenCvDriver(capture), fps=fps)
    encoding = _encoding_of_login(token)
    if time.monotonic() - started_s >= OPEN_TIMEOUT_S * 0.9:
        raise DeviceError(
            f"{name}: no answer in {OPEN_TIMEOUT_S:g} s; check the address{encoding}", reason="timeout"
        )
    raise DeviceError(f"{name}: no video there; check address, port, path, user and password{encoding}")


def _encoding_of_login(token: str) -> str:
    """Return how to write the characters of the login that end a host in a URL; empty if there are none."""
    login, at, _ = token.partition("://")[2].rpartition("@")
    found = [character for character in "#/?@" if at and character in login]
    codes = ", ".join(f"%{ord(character):02X} for {character}" for character in found)
    return f"; in user and password write {codes}" if codes else ""


def _check_v4l2(token: str, path: Path) -> None:
    """Raise `DeviceError` with the reason if a node cannot be opened as a camera."""
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
        if error.errno == errno.EBUSY:
            raise DeviceError(f"{token}: {in_use(path)}", reason="busy") from None
        raise DeviceError(f"{token}: {error.strerror}; connect it again") from None
    capability = bytearray(104)
    try:
        fcntl.ioctl(node, _VIDIOC_QUERYCAP, capability)
    except OSError:
        raise DeviceError(f"{token}: not a video device; {_LIST}", reason="unsupported") from None
    finally:
        os.close(node)
    if not int.from_bytes(capability[88:92], "little") & _CAPTURE:
        raise DeviceError(f"{token}: a video device that cannot capture; {_LIST}", reason="unsupported")
