"""The module picamera2 as its manual and its source (0.3.x) describe it, with one camera that shows red.

Only what is used, and as strict as the original: a configuration must be even in size, pictures lie in a few
buffers that come back only when released, and what is read after its release is rubbish.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from types import ModuleType, TracebackType
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

ALIGNED = 64  # bytes; the hardware fills every row up to it
RUBBISH = 77


class CompletedRequest:
    """A picture in a buffer of the camera."""

    def __init__(self, camera: Picamera2, buffer: NDArray[np.uint8]) -> None:
        self.camera, self.buffer = camera, buffer
        self.ref_count = 1

    def release(self) -> None:
        self.ref_count -= 1
        if self.ref_count < 0:
            raise RuntimeError("CompletedRequest: lock now has negative ref_count")
        self.buffer[:] = RUBBISH
        self.camera.free.append(self.buffer)


class MappedArray:
    """A look into the buffer itself, for as long as the block lasts."""

    def __init__(self, request: CompletedRequest, stream: str, *, write: bool = True) -> None:
        assert request.ref_count > 0, "mapped after its release"
        assert stream in request.camera.configuration
        assert not write, "the camera's buffers are read only"
        self._request = request

    def __enter__(self) -> MappedArray:
        self.array = self._request.buffer
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self.array


class Picamera2:
    """A camera with one thread that fulfils jobs, one a picture, as libcamera's event loop does."""

    # What the next camera is like; it hangs in `stop` until `hangs` is set.
    busy = False
    hangs: threading.Event | None = None
    still = False
    stops_after: int | None = None
    calls: ClassVar[list[str]] = []
    opened: Picamera2 | None = None

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [
            {"Num": 0, "Model": "imx708", "Location": 2, "Id": "/base/soc/i2c0mux/i2c@1/imx708@1a"},
            {
                "Num": 1,
                "Model": "C920",
                "Location": 2,
                "Id": "/base/scb/pcie/usb@0,0-1:1.0-046d:082d",
            },
        ]

    def __init__(self, camera_num: int = 0) -> None:
        if self.busy:
            raise RuntimeError("Camera __init__ sequence did not complete.")
        self.calls.append(f"open {camera_num}")
        type(self).opened = self
        self.free: list[NDArray[np.uint8]] = []
        self.configuration: dict[str, Any] = {}
        self._jobs: list[Future[CompletedRequest]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def create_video_configuration(
        self,
        main: dict[str, Any],
        lores: dict[str, Any] | None = None,
        raw: dict[str, Any] | None = None,
        *,
        controls: dict[str, Any],
        buffer_count: int = 6,
        encode: str = "main",
        queue: bool = True,
    ) -> dict[str, Any]:
        return {
            "main": main,
            "lores": lores,
            "raw": raw,
            "buffer_count": buffer_count,
            "controls": controls,
            "encode": encode,
            "queue": queue,
        }

    def configure(self, configuration: dict[str, Any]) -> None:
        for name in ("main", "lores"):
            width, height = configuration[name]["size"]
            if width % 2 or height % 2:
                raise RuntimeError("width and height should be even")
            if configuration[name]["format"] != "YUV420":
                raise RuntimeError("Bad format in stream lores")
        if configuration["lores"]["size"] > configuration["main"]["size"]:
            raise RuntimeError("lores stream dimensions may not exceed main stream")
        self.configuration = configuration
        width, height = configuration["lores"]["size"]
        stride = -(-width // ALIGNED) * ALIGNED
        for _ in range(configuration["buffer_count"]):
            self.free.append(np.full((height * 3 // 2, stride), RUBBISH, np.uint8))
        red = np.zeros((height, stride, 3), np.uint8)
        red[..., 0] = 255
        self._yuv = cv2.cvtColor(red, cv2.COLOR_RGB2YUV_I420)

    def camera_configuration(self) -> dict[str, Any]:
        return self.configuration

    def start(self) -> None:
        self.calls.append("start")
        self._thread.start()

    def capture_request(self, wait: bool | None = None) -> Future[CompletedRequest]:
        assert wait is False, "without a limit a loose cable would hang the daemon"
        job: Future[CompletedRequest] = Future()
        with self._lock:
            self._jobs.append(job)
        return job

    def wait(self, job: Future[CompletedRequest], timeout: float | None = None) -> CompletedRequest:
        return job.result(timeout=timeout)

    def cancel_all_and_flush(self) -> None:
        self.calls.append("flush")
        with self._lock:
            for job in self._jobs:
                job.set_exception(CancelledError())
            self._jobs = []

    def stop(self) -> None:
        self.calls.append("stop")
        if self.hangs is not None:
            self.hangs.wait()
        self._stopping.set()
        self._thread.join()

    def close(self) -> None:
        self.calls.append("close")

    def _loop(self) -> None:
        shortest_us, _ = self.configuration["controls"]["FrameDurationLimits"]
        count = 0
        next_s = time.monotonic()
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            next_s += shortest_us / 1e6
            if count == self.stops_after:
                continue
            with self._lock:
                if not self._jobs or not self.free:
                    continue
                job, buffer = self._jobs.pop(0), self.free.pop(0)
            buffer[:] = self._yuv
            buffer[0, :32] = 0 if self.still else 80 + count % 8  # noise
            count += 1
            job.set_result(CompletedRequest(self, buffer))


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Picamera2]]:
    """Install the module picamera2."""
    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    module.MappedArray = MappedArray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setattr(Picamera2, "calls", [])
    yield Picamera2
    Picamera2.opened = None
