"""Holds what only the page shows: face boxes, microphone level, the last hour, the camera preview.

Pixels are kept only while a preview runs: a button on the device's own screen starts it, for the session of
that page only. It ends after 60 s, and at once when the camera is paused.
"""

from __future__ import annotations

import hmac
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge.values import AudioChunk, Face, Float32, Frame, UInt8

FRESH_S = 1.5  # older boxes and levels are not shown
HOUR_S = 3600.0
FPS_FRAMES = 20
MAX_CHANGES = 4096  # of emotion in the last hour: more than one a second
PREVIEW_S = 60.0
QUIETEST_DB = -96.0  # one step of 16 bits
JPEG_QUALITY = 70


@dataclass(frozen=True, slots=True)
class Box:
    """The box of one face: x, y, w, h as shares of the frame, 0..1."""

    subject: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LiveState:
    """What camera and microphone show now; empty or None where nothing newer than `FRESH_S` exists.

    `fps` is the rate of processed frames, `size_px` is (width, height), `level_db` the level relative to
    full scale. `hour` has (seconds ago, emotion) of each change in the last hour, oldest first.
    `preview_s` is the time left of the preview, 0 while none runs; `preview_session` is the page that asked.
    """

    boxes: tuple[Box, ...]
    fps: float
    size_px: tuple[int, int] | None
    level_db: float | None
    hour: tuple[tuple[float, str], ...]
    preview_s: float
    preview_session: str


def level_db(samples: Float32) -> float:
    """Return the root mean square of samples (n,) in dB: `QUIETEST_DB` to 0, a full-scale square wave."""
    power = float(np.dot(samples, samples)) / max(1, len(samples))
    return max(QUIETEST_DB, 10 * float(np.log10(power + 1e-12)))


class LiveView:
    """Written by the workers, read by the page, from any thread; `now_ns` is monotonic like capture times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._boxes: tuple[Box, ...] = ()
        self._size_px: tuple[int, int] | None = None
        self._frame_times_ns: deque[int] = deque(maxlen=FPS_FRAMES)
        self._level_db = QUIETEST_DB
        self._level_ns = 0  # capture time of the chunk that `_level_db` is from
        self._hour: deque[tuple[int, str]] = deque(maxlen=MAX_CHANGES)
        self._preview_end_ns = 0
        self._preview_session = ""
        self._pixels: UInt8 | None = None

    def add_frame(self, frame: Frame, faces: Sequence[Face]) -> None:
        """Keep the boxes of the faces in a frame, and its pixels only while a preview runs."""
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
            self._frame_times_ns.append(frame.t_ns)
            # A copy, because the source reuses its buffer.
            self._pixels = frame.pixels.copy() if frame.t_ns < self._preview_end_ns else None

    def add_chunk(self, chunk: AudioChunk) -> None:
        """Keep the level of an audio chunk."""
        with self._lock:
            self._level_db, self._level_ns = level_db(chunk.samples), chunk.t_ns

    def add_emotion(self, emotion: str, now_ns: int) -> None:
        """Keep the emotion of the room from `now_ns` on, if it changed."""
        with self._lock:
            if not self._hour or self._hour[-1][1] != emotion:
                self._hour.append((now_ns, emotion))
            # Keep the last change before the hour: it is the emotion at the start of the hour.
            while len(self._hour) > 1 and now_ns - self._hour[1][0] > HOUR_S * 1e9:
                self._hour.popleft()

    def state(self, now_ns: int) -> LiveState:
        """Return what to show at `now_ns`."""
        with self._lock:
            times_ns = self._frame_times_ns
            has_frame = bool(times_ns) and now_ns - times_ns[-1] < FRESH_S * 1e9
            has_level = self._level_ns > 0 and now_ns - self._level_ns < FRESH_S * 1e9
            return LiveState(
                boxes=self._boxes if has_frame else (),
                fps=self._fps() if has_frame else 0.0,
                size_px=self._size_px,
                level_db=round(self._level_db, 1) if has_level else None,
                hour=tuple((round((now_ns - t_ns) / 1e9, 1), emotion) for t_ns, emotion in self._hour),
                preview_s=max(0.0, round((self._preview_end_ns - now_ns) / 1e9, 1)),
                preview_session=self._preview_session,
            )

    def _fps(self) -> float:
        span_ns = self._frame_times_ns[-1] - self._frame_times_ns[0]
        return round((len(self._frame_times_ns) - 1) * 1e9 / span_ns, 1) if span_ns > 0 else 0.0

    def start_preview(self, now_ns: int, session: str) -> None:
        """Keep the pixels of frames for the next `PREVIEW_S`, for one session; that of another one ends."""
        with self._lock:
            self._preview_session = session
            self._preview_end_ns = now_ns + int(PREVIEW_S * 1e9)

    def stop_preview(self) -> None:
        """End the preview and delete its pixels."""
        with self._lock:
            self._preview_end_ns, self._preview_session, self._pixels = 0, "", None

    def preview_jpeg(self, now_ns: int, session: str) -> bytes | None:
        """Return the newest frame as JPEG; None for another session and before the first frame."""
        with self._lock:
            if now_ns >= self._preview_end_ns:
                self._pixels = None
            is_own = hmac.compare_digest(session.encode(), self._preview_session.encode())
            pixels = self._pixels if is_own else None
            if pixels is None:
                return None
        is_encoded, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        return jpeg.tobytes() if is_encoded else None
