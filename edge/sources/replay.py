"""Replays files as devices: a clip is camera and microphone at once, at its recorded speed.

`file:clip.mp4[?loop][&speed=20]`: `loop` restarts it at its end, `speed` plays it faster or slower.

All sources of one file in a process share a clock, which starts with the first item that is read. So image
and audio stay in step, in whatever order they are opened and reopened.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from edge.errors import DeviceError, MediaError
from edge.sources.media_files import (
    audio_blocks,
    decode_video,
    duration_s,
    open_media,
    to_rgb,
    video_stream,
)
from edge.sources.rate import CHUNK, NS_PER_SAMPLE, FrameRateLimiter
from edge.values import AudioChunk, Float32, Frame

# A reader that is less late gets all items at once; for a later one the past is skipped, as a device does.
CATCH_UP_NS = 1_000_000_000
_OPTION = r"(?:loop|speed=(?:0\.[1-9]\d?|[1-9]\d?(?:\.\d+)?))"  # from a tenth of the speed to 99 times
OPTIONS = re.compile(f"{_OPTION}(?:&{_OPTION})?")


class _Clock:
    """The time at which a file started to play, set by the first reader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._origin_ns: int | None = None

    def origin_ns(self) -> int:
        with self._lock:
            if self._origin_ns is None:
                self._origin_ns = time.monotonic_ns()
            return self._origin_ns


# Weak: when the last source of a file is closed, the next one starts the file again.
_clocks: WeakValueDictionary[Path, _Clock] = WeakValueDictionary()
_clocks_lock = threading.Lock()


class _FileSource:
    """A file, its clock and its period; camera and microphone of a file share this."""

    def __init__(self, token: str, *, stream: str) -> None:
        self.name = token
        path, self._loops, self._speed = _parse(token)
        self._path = Path(path).expanduser().resolve()
        self._closed = threading.Event()
        try:
            with open_media(self._path) as container:
                found = video_stream(container) if stream == "video" else container.streams.audio
                if not found:
                    raise DeviceError(
                        f"{token}: has no {stream}; use another file or none", reason="unsupported"
                    )
                self._period_ns = _period_ns(duration_s(container)) if self._loops else 0
        except MediaError as error:
            reason = "unsupported" if self._path.exists() else "no_device"
            raise DeviceError(f"{token}: {error}", reason=reason) from None
        with _clocks_lock:
            self._clock: _Clock | None = _clocks.setdefault(self._path, _Clock())

    def close(self) -> None:
        """End the iteration; may be called more than once."""
        self._closed.set()
        self._clock = None

    def _position(self) -> tuple[int, int, int]:
        """Return the origin, the current lap and the position in the file; (origin, 0, 0) at the start."""
        clock = self._clock
        origin_ns = clock.origin_ns() if clock is not None else time.monotonic_ns()
        elapsed_ns = time.monotonic_ns() - origin_ns
        if elapsed_ns < CATCH_UP_NS:
            return origin_ns, 0, 0
        played_ns = round(elapsed_ns * self._speed)
        if not self._loops:
            return origin_ns, 0, played_ns
        lap, into_ns = divmod(played_ns, self._period_ns)
        return origin_ns, lap, into_ns

    def _time_ns(self, origin_ns: int, played_ns: int) -> int:
        """Return the time at which `played_ns` of the file, laps included, have been played."""
        return origin_ns + (played_ns if self._speed == 1 else round(played_ns / self._speed))

    def _wait_until(self, t_ns: int) -> bool:
        """Sleep until `t_ns`; return False if the source was closed meanwhile."""
        return not self._closed.wait(max(0.0, (t_ns - time.monotonic_ns()) / 1e9))


class FileCamera(_FileSource):
    """The video of a file: no frame before its time, at most `fps` a second.

    A frame that is late by more than an interval is dropped before it is converted. Raises `DeviceError`.
    """

    def __init__(self, token: str, *, fps: float) -> None:
        super().__init__(token, stream="video")
        self._fps = fps

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._frames()
        except MediaError as error:
            raise DeviceError(f"{self.name}: {error}", reason="unsupported") from None

    def _frames(self) -> Iterator[Frame]:
        origin_ns, lap, from_ns = self._position()
        limiter = FrameRateLimiter(self._fps)
        yielded_ns = dropped = 0
        while not self._closed.is_set():
            with open_media(self._path) as container:
                stream = video_stream(container)
                for at_s, image in decode_video(container, stream, from_s=from_ns / 1e9) if stream else ():
                    if self._loops and at_s * 1e9 >= self._period_ns:
                        break
                    t_ns = self._time_ns(origin_ns, lap * self._period_ns + round(at_s * 1e9))
                    if not limiter.accepts(t_ns):
                        continue
                    if not self._wait_until(t_ns):
                        return
                    now_ns = time.monotonic_ns()
                    # Deliver one a second even if late: on a slow device that is better than none.
                    if now_ns - t_ns > limiter.interval_ns and now_ns - yielded_ns < 1_000_000_000:
                        dropped += 1
                        continue
                    yield Frame(to_rgb(image), t_ns, dropped)
                    yielded_ns, dropped = time.monotonic_ns(), 0
            if not self._loops:
                return
            lap, from_ns = lap + 1, 0


class FileMicrophone(_FileSource):
    """The audio of a file as chunks of 20 ms, each delivered at the time of its last sample."""

    def __init__(self, token: str) -> None:
        super().__init__(token, stream="audio")

    def __iter__(self) -> Iterator[AudioChunk]:
        try:
            yield from self._chunks()
        except MediaError as error:
            raise DeviceError(f"{self.name}: {error}", reason="unsupported") from None

    def _chunks(self) -> Iterator[AudioChunk]:
        origin_ns, lap, from_ns = self._position()
        index = (lap * self._period_ns + from_ns) // NS_PER_SAMPLE  # samples since the origin
        gap = 0
        for samples in self._split(self._blocks(from_ns)):
            t_ns = self._time_ns(origin_ns, index * NS_PER_SAMPLE)
            index += len(samples)
            end_ns = self._time_ns(origin_ns, index * NS_PER_SAMPLE)
            if time.monotonic_ns() - end_ns > CATCH_UP_NS:
                gap += len(samples)
                continue
            if not self._wait_until(end_ns):
                return
            yield AudioChunk(samples, t_ns, gap=gap)
            gap = 0

    def _blocks(self, from_ns: int) -> Iterator[Float32]:
        """Decode lap after lap; each is padded with silence or cut to exactly one period."""
        while not self._closed.is_set():
            left = (self._period_ns - from_ns) // NS_PER_SAMPLE
            with open_media(self._path) as container:
                for block in audio_blocks(container, from_s=from_ns / 1e9):
                    block = block[:left] if self._loops else block
                    left -= len(block)
                    yield block
            if not self._loops:
                return
            yield np.zeros(max(0, left), np.float32)
            from_ns = 0

    @staticmethod
    def _split(blocks: Iterator[Float32]) -> Iterator[Float32]:
        """Split blocks of any length into chunks of `CHUNK` samples; the last one may be shorter."""
        rest = np.zeros(0, np.float32)
        for block in blocks:
            rest = np.concatenate((rest, block))
            whole = len(rest) - len(rest) % CHUNK
            yield from (rest[at : at + CHUNK].copy() for at in range(0, whole, CHUNK))
            rest = rest[whole:]
        if len(rest):
            yield rest


def _parse(token: str) -> tuple[str, bool, float]:
    """Return path, whether it loops, and speed; a name may contain a question mark."""
    path, mark, query = token.removeprefix("file:").rpartition("?")
    if not mark or not OPTIONS.fullmatch(query):
        return token.removeprefix("file:"), False, 1.0
    options = dict(part.partition("=")[::2] for part in query.split("&"))
    return path, "loop" in options, float(options.get("speed", "1"))


def _period_ns(length_s: float) -> int:
    """Round a lap up to whole chunks, equal for video and audio; at least 1 s, so that images do not spin."""
    chunk_ns = CHUNK * NS_PER_SAMPLE
    return max(1_000_000_000, -(-round(length_s * 1e9) // chunk_ns) * chunk_ns)


def clip_path() -> Path:
    """Return the clip that ships with the package."""
    return Path(str(resources.files("edge.sources"))) / "clips" / "demo.mp4"
