"""What the status page may show beside the payloads that the broker gets: boxes, level, the last hour.

Pixels are kept only while a preview runs, which somebody at the device itself asks for, and for 60 s at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge.values import AudioChunk, Face, Float32, Frame, UInt8

FRESH_S = 1.5  # older boxes and levels are not about now
HOUR_S = 3600.0
FPS_FRAMES = 20
MAX_CHANGES = 4096  # of the last hour; more than one a second is nothing that an eye can see
PREVIEW_S = 60.0
QUIETEST_DB = -96.0  # one step of 16 bits
JPEG_QUALITY = 70


@dataclass(frozen=True, slots=True)
class Box:
    """One face in view: `box` is x, y, w, h in shares of the picture, 0..1."""

    subject: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """What the camera and the microphone have now; None where there is nothing fresh.

    `fps` counts the frames that were looked at, `size_px` is (width, height), `level_db` the level against
    full scale, `hour` is (seconds ago, emotion) for every change of the last hour, the oldest first.
    """

    boxes: tuple[Box, ...]
    fps: float
    size_px: tuple[int, int] | None
    level_db: float | None
    hour: tuple[tuple[float, str], ...]
    preview_s: float


def level_db(samples: Float32) -> float:
    """Return the root mean square of samples (n,) in dB: `QUIETEST_DB` to 0, a full-scale square wave."""
    power = float(np.dot(samples, samples)) / max(1, len(samples))
    return max(QUIETEST_DB, 10 * float(np.log10(power + 1e-12)))


class LiveView:
    """Written by the workers, read by the page; `now_ns` is monotonic, as the times of frames are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boxes: tuple[Box, ...] = ()
        self._size_px: tuple[int, int] | None = None
        self._seen_ns: deque[int] = deque(maxlen=FPS_FRAMES)
        self._level_db = QUIETEST_DB
        self._heard_ns = 0
        self._hour: deque[tuple[int, str]] = deque(maxlen=MAX_CHANGES)
        self._preview_ns = 0  # until when
        self._pixels: UInt8 | None = None

    def add_frame(self, frame: Frame, faces: Sequence[Face]) -> None:
        """Remember where the faces of a frame are, and its pixels only while a preview runs."""
        height, width = frame.pixels.shape[:2]
        scale = (width, height, width, height)
        boxes = tuple(
            Box(
                f"person-{face.track}",
                tuple(round(v / s, 4) for v, s in zip(face.box_px, scale, strict=True)),
            )
            for face in faces
        )
        with self._lock:
            self._boxes, self._size_px = boxes, (width, height)
            self._seen_ns.append(frame.t_ns)
            # A copy: the source uses its buffer again.
            self._pixels = frame.pixels.copy() if frame.t_ns < self._preview_ns else None

    def add_chunk(self, chunk: AudioChunk) -> None:
        """Remember how loud a chunk was."""
        with self._lock:
            self._level_db, self._heard_ns = level_db(chunk.samples), chunk.t_ns

    def note(self, emotion: str, now_ns: int) -> None:
        """Remember what the room feels from now on."""
        with self._lock:
            if not self._hour or self._hour[-1][1] != emotion:
                self._hour.append((now_ns, emotion))
            # The last change before the hour still says what the hour began with.
            while len(self._hour) > 1 and now_ns - self._hour[1][0] > HOUR_S * 1e9:
                self._hour.popleft()

    def view(self, now_ns: int) -> View:
        """Return what is there now."""
        with self._lock:
            is_seen = bool(self._seen_ns) and now_ns - self._seen_ns[-1] < FRESH_S * 1e9
            is_heard = self._heard_ns > 0 and now_ns - self._heard_ns < FRESH_S * 1e9
            return View(
                boxes=self._boxes if is_seen else (),
                fps=self._fps() if is_seen else 0.0,
                size_px=self._size_px,
                level_db=round(self._level_db, 1) if is_heard else None,
                hour=tuple((round((now_ns - t_ns) / 1e9, 1), emotion) for t_ns, emotion in self._hour),
                preview_s=max(0.0, round((self._preview_ns - now_ns) / 1e9, 1)),
            )

    def _fps(self) -> float:
        span_ns = self._seen_ns[-1] - self._seen_ns[0]
        return round((len(self._seen_ns) - 1) * 1e9 / span_ns, 1) if span_ns > 0 else 0.0

    def start_preview(self, now_ns: int) -> None:
        """Keep pixels for the next 60 s."""
        with self._lock:
            self._preview_ns = now_ns + int(PREVIEW_S * 1e9)

    def stop_preview(self) -> None:
        """Forget the pixels."""
        with self._lock:
            self._preview_ns, self._pixels = 0, None

    def picture(self, now_ns: int) -> bytes | None:
        """Return the newest picture as JPEG, or None when no preview runs or no picture came yet."""
        with self._lock:
            pixels = self._pixels if now_ns < self._preview_ns else None
            if pixels is None:
                self._pixels = None
                return None
        ok, packed = cv2.imencode(
            ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        return packed.tobytes() if ok else None
