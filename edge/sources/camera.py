"""Opens cameras by token: one dict of schemes.

v4l2:/dev/v4l/by-id/...   rtsp://...   http://...    opencv_camera.py
gstreamer:PIPELINE   gstreamer:nvarguscamerasrc      gstreamer.py
picamera:0                                           picamera.py
file:clip.mp4[?loop]   fake:pattern                  replay.py, fakes.py
auto                     a Pi camera, a Jetson camera, or the first USB camera that sends frames
none                     no frames
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from edge.errors import DeviceError
from edge.masking import mask_credentials
from edge.sources.devices import list_cameras
from edge.sources.driver_threads import call_with_timeout
from edge.sources.fakes import EmptySource, open_fake_camera
from edge.sources.gstreamer import open_gstreamer
from edge.sources.opencv_camera import open_network, open_v4l2
from edge.sources.picamera import open_picamera
from edge.sources.replay import FileCamera
from edge.values import Frame, Source

log = logging.getLogger(__name__)


def open_camera(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    """Open the camera that `token` names; files and network cameras keep their own size.

    Blocks for at most `driver_threads.CALL_S`. Raises `DeviceError` with a reason and a remedy; the reason is
    `absent` if `auto` finds no camera at all.
    """
    if token == "auto":
        return _open_auto(fps=fps, width=width, height=height)
    opener = _OPENERS.get(token.partition(":")[0])
    if opener is None:
        raise DeviceError(
            f"{token}: not a kind of camera; `emotion-edge devices` lists cameras with their tokens",
            reason="unsupported",
        )
    return call_with_timeout(
        "camera", mask_credentials(token), lambda: opener(token, fps=fps, width=width, height=height)
    )


def _open_auto(*, fps: float, width: int, height: int) -> Source[Frame]:
    failure = None
    for device in call_with_timeout("camera", "auto", list_cameras):
        try:
            camera = open_camera(device.token, fps=fps, width=width, height=height)
        except DeviceError as error:
            failure = error
            continue
        try:
            if next(iter(camera), None) is not None:
                log.info("camera auto: %s", device.token)
                return camera
        except DeviceError as error:
            failure = error
        camera.close()
    # A camera that does not work is a fault; having no camera is a valid setup.
    raise failure or DeviceError("camera auto: none found; connect one", reason="absent")


def _open_file(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - the file decides
    return FileCamera(token, fps=fps)


def _open_none(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - it has no frames
    return cast(Source[Frame], EmptySource(token))


_OPENERS: dict[str, Callable[..., Source[Frame]]] = {
    "fake": open_fake_camera,
    "file": _open_file,
    "gstreamer": open_gstreamer,
    "http": open_network,
    "https": open_network,
    "none": _open_none,
    "picamera": open_picamera,
    "rtsp": open_network,
    "rtsps": open_network,
    "v4l2": open_v4l2,
}
