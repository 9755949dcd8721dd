"""Makes small images, audio files, clips and a network camera with known contents."""

from __future__ import annotations

import struct
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import cv2
import numpy as np
from numpy.typing import NDArray

RED_BGR = (0, 0, 255)
WAV_CODECS = {"u8": "pcm_u8", "s16": "pcm_s16le", "s24": "pcm_s24le", "f32": "pcm_f32le"}


def tone(
    seconds: float, *, hz: float = 440.0, rate_hz: int = 16_000, amplitude: float = 0.5
) -> NDArray[np.float32]:
    """Return a sine (n,) float32."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def write_sound(
    path: Path, samples: NDArray[np.float32], *, rate_hz: int = 16_000, codec: str = "pcm_s16le"
) -> Path:
    """Write (n,) or (channels, n) float32 in the container that the suffix of `path` names."""
    rows = np.atleast_2d(samples)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[rows.shape[0]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout=layout)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        frame.time_base = Fraction(1, rate_hz)
        frame.pts = 0
        resampler = av.AudioResampler(
            format=stream.format,
            layout=layout,
            rate=rate_hz,
            frame_size=stream.codec_context.frame_size or None,
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return path


def write_clip(
    path: Path,
    *,
    seconds: float = 2.0,
    fps: int = 25,
    mark_s: float | None = None,
    sound: bool = True,
    picture: bool = True,
    offset_s: float = 0.0,
    sound_offset_s: float = 0.0,
    size: tuple[int, int] = (160, 120),
) -> Path:
    """Write a clip that is dark and silent but for one flash and one beep of 0.2 s at `mark_s`.

    The first picture has the time stamp `offset_s`, the first sample `offset_s + sound_offset_s`.
    Without a mark, picture number n has brightness 2 n, and the sound is a tone.
    """
    width, height = size
    with av.open(str(path), "w") as container:
        film = (
            container.add_stream("mpeg4" if path.suffix != ".mpg" else "mpeg1video", rate=fps)
            if picture
            else None
        )
        if film is not None:
            film.width, film.height, film.pix_fmt = width, height, "yuv420p"
            film.bit_rate = 2_000_000
        track = (
            container.add_stream("mp2" if path.suffix == ".mpg" else "aac", rate=48_000, layout="mono")
            if sound
            else None
        )
        if film is not None:
            for number in range(round(seconds * fps)):
                at_s = number / fps
                level = min(255, 2 * number) if mark_s is None else 255 * _marked(at_s, mark_s)
                image = np.full((height, width, 3), level, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.time_base, frame.pts = Fraction(1, 1000), round((at_s + offset_s) * 1000)
                container.mux(film.encode(frame))
            container.mux(film.encode(None))
        if track is not None:
            t = np.arange(round((seconds - sound_offset_s) * 48_000)) / 48_000 + sound_offset_s
            wave = 0.5 * np.sin(2 * np.pi * 1000 * t)
            if mark_s is not None:
                wave *= (t >= mark_s) & (t < mark_s + 0.2)
            block = track.codec_context.frame_size or 1152
            for first in range(0, len(wave), block):
                row = np.ascontiguousarray(wave[None, first : first + block], np.float32)
                sound_frame = av.AudioFrame.from_ndarray(row, format="fltp", layout="mono")
                sound_frame.sample_rate, sound_frame.time_base = 48_000, Fraction(1, 48_000)
                sound_frame.pts = first + round((offset_s + sound_offset_s) * 48_000)
                for piece in _as_format(sound_frame, track):
                    container.mux(track.encode(piece))
            container.mux(track.encode(None))
    return path


def rotate_mp4(path: Path) -> Path:
    """Turn the film by a quarter clockwise as telephones do: by the matrix in its track header."""
    data = bytearray(path.read_bytes())
    at = (
        data.index(b"tkhd") + 4 + 40
    )  # ISO 14496-12, 8.3.2: 40 bytes of times, ids and layer before the matrix
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def picture(width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Return (h, w, 3) BGR: red on the left, blue on the right, a white block at the top left."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2] = RED_BGR
    image[:, width // 2 :] = (255, 0, 0)
    image[: height // 4, : width // 4] = 255
    return image


def write_image(path: Path, image: NDArray[np.integer], *parameters: int) -> Path:
    """Encode (h, w), (h, w, 3) or (h, w, 4) in the format of the suffix."""
    ok, data = cv2.imencode(path.suffix, image, list(parameters))
    assert ok
    path.write_bytes(data.tobytes())
    return path


def write_gif(path: Path, images: list[NDArray[np.uint8]]) -> Path:
    """Write an animation of BGR pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=5)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "bgr8"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def with_orientation(path: Path, orientation: int) -> Path:
    """Put an EXIF orientation into a JPEG."""
    data = path.read_bytes()
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHH", 1, 0x0112, 3, 1, orientation, 0) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    return path


def write_cmyk_jpeg(path: Path, cmyk: tuple[int, int, int, int]) -> Path:
    """Write 8x8 pixels of one colour as print shops do: four components, inverted, marked by Adobe.

    A flat block has only a DC coefficient, so the whole encoder is a table of nine codes of four bits.
    """
    segments = [
        (0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)),
        (0xDB, b"\0" + bytes([8] * 64)),  # 8 levels a step: the DC coefficient is value - 128
        (0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([n, 0x11, 0]) for n in (1, 2, 3, 4))),
        (0xC4, b"\0" + bytes([0, 0, 0, 9] + [0] * 12) + bytes(range(9))),  # nine codes of four bits
        (0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\0"),  # one code of one bit: end of block
        (0xDA, bytes([4]) + b"".join(bytes([n, 0]) for n in (1, 2, 3, 4)) + bytes([0, 63, 0])),
    ]
    bits = ""
    for value in cmyk:
        level = (255 - value) - 128
        size = abs(level).bit_length()
        bits += (
            f"{size:04b}"
            + (f"{level if level > 0 else level + (1 << size) - 1:0{size}b}" if size else "")
            + "0"
        )
    bits += "1" * (-len(bits) % 8)
    body = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    head = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(d) + 2) + d for m, d in segments)
    path.write_bytes(b"\xff\xd8" + head + body + b"\xff\xd9")
    return path


class MjpegServer:
    """A network camera on a port of 127.0.0.1, else a free one: one JPEG after the other as multipart HTTP.

    After `count` pictures it hangs up, or stalls with the line open. Nothing at all comes with count 0.
    """

    def __init__(
        self,
        image: NDArray[np.uint8],
        *,
        fps: float = 25,
        count: int | None = None,
        then: Literal["hang up", "stall"] = "hang up",
        port: int = 0,
    ) -> None:
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        self._over = threading.Event()
        over = self._over

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/video":
                    self.send_error(404)
                    return
                if count != 0:
                    self.send_response(200)
                    self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
                    self.end_headers()
                part = b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                sent = 0
                try:
                    while sent != count and not over.wait(1 / fps):
                        self.wfile.write(part + jpeg + b"\r\n")
                        sent += 1
                except OSError:
                    return  # the reader has gone
                if then == "stall":
                    over.wait()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/video"

    def __enter__(self) -> MjpegServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Hang up on everyone."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def write_asound_conf(directory: Path, frames: NDArray[np.int16]) -> Path:
    """Write an ALSA configuration without a sound card: microphones that play (n, 2) samples of 48 kHz.

    `recording` takes any format and hands out the bytes as they are, `stereo48` converts. PortAudio aborts
    the process where no `default` is defined. The null device behind them has no clock: it is all haste.
    """
    raw = directory / "recording.raw"
    raw.write_bytes(frames.astype("<i2").tobytes())
    conf = directory / "asound.conf"
    conf.write_text(f"""
pcm.quiet {{ type null }}
pcm.default {{ type null }}
pcm.recording {{ type file slave.pcm quiet file "/dev/null" infile "{raw}" format raw }}
pcm.stereo48 {{ type plug slave {{ pcm recording format S16_LE rate 48000 channels 2 }} }}
""")
    return conf


def _marked(at_s: float, mark_s: float) -> int:
    return int(mark_s - 1e-6 <= at_s < mark_s + 0.2 - 1e-6)


def _as_format(frame: av.AudioFrame, stream: av.AudioStream) -> list[av.AudioFrame]:
    """Convert to what the encoder takes, keeping the time stamp."""
    if stream.format.name == "fltp":
        return [frame]
    samples = np.clip(frame.to_ndarray()[0] * 32767, -32768, 32767).astype(np.int16)
    converted = av.AudioFrame.from_ndarray(samples[None], format=stream.format.name, layout="mono")
    converted.sample_rate, converted.time_base, converted.pts = frame.sample_rate, frame.time_base, frame.pts
    return [converted]
