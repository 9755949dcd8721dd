"""Opens cameras through GStreamer, such as the one on a Jetson's ribbon cable.

OpenCV from PyPI has no GStreamer, and NVIDIA's sources can hang or crash their process. So a child process,
`gst_launch.py`, runs the pipeline and writes raw frames into a pipe; a child can be killed.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge.config import child_environment, state_directory
from edge.errors import DeviceError
from edge.masking import mask_credentials
from edge.sources.live_camera import LiveCamera
from edge.values import Frame, Source, UInt8

OPEN_TIMEOUT_S = 8.0  # NVIDIA's camera daemon is slow to deliver the first frame
_PIPE_BYTES = 1 << 20  # the limit for unprivileged users; a large pipe needs fewer context switches
# NVIDIA's source and its properties alone; the rest of such a pipeline is always the same.
_JETSON = re.compile(r"nvarguscamerasrc(\s+[\w-]+=\S+)*\s*")
_JETSON_REST = (
    " ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1"
    " ! nvvidconv ! video/x-raw,format=I420,width={width},height={height}"
)
_SIZE = re.compile(r"size (\d+) (\d+)")
_FAULT = re.compile(r"fault (.+)")
_PROGRAM = Path(__file__).with_name("gst_launch.py")


class GstDriver:
    """A child process with a running pipeline: one thread reads its messages, another its frames."""

    def __init__(self, pipeline: str, *, fps: float) -> None:
        self._pixels: UInt8 | None = None
        self._size: tuple[int, int] | None = None
        self._fault = ""
        self._ready = threading.Event()  # the size is known, or the process has ended
        read_end, write_end = os.pipe()
        with suppress(PermissionError):
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        tail = (
            f"! videorate drop-only=true max-rate={math.ceil(fps)} ! videoconvert ! video/x-raw,format=RGB "
            f"! fdsink name=edge fd={write_end} sync=false"
        )
        try:
            arguments = json.dumps([*shlex.split(pipeline), *tail.split()])
            self._process = subprocess.Popen(
                # -I -S: nothing but the standard library, which starts three times as fast.
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(write_end,),
                env={**child_environment(), "LC_ALL": "C", "GST_REGISTRY": _registry()},
            )
        finally:
            os.close(write_end)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(arguments.encode())
        self._pipe = open(read_end, "rb", buffering=0)  # noqa: SIM115, PTH123 - closed by `release`
        threading.Thread(target=self._read_messages, name="gstreamer", daemon=True).start()

    def wait_ready(self) -> None:
        """Wait until the size of the frames is known. Raises `DeviceError`."""
        self._ready.wait(OPEN_TIMEOUT_S)
        if self._size is None:
            fault, is_over = self._fault, self._ready.is_set()
            self.release()
            if is_over:
                raise DeviceError(f"{fault or 'ended at once'}; try it with gst-launch-1.0")
            raise DeviceError(
                f"no frame in {OPEN_TIMEOUT_S:g} s; try it with gst-launch-1.0", reason="timeout"
            )

    def grab(self) -> bool:
        assert self._size is not None
        width, height = self._size
        pixels = self._pixels
        if pixels is None:  # else reuse the buffer of a frame that was not retrieved
            # GStreamer pads rows to a multiple of 4 bytes.
            pixels = np.empty((height, -(-3 * width // 4) * 4), np.uint8)
        left = pixels.data.cast("B")
        while left:
            count = self._pipe.readinto(left)
            if not count:
                self._pixels = None
                return False
            left = left[count:]
        self._pixels = pixels
        return True

    def retrieve(self) -> UInt8 | None:
        pixels, self._pixels = self._pixels, None
        assert pixels is not None, "`grab` comes first"
        assert self._size is not None
        width, height = self._size
        # (h, padded w * 3) -> (h, w, 3), without a copy if there is no padding
        return np.ascontiguousarray(pixels[:, : 3 * width]).reshape(height, width, 3)

    def cancel(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def release(self) -> None:
        self.cancel()
        self._process.wait()
        self._pipe.close()

    def _read_messages(self) -> None:
        """Read the output of the child to its end, for the size of the frames and the error."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace")
                if (match := _SIZE.match(text)) and self._size is None:
                    self._size = int(match[1]), int(match[2])
                    self._ready.set()
                elif (match := _FAULT.match(text)) and not self._fault:
                    self._fault = match[1].strip().rstrip(".")
        self._ready.set()


def open_gstreamer(token: str, *, fps: float, width: int, height: int) -> Source[Frame]:  # noqa: ARG001 - 16:9
    """Open `gstreamer:PIPELINE`, a pipeline for gst-launch-1.0 without its sink.

    `gstreamer:nvarguscamerasrc` and its properties are enough for a Jetson's camera. Only there `width` is
    used; its frames are 16:9. Raises `DeviceError`.
    """
    name = mask_credentials(token)
    if shutil.which("gst-launch-1.0") is None:
        raise DeviceError(
            f"{name}: gst-launch-1.0 is missing; "
            "`sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-good`",
            reason="unsupported",
        )
    pipeline = token.removeprefix("gstreamer:")
    if is_jetson := _JETSON.fullmatch(pipeline) is not None:
        width -= width % 32  # even sides and rows without padding
        pipeline += _JETSON_REST.format(width=width, height=width * 9 // 16)
    try:
        driver = GstDriver(pipeline, fps=fps)
        driver.wait_ready()
    except ValueError as error:  # from shlex
        raise DeviceError(f"{name}: {error}; quote it as in a shell", reason="unsupported") from None
    except DeviceError as error:
        raise DeviceError(f"{name}: {error}", reason=error.reason) from None
    return LiveCamera(name, driver, fps=fps, from_sensor=is_jetson)


def _registry() -> str:
    """Return the file in which GStreamer caches its plug-ins, so that it does not scan them at each start."""
    directory = state_directory()
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    return str(directory / "gstreamer.bin")
