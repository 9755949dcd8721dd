"""Files as devices: a clip is camera and microphone at once, at the pace at which it was recorded.

`file:clip.mp4[?loop][&speed=20]`: again from the start when it is over, and faster or slower than it was.

Everything that replays the same file in one process shares one clock, which starts with the first item
that anyone asks for. So picture and sound stay in step, whoever opens them, in which order, and again.
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

# Whoever comes less late than this gets everything at once; later, the past is skipped as a device would.
CATCH_UP_NS = 1_000_000_000
_OPTION = r"(?:loop|speed=(?:0\.[1-9]\d?|[1-9]\d?(?:\.\d+)?))"  # from a tenth of the pace to 99 times it
OPTIONS = re.compile(f"{_OPTION}(?:&{_OPTION})?")


class _Clock:
    """The instant at which a file started to play, set by the first reader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._origin_ns: int | None = None

    def origin_ns(self) -> int:
        with self._lock:
            if self._origin_ns is None:
                self._origin_ns = time.monotonic_ns()
            return self._origin_ns


# Weak: when the last source of a file is closed, the next one starts the file anew.
_clocks: WeakValueDictionary[Path, _Clock] = WeakValueDictionary()
_clocks_lock = threading.Lock()


class _FileSource:
    """What camera and microphone share: the file, its clock, its period and the end."""

    def __init__(self, token: str, *, want: str) -> None:
        self.name = token
        path, self._loops, self._speed = _parse(token)
        self._path = Path(path).expanduser().resolve()
        self._closed = threading.Event()
        try:
            with open_media(self._path) as container:
                found = video_stream(container) if want == "picture" else container.streams.audio
                if not found:
                    raise DeviceError(f"{token}: has no {want}; use another or none", reason="unsupported")
                self._period_ns = _period_ns(duration_s(container)) if self._loops else 0
        except MediaError as error:
            reason = "unsupported" if self._path.exists() else "no_device"
            raise DeviceError(f"{token}: {error}", reason=reason) from None
        with _clocks_lock:
            self._clock: _Clock | None = _clocks.setdefault(self._path, _Clock())

    def close(self) -> None:
        """End the iteration; more than once is fine."""
        self._closed.set()
        self._clock = None

    def _position(self) -> tuple[int, int, int]:
        """Return the origin, the lap that is on and how far into the file; (origin, 0, 0) at the start."""
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

    def _instant_ns(self, origin_ns: int, played_ns: int) -> int:
        """Return when so much of the file, laps included, has been played."""
        return origin_ns + (played_ns if self._speed == 1 else round(played_ns / self._speed))

    def _wait_until(self, t_ns: int) -> bool:
        """Sleep until `t_ns`; False when the source was closed meanwhile."""
        return not self._closed.wait(max(0.0, (t_ns - time.monotonic_ns()) / 1e9))


class FileCamera(_FileSource):
    """The pictures of a file as frames: none before its time, at most `fps` a second.

    A frame later than one interval is dropped before it is converted. Raises `DeviceError`.
    """

    def __init__(self, token: str, *, fps: float) -> None:
        super().__init__(token, want="picture")
        self._fps = fps

    def __iter__(self) -> Iterator[Frame]:
        try:
            yield from self._frames()
        except MediaError as error:
            raise DeviceError(f"{self.name}: {error}", reason="unsupported") from None

    def _frames(self) -> Iterator[Frame]:
        origin_ns, lap, from_ns = self._position()
        limiter = FrameRateLimiter(self._fps)
        shown_ns = dropped = 0
        while not self._closed.is_set():
            with open_media(self._path) as container:
                stream = video_stream(container)
                for at_s, picture in decode_video(container, stream, from_s=from_ns / 1e9) if stream else ():
                    if self._loops and at_s * 1e9 >= self._period_ns:
                        break
                    t_ns = self._instant_ns(origin_ns, lap * self._period_ns + round(at_s * 1e9))
                    if not limiter.accepts(t_ns):
                        continue
                    if not self._wait_until(t_ns):
                        return
                    now_ns = time.monotonic_ns()
                    # One a second whatever the delay: on a device that is too slow late beats never.
                    if now_ns - t_ns > limiter.interval_ns and now_ns - shown_ns < 1_000_000_000:
                        dropped += 1
                        continue
                    yield Frame(to_rgb(picture), t_ns, dropped)
                    shown_ns, dropped = time.monotonic_ns(), 0
            if not self._loops:
                return
            lap, from_ns = lap + 1, 0


class FileMicrophone(_FileSource):
    """The sound of a file as chunks of 20 ms, each when its last sample has been "recorded"."""

    def __init__(self, token: str) -> None:
        super().__init__(token, want="sound")

    def __iter__(self) -> Iterator[AudioChunk]:
        try:
            yield from self._chunks()
        except MediaError as error:
            raise DeviceError(f"{self.name}: {error}", reason="unsupported") from None

    def _chunks(self) -> Iterator[AudioChunk]:
        origin_ns, lap, from_ns = self._position()
        index = (lap * self._period_ns + from_ns) // NS_PER_SAMPLE  # samples since the origin
        gap = 0
        for samples in self._cut(self._blocks(from_ns)):
            t_ns = self._instant_ns(origin_ns, index * NS_PER_SAMPLE)
            index += len(samples)
            end_ns = self._instant_ns(origin_ns, index * NS_PER_SAMPLE)
            if time.monotonic_ns() - end_ns > CATCH_UP_NS:
                gap += len(samples)
                continue
            if not self._wait_until(end_ns):
                return
            yield AudioChunk(samples, t_ns, gap=gap)
            gap = 0

    def _blocks(self, from_ns: int) -> Iterator[Float32]:
        """Decode lap after lap; every lap is exactly one period long, filled up with silence or cut."""
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
    def _cut(blocks: Iterator[Float32]) -> Iterator[Float32]:
        """Cut blocks of any length into chunks of `CHUNK`; the last one may be shorter."""
        rest = np.zeros(0, np.float32)
        for block in blocks:
            rest = np.concatenate((rest, block))
            whole = len(rest) - len(rest) % CHUNK
            yield from (rest[at : at + CHUNK].copy() for at in range(0, whole, CHUNK))
            rest = rest[whole:]
        if len(rest):
            yield rest


def _parse(token: str) -> tuple[str, bool, float]:
    """Return path, whether it loops, and speed; a question mark may be part of a name."""
    path, mark, query = token.removeprefix("file:").rpartition("?")
    if not mark or not OPTIONS.fullmatch(query):
        return token.removeprefix("file:"), False, 1.0
    options = dict(part.partition("=")[::2] for part in query.split("&"))
    return path, "loop" in options, float(options.get("speed", "1"))


def _period_ns(length_s: float) -> int:
    """Round a lap up to whole chunks, the same for picture and sound; at least a second, so stills idle."""
    chunk_ns = CHUNK * NS_PER_SAMPLE
    return max(1_000_000_000, -(-round(length_s * 1e9) // chunk_ns) * chunk_ns)


def clip_path() -> Path:
    """Return the clip that ships with the package."""
    return Path(str(resources.files("edge.sources"))) / "clips" / "demo.mp4"
