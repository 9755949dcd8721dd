"""Files: what is read from them, and that they are replayed in step, on time and again and again."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DeviceError, MediaError
from edge.sources.camera import open_camera
from edge.sources.microphone import open_microphone
from edge.sources.replay import (
    FrameRateLimiter,
    has_sound,
    kind_of,
    read_image,
    read_sound,
    read_video_frames,
)
from edge.values import AudioChunk, Frame, Source
from tests.helpers import media

SIZE = {"fps": 30, "width": 640, "height": 480}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two seconds of darkness and silence with a flash and a beep at 1.0 s."""
    return media.write_clip(tmp_path_factory.mktemp("clip") / "marked.mp4", mark_s=1.0)


def brightest_s(frames: list[Frame]) -> float:
    return next(frame.t_ns for frame in frames if frame.pixels.mean() > 128) / 1e9


def loudest_s(chunks: list[AudioChunk]) -> float:
    for chunk in chunks:
        loud = np.flatnonzero(np.abs(chunk.samples) > 0.2)
        if len(loud):
            return chunk.t_ns / 1e9 + loud[0] / 16_000
    raise AssertionError("no beep")


def test_late_microphone_joins_the_camera(marked: Path) -> None:
    """A microphone opened 0.3 s late misses nothing; a camera opened after the end gets nothing."""
    with_lag = time.monotonic() + 0.3
    camera = open_camera(f"file:{marked}", **SIZE)
    frames = iter(camera)
    first = next(frames)
    while time.monotonic() < with_lag:
        next(frames)
    microphone = open_microphone(f"file:{marked}")
    chunks = list(microphone)
    microphone.close()
    late = open_camera(f"file:{marked}", **SIZE)
    assert list(late) == [], "the file is over for a camera that is opened again at its end"
    late.close()
    camera.close()
    assert loudest_s(chunks) - first.t_ns / 1e9 == pytest.approx(1.0, abs=0.02)


def test_picture_and_sound_are_in_step(marked: Path) -> None:
    """Camera and microphone read side by side date flash and beep within 20 ms of each other."""
    camera, microphone = open_camera(f"file:{marked}", **SIZE), open_microphone(f"file:{marked}")
    frames: list[Frame] = []
    chunks: list[AudioChunk] = []
    drain_together((camera, frames), (microphone, chunks))
    assert abs(brightest_s(frames) - loudest_s(chunks)) < 0.02


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mpg"])
def test_sound_that_starts_later_stays_in_step(tmp_path: Path, suffix: str) -> None:
    """Time stamps that start at 3 s, and sound that starts after the picture, change nothing."""
    clip = media.write_clip(tmp_path / f"clip{suffix}", mark_s=1.0, offset_s=3.0, sound_offset_s=0.4)
    flash_s = brightest_s(list(read_video_frames(clip)))
    beep_s = np.flatnonzero(np.abs(read_sound(clip)) > 0.2)[0] / 16_000
    assert flash_s == pytest.approx(1.0, abs=0.02)
    assert abs(flash_s - beep_s) < 0.02


@pytest.mark.parametrize("opener", [lambda token: open_camera(token, **SIZE), open_microphone])
def test_nothing_comes_before_its_time(
    marked: Path, opener: Callable[[str], Source[Frame] | Source[AudioChunk]]
) -> None:
    """Every frame comes at or after its own time, every chunk after its last sample, both hardly later."""
    source = opener(f"file:{marked}")
    delays_s = []
    for item in itertools.islice(source, 25):
        length_ns = 0 if isinstance(item, Frame) else len(item.samples) * 62_500
        delays_s.append((time.monotonic_ns() - item.t_ns - length_ns) / 1e9)
    source.close()
    assert min(delays_s) >= 0
    assert float(np.median(delays_s)) < 0.05


def test_at_most_fps_frames(tmp_path: Path) -> None:
    """Of 25 pictures a second, 10 a second are given out, evenly."""
    camera = open_camera(
        f"file:{media.write_clip(tmp_path / 'c.mp4', sound=False)}", fps=10, width=64, height=64
    )
    times_ns = [frame.t_ns for frame in camera]
    camera.close()
    assert 19 <= len(times_ns) <= 20
    assert max(np.diff(times_ns)) <= 120_000_000


@pytest.mark.parametrize("fps", [5, 10, 12.5, 25, 30])
def test_thinner_keeps_the_rate(fps: float) -> None:
    """With 30 pictures a second and a jitter of 3 ms the average rate is right within a frame."""
    jitter = random.Random(1)
    thinner = FrameRateLimiter(fps)
    taken = sum(thinner.takes(n * 33_333_333 + jitter.randrange(3_000_000)) for n in range(300))
    assert abs(taken - 10 * fps) <= 1


def test_slow_reader_misses_frames(tmp_path: Path) -> None:
    """A reader who needs 0.3 s for a frame gets new ones, not a growing row of old ones."""
    camera = open_camera(
        f"file:{media.write_clip(tmp_path / 'c.mp4', sound=False)}", fps=25, width=64, height=64
    )
    ages_s = []
    dropped = 0
    for frame in camera:
        ages_s.append((time.monotonic_ns() - frame.t_ns) / 1e9)
        dropped += frame.dropped
        busy_until = time.monotonic() + 0.3
        while time.monotonic() < busy_until:
            pass
    camera.close()
    assert 5 <= len(ages_s) <= 9
    assert max(ages_s) < 0.1
    assert 40 <= len(ages_s) + dropped <= 50  # what was missed after the last one nobody heard of


def test_loop_has_no_drift(tmp_path: Path) -> None:
    """Lap after lap, the flash and the beep come exactly one period later, in picture and sound alike."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=1.0, mark_s=0.5)
    camera, microphone = open_camera(f"file:{clip}?loop", **SIZE), open_microphone(f"file:{clip}?loop")
    frames: list[Frame] = []
    chunks: list[AudioChunk] = []
    drain_together((camera, frames), (microphone, chunks), limit_s=3.4)
    flashes_s = [
        b.t_ns / 1e9 for a, b in itertools.pairwise(frames) if a.pixels.mean() < 128 <= b.pixels.mean()
    ]
    loud = [chunk.t_ns / 1e9 for chunk in chunks if np.abs(chunk.samples).max() > 0.2]
    beeps_s = [loud[0], *(b for a, b in itertools.pairwise(loud) if b - a > 0.1)]
    assert len(flashes_s) == len(beeps_s) == 3
    assert np.ptp(np.diff(flashes_s)) < 1e-6
    assert np.abs(np.array(flashes_s) - beeps_s).max() < 0.025  # a chunk is 20 ms
    steps_ns = np.diff([chunk.t_ns for chunk in chunks])
    assert set(steps_ns) == {20_000_000}, "sound is continuous over the seam"


@pytest.mark.parametrize("speed", [0.5, 4])
def test_speed_stretches_picture_and_sound_alike(tmp_path: Path, speed: float) -> None:
    """At another speed flash and beep stay together, a period lasts so much shorter or longer."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=1.0, mark_s=0.5)
    token = f"file:{clip}?loop&speed={speed}"
    for _attempt in range(3):  # a machine that stalls is a slow reader, who loses pictures
        camera, microphone = open_camera(token, **{**SIZE, "fps": 400.0}), open_microphone(token)
        frames: list[Frame] = []
        chunks: list[AudioChunk] = []
        drain_together((camera, frames), (microphone, chunks), limit_s=1.9 / speed)
        if np.ptp(np.diff([frame.t_ns for frame in frames])) < 1_000_000:
            break
    flashes_s = [
        b.t_ns / 1e9 for a, b in itertools.pairwise(frames) if a.pixels.mean() < 128 <= b.pixels.mean()
    ]
    loud = [chunk.t_ns / 1e9 for chunk in chunks if np.abs(chunk.samples).max() > 0.2]
    beeps_s = [loud[0], *(b for a, b in itertools.pairwise(loud) if b - a > 0.1 / speed)]
    assert len(flashes_s) == len(beeps_s) == 2
    assert np.diff(flashes_s)[0] == pytest.approx(1 / speed, abs=1e-6)
    assert np.abs(np.array(flashes_s) - beeps_s).max() < 0.025 / speed
    steps_ns = np.diff([chunk.t_ns for chunk in chunks])
    assert set(steps_ns) == {round(20_000_000 / speed)}


@pytest.mark.parametrize("query", ["?speed=0", "?speed=100", "?speed=-1", "?loop&loop=", "?fast"])
def test_other_options_are_part_of_the_name(tmp_path: Path, query: str) -> None:
    """What is no option is looked for as a file, and said to be missing."""
    with pytest.raises(DeviceError, match=re.escape(query)):
        open_camera(f"file:{tmp_path}/c.mp4{query}", **SIZE)


def test_reopened_microphone_joins_the_camera(tmp_path: Path) -> None:
    """A microphone that is closed and opened again goes on where the camera is, not from the start."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=4.0, mark_s=2.0)
    camera = open_camera(f"file:{clip}", **SIZE)
    frames = iter(camera)
    start_ns = next(frames).t_ns
    first = open_microphone(f"file:{clip}")
    next(iter(first))
    first.close()
    while next(frames).t_ns < start_ns + 1_300_000_000:
        pass
    second = open_microphone(f"file:{clip}")
    chunks = list(itertools.islice(second, 50))
    second.close()
    camera.close()
    assert 1.25e9 < chunks[0].t_ns - start_ns < 1.6e9
    assert loudest_s(chunks) - start_ns / 1e9 == pytest.approx(2.0, abs=0.02)


def test_a_closed_file_starts_anew(marked: Path) -> None:
    """When nobody plays a file any more, the next reader gets it from its beginning."""
    for _ in range(2):
        microphone = open_microphone(f"file:{marked}")
        chunks = list(itertools.islice(microphone, 55))
        microphone.close()
        del microphone
        assert loudest_s(chunks) - chunks[0].t_ns / 1e9 == pytest.approx(1.0, abs=0.01)


def test_live_chunks_are_the_offline_sound(marked: Path) -> None:
    """Replayed chunks put together are what `read_sound` returns, sample for sample."""
    microphone = open_microphone(f"file:{marked}")
    live = np.concatenate([chunk.samples for chunk in microphone])
    microphone.close()
    np.testing.assert_array_equal(live, read_sound(marked))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize("codec", media.WAV_CODECS.values())
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_wav_is_the_same_tone(tmp_path: Path, rate_hz: int, codec: str, channels: int) -> None:
    """8 to 32 bits, 8 to 96 kHz, mono to 5.1: one second of the same sine at 16 kHz."""
    samples = np.stack([media.tone(1, rate_hz=rate_hz)] * channels)
    sound = read_sound(media.write_sound(tmp_path / "t.wav", samples, rate_hz=rate_hz, codec=codec))
    assert sound.dtype == np.float32
    assert len(sound) == 16_000
    np.testing.assert_allclose(sound[100:-100], media.tone(1)[100:-100], atol=0.01)


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz"),
    [("t.flac", "flac", 16_000), ("t.ogg", "libopus", 48_000), ("t.mp3", "libmp3lame", 44_100)],
)
def test_compressed_sound(tmp_path: Path, name: str, codec: str, rate_hz: int) -> None:
    """Flac, ogg and mp3 give the tone at its time and length; a picture is not in them."""
    path = media.write_sound(tmp_path / name, media.tone(1, rate_hz=rate_hz), rate_hz=rate_hz, codec=codec)
    assert len(read_sound(path)) == pytest.approx(16_000, abs=1)
    np.testing.assert_allclose(read_sound(path)[500:15_000], media.tone(1)[500:15_000], atol=0.05)
    assert kind_of(path) == "audio"


def test_clipped_and_absurd_floats_stay_in_range(tmp_path: Path) -> None:
    """Float sound beyond 1, infinite or not a number comes out within [-1, 1]."""
    samples = media.tone(0.5, amplitude=3.0)
    samples[100:103] = np.nan, np.inf, -np.inf
    sound = read_sound(media.write_sound(tmp_path / "t.wav", samples, codec="pcm_f32le"))
    assert np.abs(sound).max() == 1.0
    assert np.isfinite(sound).all()


def test_short_and_empty_sound(tmp_path: Path) -> None:
    """10 ms are 160 samples; a WAV header without samples and an empty file are refused."""
    assert len(read_sound(media.write_sound(tmp_path / "short.wav", media.tone(0.01)))) == 160
    with wave.open(str(tmp_path / "header.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    (tmp_path / "empty.wav").touch()
    for name in ("header.wav", "empty.wav", "missing.wav"):
        with pytest.raises(MediaError, match=rf"{name}: .+; .+"):
            read_sound(tmp_path / name)


def test_steps_of_a_video(tmp_path: Path) -> None:
    """`every_s` gives the first picture of every step; without it all come, with their times."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=2.0, sound=False)
    frames = list(read_video_frames(clip))
    assert [frame.t_ns for frame in frames] == [40_000_000 * n for n in range(50)]
    assert frames[30].pixels.mean() == pytest.approx(60, abs=6)
    assert [frame.t_ns // 10**6 for frame in read_video_frames(clip, 0.5)] == [0, 520, 1000, 1520]


def test_turned_video(tmp_path: Path) -> None:
    """A film from an upright telephone stands upright."""
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
    assert not has_sound(path)


@pytest.mark.parametrize(
    ("form", "expected"),
    [("grey", (76, 76, 76)), ("alpha", (255, 0, 0)), ("16 bits", (255, 0, 0)), ("1x1", (255, 0, 0))],
)
def test_image_depths(tmp_path: Path, form: str, expected: tuple[int, int, int]) -> None:
    """Grey, alpha, 16 bits and a single pixel become 8-bit RGB."""
    bgr = media.picture()
    image: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = {
        "grey": np.full((48, 64), 76, np.uint8),
        "alpha": np.dstack([bgr, np.full((48, 64), 128, np.uint8)]),
        "16 bits": bgr.astype(np.uint16) * 257,
        "1x1": bgr[40:41, 4:5],
    }[form]
    result = read_image(media.write_image(tmp_path / "i.png", image))
    assert result.shape == (*image.shape[:2], 3)
    assert tuple(result[-1, 0]) == expected


def test_cmyk_jpeg(tmp_path: Path) -> None:
    """Magenta ink comes out as magenta light."""
    image = read_image(media.write_cmyk_jpeg(tmp_path / "k.jpg", (0, 200, 50, 10)))
    np.testing.assert_allclose(image[4, 4], (245, 53, 197), atol=4)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_exif_orientation(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    """The white block at the top left of the sensor lands where the camera says."""
    path = media.with_orientation(media.write_image(tmp_path / "i.jpg", media.picture()), orientation)
    assert read_image(path)[corner].min() > 200


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_huge_image_is_scaled(tmp_path: Path, suffix: str) -> None:
    """8000x4000 comes as 2048x1024."""
    path = media.write_image(tmp_path / f"i{suffix}", media.picture(8000, 4000))
    assert read_image(path).shape == (1024, 2048, 3)


def test_kinds_and_what_is_none(tmp_path: Path) -> None:
    """Content decides, not the suffix: a mute film, a sound in an mp4, and text that claims to be one."""
    mute = media.write_clip(tmp_path / "mute.mp4", seconds=0.2, sound=False)
    heard = media.write_clip(tmp_path / "heard.mp4", seconds=0.2, picture=False)
    assert (kind_of(mute), has_sound(mute)) == ("video", False)
    assert (kind_of(heard), has_sound(heard)) == ("audio", True)
    disguised = mute.rename(tmp_path / "disguised.jpg")
    assert kind_of(disguised) == "video"
    for name in ("text.mp4", "text.mp3", "text.txt", "list.m3u8"):
        (tmp_path / name).write_text(
            f"#EXTM3U\n#EXTINF:1,\n{heard}\n" if name == "list.m3u8" else "hello\n" * 500
        )
        with pytest.raises(MediaError, match=rf"{name}: .+; .+"):
            kind_of(tmp_path / name)
    with pytest.raises(MediaError, match="no picture"):
        list(read_video_frames(heard))
    with pytest.raises(MediaError, match="no sound track"):
        read_sound(disguised)


def test_broken_files_are_refused_or_read(tmp_path: Path) -> None:
    """Cut and flipped bytes give a result or a `MediaError`, never another error or a hang."""
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
            for read in (kind_of, read_sound, read_image, lambda p: list(read_video_frames(p))):
                try:
                    read(path)
                    outcomes.append(True)
                except MediaError:
                    outcomes.append(False)
    assert 0.1 < np.mean(outcomes) < 0.9


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tiff"])
def test_cut_image_is_refused(tmp_path: Path, suffix: str) -> None:
    """Half a picture is an error, not a picture with a grey half."""
    path = tmp_path / f"i{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    media.write_gif(path, [noise]) if suffix == ".gif" else media.write_image(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=";"):
        read_image(path)


def test_both_ffmpegs_live_in_one_process(tmp_path: Path) -> None:
    """OpenCV and PyAV each bring FFmpeg libraries; in either order of import both decode, and are quiet."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=0.4)
    decode = {
        "cv2": "import cv2; assert cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG).read()[0]",
        "av": "import av; c = av.open(sys.argv[1]); assert list(c.decode(video=0)) and c.close() is None",
    }
    for first, second in (("cv2", "av"), ("av", "cv2")):
        code = "\n".join(["import sys", decode[first], decode[second], decode[first]])
        done = subprocess.run([sys.executable, "-c", code, clip], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_cannot_be_a_device(tmp_path: Path) -> None:
    """A missing file is `no_device`; one without the wanted stream is `unsupported`."""
    sound = media.write_sound(tmp_path / "t.wav", media.tone(0.1))
    mute = media.write_clip(tmp_path / "mute.mp4", seconds=0.2, sound=False)
    for opener, token, reason in (
        (lambda t: open_camera(t, **SIZE), f"file:{sound}", "unsupported"),
        (open_microphone, f"file:{mute}", "unsupported"),
        (open_microphone, f"file:{tmp_path}/none.wav", "no_device"),
    ):
        with pytest.raises(DeviceError, match=f"^{token}: .+; ") as caught:
            opener(token)
        assert caught.value.reason == reason


def drain_together(
    *pairs: tuple[Source[Frame], list[Frame]] | tuple[Source[AudioChunk], list[AudioChunk]],
    limit_s: float = 30.0,
) -> None:
    """Read sources side by side to their ends, or close them after `limit_s`."""
    threads = [threading.Thread(target=lambda s=s, out=out: out.extend(s)) for s, out in pairs]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    for source, _ in pairs:
        source.close()
    for thread in threads:
        thread.join(2)
        assert not thread.is_alive()
