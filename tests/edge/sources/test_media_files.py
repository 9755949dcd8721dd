"""Images, audio and video files: any content is read, or refused with one `MediaError`."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.sources.media_files import has_audio, kind_of, read_audio, read_image, read_video_frames
from tests.helpers import media


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("codec", media.WAV_CODECS.values())
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_wav_is_the_same_tone(tmp_path: Path, rate_hz: int, codec: str, channels: int) -> None:
    """8 to 32 bits, 8 to 96 kHz, mono to 5.1: one second of the same sine at 16 kHz."""
    samples = np.stack([media.tone(1, rate_hz=rate_hz)] * channels)
    sound = read_audio(media.write_sound(tmp_path / "t.wav", samples, rate_hz=rate_hz, codec=codec))
    assert sound.dtype == np.float32
    assert len(sound) == 16_000
    np.testing.assert_allclose(sound[100:-100], media.tone(1)[100:-100], atol=0.01)


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [("t.flac", "flac", 16_000), ("t.ogg", "libopus", 48_000), ("t.mp3", "libmp3lame", 44_100)],
)
def test_compressed_audio(tmp_path: Path, name: str, codec: str, rate_hz: int) -> None:
    """Flac, ogg and mp3 give the tone with its time and length, and are audio."""
    path = media.write_sound(tmp_path / name, media.tone(1, rate_hz=rate_hz), rate_hz=rate_hz, codec=codec)
    assert len(read_audio(path)) == pytest.approx(16_000, abs=1)
    np.testing.assert_allclose(read_audio(path)[500:15_000], media.tone(1)[500:15_000], atol=0.05)
    assert kind_of(path) == "audio"


def test_clipped_and_absurd_floats_stay_in_range(tmp_path: Path) -> None:
    """Float samples beyond 1, infinite or not a number are read within [-1, 1]."""
    samples = media.tone(0.5, amplitude=3.0)
    samples[100:103] = np.nan, np.inf, -np.inf
    sound = read_audio(media.write_sound(tmp_path / "t.wav", samples, codec="pcm_f32le"))
    assert np.abs(sound).max() == 1.0
    assert np.isfinite(sound).all()


def test_short_and_empty_audio(tmp_path: Path) -> None:
    """10 ms are 160 samples; a WAV header without samples and an empty file are refused."""
    assert len(read_audio(media.write_sound(tmp_path / "short.wav", media.tone(0.01)))) == 160
    with wave.open(str(tmp_path / "header.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    (tmp_path / "empty.wav").touch()
    for name in ("header.wav", "empty.wav", "missing.wav"):
        with pytest.raises(MediaError, match=rf"{name}: .+; .+"):
            read_audio(tmp_path / name)


def test_steps_of_a_video(tmp_path: Path) -> None:
    """`every_s` gives the first frame of every step; without it all frames are read, with their times."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=2.0, sound=False)
    frames = list(read_video_frames(clip))
    assert [frame.t_ns for frame in frames] == [40_000_000 * n for n in range(50)]
    assert frames[30].pixels.mean() == pytest.approx(60, abs=6)
    assert [frame.t_ns // 10**6 for frame in read_video_frames(clip, 0.5)] == [0, 520, 1000, 1520]


def test_rotated_video(tmp_path: Path) -> None:
    """A video of an upright phone is upright."""
    clip = media.rotate_mp4(media.write_clip(tmp_path / "c.mp4", seconds=0.2, size=(160, 120)))
    assert next(read_video_frames(clip)).pixels.shape == (160, 120, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".bmp", ".gif"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    """Every usual format gives RGB, red where it was red."""
    path = tmp_path / f"i{suffix}"
    if suffix == ".gif":
        media.write_gif(path, [media.picture(), media.picture()[:, ::-1]])
    else:
        media.write_image(path, media.picture())
    image = read_image(path)
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[40, 4], (255, 0, 0), atol=8)
    assert kind_of(path) == "image"
    assert not has_audio(path)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("grey", (76, 76, 76)), ("alpha", (255, 0, 0)), ("16 bits", (255, 0, 0)), ("1x1", (255, 0, 0))],
)
def test_image_depths(tmp_path: Path, form: str, expected: tuple[int, int, int]) -> None:
    """Grey, alpha, 16 bits and a single pixel become 8-bit RGB."""
    bgr = media.picture()
    images: dict[str, NDArray[np.integer]] = {
        "grey": np.full((48, 64), 76, np.uint8),
        "alpha": np.dstack([bgr, np.full((48, 64), 128, np.uint8)]),
        "16 bits": bgr.astype(np.uint16) * 257,
        "1x1": bgr[40:41, 4:5],
    }
    image = images[form]
    result = read_image(media.write_image(tmp_path / "i.png", image))
    assert result.shape == (*image.shape[:2], 3)
    assert tuple(result[-1, 0]) == expected


def test_cmyk_jpeg(tmp_path: Path) -> None:
    """Magenta ink comes out as magenta light."""
    image = read_image(media.write_cmyk_jpeg(tmp_path / "k.jpg", (0, 200, 50, 10)))
    np.testing.assert_allclose(image[4, 4], (245, 53, 197), atol=4)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    """The white block at the top left of the sensor is where the orientation puts it."""
    path = media.with_orientation(media.write_image(tmp_path / "i.jpg", media.picture()), orientation)
    assert read_image(path)[corner].min() > 200


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_huge_image_is_scaled(tmp_path: Path, suffix: str) -> None:
    """8000x4000 is read as 2048x1024."""
    path = media.write_image(tmp_path / f"i{suffix}", media.picture(8000, 4000))
    assert read_image(path).shape == (1024, 2048, 3)


def test_kinds_and_what_is_none(tmp_path: Path) -> None:
    """Content decides, not the suffix: video without audio, audio in an mp4, and text named as media."""
    mute = media.write_clip(tmp_path / "mute.mp4", seconds=0.2, sound=False)
    audio = media.write_clip(tmp_path / "audio.mp4", seconds=0.2, picture=False)
    assert (kind_of(mute), has_audio(mute)) == ("video", False)
    assert (kind_of(audio), has_audio(audio)) == ("audio", True)
    disguised = mute.rename(tmp_path / "disguised.jpg")
    assert kind_of(disguised) == "video"
    for name in ("text.mp4", "text.mp3", "text.txt", "list.m3u8"):
        (tmp_path / name).write_text(
            f"#EXTM3U\n#EXTINF:1,\n{audio}\n" if name == "list.m3u8" else "hello\n" * 500
        )
        with pytest.raises(MediaError, match=rf"{name}: .+; .+"):
            kind_of(tmp_path / name)
    with pytest.raises(MediaError, match="no frame"):
        list(read_video_frames(audio))
    with pytest.raises(MediaError, match="no audio track"):
        read_audio(disguised)


def test_broken_files_are_refused_or_read(tmp_path: Path) -> None:
    """Truncated and changed bytes give a result or a `MediaError`, never another error or a hang."""
    originals = [
        media.write_clip(tmp_path / "a.mp4", seconds=0.4),
        media.write_clip(tmp_path / "a.mkv", seconds=0.4),
        media.write_clip(tmp_path / "a.mpg", seconds=0.4),
        media.write_sound(tmp_path / "a.wav", media.tone(0.2)),
        media.write_sound(tmp_path / "a.flac", media.tone(0.2), codec="flac"),
        media.write_image(tmp_path / "a.jpg", media.picture()),
        media.write_image(tmp_path / "a.png", media.picture()),
    ]
    chance = random.Random(7)
    outcomes = []
    for original in originals:
        data = original.read_bytes()
        for _ in range(12):
            broken = bytearray(data[: chance.randrange(len(data))] if chance.random() < 0.5 else data)
            for _ in range(chance.randrange(20) if broken else 0):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            path = tmp_path / f"broken{original.suffix}"
            path.write_bytes(broken)
            for read in (kind_of, read_audio, read_image, lambda p: list(read_video_frames(p))):
                try:
                    read(path)
                    outcomes.append(True)
                except MediaError:
                    outcomes.append(False)
    assert 0.1 < np.mean(outcomes) < 0.9


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tiff"])
def test_cut_image_is_refused(tmp_path: Path, suffix: str) -> None:
    """Half an image is an error, not an image with a grey half."""
    path = tmp_path / f"i{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    media.write_gif(path, [noise]) if suffix == ".gif" else media.write_image(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=";"):
        read_image(path)


def test_both_ffmpegs_live_in_one_process(tmp_path: Path) -> None:
    """OpenCV and PyAV each bring FFmpeg libraries; in either order of import both decode without output."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=0.4)
    decode = {
        "cv2": "import cv2; assert cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG).read()[0]",
        "av": "import av; c = av.open(sys.argv[1]); assert list(c.decode(video=0)) and c.close() is None",
    }
    for first, second in (("cv2", "av"), ("av", "cv2")):
        code = "\n".join(["import sys", decode[first], decode[second], decode[first]])
        done = subprocess.run([sys.executable, "-c", code, clip], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["fifo", "directory", "device"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    """A FIFO without a writer, a directory and a device are refused at once."""
    path = {"fifo": tmp_path / "pipe.mp4", "directory": tmp_path, "device": Path("/dev/zero")}[kind]
    if kind == "fifo":
        os.mkfifo(path)
    for read in (kind_of, read_image, read_audio, has_audio):
        with pytest.raises(MediaError, match="not a regular file"):
            read(path)


def test_video_of_too_many_pixels_is_refused(tmp_path: Path) -> None:
    """A frame above 8K is refused before it is decoded."""
    path = tmp_path / "huge.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8192, 6144, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(8192, 6144, "yuvj420p")))
        container.mux(stream.encode(None))
    for read in (kind_of, lambda path: next(read_video_frames(path))):
        with pytest.raises(MediaError, match=r"huge\.mkv: frames of 8192x6144 pixels; 32 megapixels"):
            read(path)
