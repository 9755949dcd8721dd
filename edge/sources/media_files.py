"""Reads image, audio and video files of any content, or raises one clear `MediaError`.

PyAV decodes audio and video. OpenCV decodes images, and PyAV those that OpenCV cannot. Time counts from the
earliest stream of a file, so that its video and audio have the same zero.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, cast

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # read when cv2 is imported, not later
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "4")  # seconds, as `live_camera.FROZEN_S`
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 27))  # a 100-kB bomb can claim a gigapixel

import av
import av.error
import cv2
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from edge.errors import MediaError
from edge.values import SAMPLE_RATE_HZ, Float32, Frame, UInt8

MAX_SIDE_PX = 2048
MAX_IMAGE_PIXELS = 1 << 27  # as for OpenCV
MAX_VIDEO_PIXELS = 1 << 25  # 8K; the decoder holds several frames
NOT_REGULAR = "not a regular file; give an image, audio or video file"
MAX_GAP_S = 10.0  # a larger jump of the time stamps is damage and not filled with silence
_LATE_GAP_S = 0.05

# The permitted formats. FFmpeg also reads playlists, subtitles and text as "video"; a playlist that is named
# clip.mp4 would make it open other files and addresses.
_CONTAINERS = (
    "image2,3gp,aac,ac3,aiff,amr,amrnb,amrwb,apng,asf,au,avi,caf,dv,eac3,flac,flv,gif,h264,hevc,ivf,"
    "m4v,matroska,mjpeg,mov,mp3,mpeg,mpegts,mpegvideo,ogg,rm,tta,voc,w64,wav,webm,wv,"
    "bmp_pipe,jpeg_pipe,jpegls_pipe,pam_pipe,pbm_pipe,pgm_pipe,png_pipe,ppm_pipe,psd_pipe,qoi_pipe,sgi_pipe,"
    "tiff_pipe,webp_pipe"
)
# `pattern_type`: an image named img%03d.jpg is that file, not a sequence of files.
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "pattern_type": "none"}
_DECODE_ERRORS = (av.error.FFmpegError, ValueError, TypeError, OverflowError, EOFError, MemoryError)
_IMAGE_REMEDY = "save it again as JPEG or PNG"
_MEDIA_REMEDY = "convert it, for example to MP4 or WAV"


def kind_of(path: Path) -> Literal["image", "audio", "video"]:
    """Return the kind of a file by its content; audio with a cover image is audio."""
    with open_media(path) as container:
        if _is_image(container):
            return "image"
        stream = video_stream(container)
        if stream is not None and next(decode_video(container, stream), None) is not None:
            return "video"
        if container.streams.audio:
            return "audio"
    raise MediaError(f"{path}: it has no image, video or audio that can be decoded; {_MEDIA_REMEDY}")


def has_audio(path: Path) -> bool:
    """Return whether an audio or video file has an audio track; False for images."""
    with open_media(path) as container:
        return bool(container.streams.audio)


def read_audio(path: Path) -> Float32:
    """Read an audio file or the audio track of a video: (n,) float32 in [-1, 1] at 16 kHz, mono.

    Sample 0 is the zero of the file: if the video starts first, the audio begins with silence.
    Raises `MediaError` if the file has no audio or none of it can be decoded.
    """
    with open_media(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path}: has no audio track; use an audio file or a video with audio")
        blocks = list(audio_blocks(container))
    if not blocks:
        raise MediaError(f"{path}: its audio track is empty or damaged; {_MEDIA_REMEDY}")
    return np.concatenate(blocks)


def read_image(path: Path) -> UInt8:
    """Read an image: (h, w, 3) uint8 RGB, upright, at most 2048 pixels on the long side.

    Grey, alpha, CMYK and 16 bits become 8-bit RGB; of an animation the first frame is read.
    Raises `MediaError` for a file that is empty, cut off or not an image.
    """
    data = _read_bytes(path)
    flags = cv2.IMREAD_COLOR
    if data.startswith(b"\xff\xd8"):
        long_side_px, is_complete = _scan_jpeg(data)
        # JPEG can be decoded at 1/2 and 1/4 of its size: 8000x8000 pixels would need 192 MB.
        for divisor, reduced in ((2, cv2.IMREAD_REDUCED_COLOR_2), (4, cv2.IMREAD_REDUCED_COLOR_4)):
            if long_side_px // divisor >= MAX_SIDE_PX:
                flags = reduced
    else:
        # The decoder itself refuses PNG, TIFF, WebP and BMP that end early.
        is_complete = not data.startswith(b"GIF8") or data.rstrip(b"\0").endswith(b";")
    if not is_complete:
        raise MediaError(f"{path}: the image is cut off; copy it again")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise MediaError(f"{path}: cannot be decoded ({error.err}); {_IMAGE_REMEDY}") from None
    if bgr is None:
        return _limit_size(_first_frame(path))
    return _limit_size(cast(UInt8, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))


def read_video_frames(path: Path, every_s: float | None = None) -> Iterator[Frame]:
    """Read the frames of a video, all or the first one of every `every_s`; `t_ns` is the time in the file.

    Damaged parts are skipped. Raises `MediaError` if there is no frame at all.
    """
    with open_media(path) as container:
        stream = video_stream(container)
        due_s, found = 0.0, False
        for at_s, image in decode_video(container, stream) if stream is not None else ():
            if every_s is not None:
                # Half a millisecond: 0.3 s is stored as 299.97 ms in some time bases.
                if at_s < due_s - 0.0005:
                    continue
                due_s = (np.floor(at_s / every_s + 1e-3) + 1) * every_s
            found = True
            yield Frame(to_rgb(image), round(at_s * 1e9))
    if not found:
        raise MediaError(f"{path}: no frame in it can be decoded; {_MEDIA_REMEDY}")


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Open a file for `decode_video` and `audio_blocks`; every error of the decoder becomes `MediaError`."""
    _read_bytes(path, limit=1)
    try:
        # `file:` keeps FFmpeg from reading a protocol out of the name.
        with av.open(
            f"file:{path}",
            options=_OPTIONS,
            metadata_errors="ignore",
        ) as container:
            if container.metadata.get("major_brand", "").strip() in ("heic", "heix", "mif1", "msf1"):
                # FFmpeg would return one tile of the image.
                raise MediaError(f"{path}: HEIC images are not supported; {_IMAGE_REMEDY}")
            yield container
    except MediaError as error:
        if str(error).startswith(str(path)):
            raise
        raise MediaError(f"{path}: {error}") from None
    except _DECODE_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError(f"{path}: not an image, audio or video file ({reason}); {_MEDIA_REMEDY}") from None


def video_stream(container: InputContainer) -> VideoStream | None:
    """Return the video of a container, or None; a cover image is not a video."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if (context := stream.codec_context) is not None:  # None: an unknown codec
                limit = MAX_IMAGE_PIXELS if _is_image(container) else MAX_VIDEO_PIXELS
                if context.width * context.height > limit:
                    raise MediaError(
                        f"frames of {context.width}x{context.height} pixels; "
                        f"{limit >> 20} megapixels are supported"
                    )
                context.options = {"max_pixels": str(limit)}  # the size may change inside the file
            stream.thread_type = "AUTO"
            return stream
    return None


def decode_video(
    container: InputContainer, stream: VideoStream, *, from_s: float = 0.0
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decode the frames from `from_s` on, unconverted, each with its time in the file."""
    start_s = _start_s(container)
    _seek(container, from_s + start_s)
    step_s = float(1 / stream.average_rate) if stream.average_rate else 0.04
    at_s = from_s - step_s
    for frame in _decoded(container, stream):
        # Raw streams have no time stamps: count frames.
        at_s = frame.time - start_s if frame.time is not None else at_s + step_s
        if at_s >= from_s:
            yield at_s, frame


def to_rgb(frame: av.VideoFrame) -> UInt8:
    """Convert a decoded frame to (h, w, 3) uint8 RGB, rotated as its metadata requires."""
    rgb = cast(UInt8, frame.to_ndarray(format="rgb24"))
    turns = round(frame.rotation / 90) % 4  # counter-clockwise, as in np.rot90
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def audio_blocks(container: InputContainer, *, from_s: float = 0.0) -> Iterator[Float32]:
    """Decode the first audio track from `from_s` on: blocks of (n,) float32, 16 kHz, mono, without gaps.

    Missing time at the start or between packets is filled with silence.
    """
    stream = container.streams.audio[0]
    start_s = _start_s(container)
    _seek(container, from_s + start_s)
    first = round(from_s * SAMPLE_RATE_HZ)
    index = first
    for at_s, block in _resampled(_decoded(container, stream)):
        if at_s is not None:
            gap = round((at_s - start_s) * SAMPLE_RATE_HZ) - index
            if gap < 0 and index == first:
                block = block[-gap:]  # before `from_s`: seeking stops at an earlier packet
            elif (index == first and gap > 0) or gap > _LATE_GAP_S * SAMPLE_RATE_HZ:
                gap = min(gap, int(MAX_GAP_S * SAMPLE_RATE_HZ))
                block = np.concatenate((np.zeros(gap, np.float32), block))
        if len(block):
            index += len(block)
            yield block


def duration_s(container: InputContainer) -> float:
    """Return the end of the last packet, without decoding; the duration in the header may be an estimate."""
    start_s, end_s = _start_s(container), 0.0
    with suppress(av.error.FFmpegError):  # cut off: it ends where reading ends
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start_s)
    return end_s


def _resampled(frames: Iterator[av.AudioFrame]) -> Iterator[tuple[float | None, Float32]]:
    """Convert to mono blocks, each with its time; the time is None for the rest of the resampler."""
    resampler = None
    shape = None
    for frame in frames:
        if shape != (frame.sample_rate, frame.layout.name, frame.format.name):
            if resampler is not None:
                yield from ((None, _mono(rest)) for rest in resampler.resample(None))
            shape = (frame.sample_rate, frame.layout.name, frame.format.name)
            resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE_HZ)
        assert resampler is not None
        for block in resampler.resample(frame):
            yield block.time, _mono(block)
    if resampler is not None:
        yield from ((None, _mono(rest)) for rest in resampler.resample(None))


def _mono(frame: av.AudioFrame) -> Float32:
    samples = frame.to_ndarray().mean(axis=0)  # (channels, n) -> (n,)
    mono: Float32 = np.clip(np.nan_to_num(samples), -1, 1).astype(np.float32)
    return mono


def _decoded(container: InputContainer, stream: VideoStream | av.AudioStream) -> Iterator[Any]:
    """Decode a stream to its end, packet by packet, so that a damaged packet does not affect others."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _seek(container: InputContainer, to_s: float) -> None:
    if to_s <= _start_s(container):
        return
    with suppress(av.error.FFmpegError):  # raw streams cannot seek: decode from the beginning and skip
        container.seek(int(to_s * 1e6))


def _start_s(container: InputContainer) -> float:
    return (container.start_time or 0) / 1e6


def _is_image(container: InputContainer) -> bool:
    return container.format.name.endswith("_pipe") or container.format.name in ("gif", "apng", "image2")


def _first_frame(path: Path) -> UInt8:
    with open_media(path) as container:
        stream = video_stream(container) if _is_image(container) else None
        first = next(decode_video(container, stream), None) if stream is not None else None
        if first is None:
            raise MediaError(f"{path}: not an image; {_IMAGE_REMEDY}")
        return to_rgb(first[1])


def _limit_size(rgb: UInt8) -> UInt8:
    height, width = rgb.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cast(UInt8, cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))


def _scan_jpeg(data: bytes) -> tuple[int, bool]:
    """Return the longer side in pixels, and whether the image reaches its end marker.

    libjpeg fills missing parts with grey and reports no error. Marker layout: ITU-T T.81, annex B.
    """
    at, long_side_px = 2, 0
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xFF:
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sides = data[at + 5 : at + 7], data[at + 7 : at + 9]
            long_side_px = max(int.from_bytes(side) for side in sides)
        if marker == 0xDA:
            return long_side_px, b"\xff\xd9" in data[at:]
        at += 2 + length
    return long_side_px, False


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read_bytes(path: Path, limit: int = -1) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO would block until a writer opens it.
        with open(path, "rb", opener=_open_nonblocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise MediaError(f"{path}: {NOT_REGULAR}")
            data = file.read(limit)
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise MediaError(f"{path}: {NOT_REGULAR}") from None
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if not data:
        raise MediaError(f"{path}: the file is empty; copy it again")
    return data
