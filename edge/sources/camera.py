"""Opens cameras by token: one dict of schemes.

v4l2:/dev/v4l/by-id/...   rtsp://...   http://...    opencv_camera.py
gstreamer:PIPELINE   gstreamer:nvarguscamerasrc      gstreamer.py
picamera:0                                           picamera.py
file:clip.mp4[?loop]   fake:pattern                  replay.py, fakes.py
auto                     a Pi camera, a Jetson's, or the first USB camera that delivers
none                     nothing, for ever
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

from edge.errors import DeviceError
from edge.masking import mask_credentials
from edge.sources.devices import list_cameras
from edge.sources.driver_threads import call_with_timeout
from edge.sources.fakes import Nothing, open_fake_camera
from edge.sources.gstreamer import open_gstreamer
from edge.sources.opencv_camera import open_network, open_v4l2
from edge.sources.picamera import open_picamera
from edge.sources.replay import FileCamera
from edge.values import Frame, Source

log = logging.getLogger(__name__)


def open_camera(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:
    """Open the camera that `token` names; the size is a wish, a file or a network camera keeps its own.

    Blocks for at most `drivers.CALL_S`. Raises `DeviceError` with a reason and a remedy; the reason `absent`
    is that of `auto` where there is no camera at all.
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
    # One that is there and does not work is a fault; none at all is how the device was built.
    raise failure or DeviceError("camera auto: none found; connect one", reason="absent")


def _open_file(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - the file decides
    return FileCamera(token, fps=fps)


def _open_none(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - nothing needs none
    return cast(Source[Frame], Nothing(token))


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
