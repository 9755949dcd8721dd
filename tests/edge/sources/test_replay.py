"""Files as devices are replayed in step, on time and in loops."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DeviceError
from edge.sources.camera import open_camera
from edge.sources.media_files import read_audio, read_video_frames
from edge.sources.microphone import open_microphone
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
            return chunk.t_ns / 1e9 + float(loud[0]) / 16_000
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


def test_image_and_audio_are_in_step(marked: Path) -> None:
    """Camera and microphone, read at the same time, have flash and beep within 20 ms of each other."""
    camera, microphone = open_camera(f"file:{marked}", **SIZE), open_microphone(f"file:{marked}")
    frames: list[Frame] = []
    chunks: list[AudioChunk] = []
    drain_together((camera, frames), (microphone, chunks))
    assert abs(brightest_s(frames) - loudest_s(chunks)) < 0.02


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mpg"])
def test_audio_that_starts_later_stays_in_step(tmp_path: Path, suffix: str) -> None:
    """Time stamps that start at 3 s, and audio that starts after the video, change nothing."""
    clip = media.write_clip(tmp_path / f"clip{suffix}", mark_s=1.0, offset_s=3.0, sound_offset_s=0.4)
    flash_s = brightest_s(list(read_video_frames(clip)))
    beep_s = np.flatnonzero(np.abs(read_audio(clip)) > 0.2)[0] / 16_000
    assert flash_s == pytest.approx(1.0, abs=0.02)
    assert abs(flash_s - beep_s) < 0.02


@pytest.mark.parametrize("opener", [lambda token: open_camera(token, **SIZE), open_microphone])
def test_nothing_comes_before_its_time(
    marked: Path, opener: Callable[[str], Source[Frame | AudioChunk]]
) -> None:
    """Every frame comes at its time, every chunk at the time of its last sample, and not much later."""
    source = opener(f"file:{marked}")
    delays_s = []
    for item in itertools.islice(source, 25):
        length_ns = 0 if isinstance(item, Frame) else len(item.samples) * 62_500
        delays_s.append((time.monotonic_ns() - item.t_ns - length_ns) / 1e9)
    source.close()
    assert min(delays_s) >= 0
    assert float(np.median(delays_s)) < 0.05


def test_at_most_fps_frames(tmp_path: Path) -> None:
    """Of 25 frames a second, 10 are delivered, evenly."""
    camera = open_camera(
        f"file:{media.write_clip(tmp_path / 'c.mp4', sound=False)}", fps=10, width=64, height=64
    )
    times_ns = [frame.t_ns for frame in camera]
    camera.close()
    assert 19 <= len(times_ns) <= 20
    assert max(np.diff(times_ns)) <= 120_000_000


def test_slow_reader_misses_frames(tmp_path: Path) -> None:
    """A reader that needs 0.3 s for a frame gets new frames and no growing queue of old ones."""
    camera = open_camera(
        f"file:{media.write_clip(tmp_path / 'c.mp4', sound=False)}", fps=25, width=64, height=64
    )
    ages_s = []
    dropped = 0
    for frame in camera:
        ages_s.append((time.monotonic_ns() - frame.t_ns) / 1e9)
        dropped += frame.dropped
        time.sleep(0.3)  # the reader's own work
    camera.close()
    assert 5 <= len(ages_s) <= 9
    assert max(ages_s) < 0.3  # a frame that waited for the reader would be older
    assert 40 <= len(ages_s) + dropped <= 50  # frames dropped after the last one are not reported


def test_loop_has_no_drift(tmp_path: Path) -> None:
    """In each lap, flash and beep come exactly one period later."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=1.0, mark_s=0.5)
    camera, microphone = open_camera(f"file:{clip}?loop", **SIZE), open_microphone(f"file:{clip}?loop")
    frames: list[Frame] = []
    chunks: list[AudioChunk] = []

    def flashes_s() -> list[float]:
        pairs = itertools.pairwise(list(frames))
        return [b.t_ns / 1e9 for a, b in pairs if a.pixels.mean() < 128 <= b.pixels.mean()]

    def beeps_s() -> list[float]:
        loud = [chunk.t_ns / 1e9 for chunk in list(chunks) if np.abs(chunk.samples).max() > 0.2]
        return loud[:1] + [b for a, b in itertools.pairwise(loud) if b - a > 0.1]

    drain_together(
        (camera, frames), (microphone, chunks), until=lambda: min(len(flashes_s()), len(beeps_s())) >= 3
    )
    assert len(flashes_s()) == len(beeps_s()) == 3
    assert np.ptp(np.diff(flashes_s())) < 1e-6
    assert np.abs(np.array(flashes_s()) - beeps_s()).max() < 0.025  # a chunk is 20 ms
    steps_ns = np.diff([chunk.t_ns for chunk in chunks])
    assert set(steps_ns) == {20_000_000}, "audio is continuous over the seam"


@pytest.mark.parametrize("speed", [0.5, 4])
def test_speed_stretches_image_and_audio_alike(tmp_path: Path, speed: float) -> None:
    """At another speed flash and beep stay together, and the period is scaled."""
    clip = media.write_clip(tmp_path / "c.mp4", seconds=1.0, mark_s=0.5)
    token = f"file:{clip}?loop&speed={speed}"
    frames: list[Frame] = []
    chunks: list[AudioChunk] = []

    def flashes_s() -> list[tuple[float, float]]:
        """Return the times of the last dark and of the first bright frame of each flash."""
        pairs = itertools.pairwise(list(frames))
        return [(a.t_ns / 1e9, b.t_ns / 1e9) for a, b in pairs if a.pixels.mean() < 128 <= b.pixels.mean()]

    def beeps_s() -> list[float]:
        loud = [chunk.t_ns / 1e9 for chunk in list(chunks) if np.abs(chunk.samples).max() > 0.2]
        return loud[:1] + [b for a, b in itertools.pairwise(loud) if b - a > 0.1 / speed]

    def until() -> bool:
        return len(beeps_s()) >= 2 and bool(flashes_s())

    camera = open_camera(token, fps=400, width=SIZE["width"], height=SIZE["height"])
    drain_together((camera, frames), (open_microphone(token), chunks), until=until)
    beeps = beeps_s()
    assert np.diff(beeps) == pytest.approx(1 / speed, abs=1e-6)
    tolerance_s = 0.025 / speed
    for dark_s, bright_s in flashes_s():  # a slow machine may miss frames between the two
        # One source may be open before the other, or closed after it: the beeps before and after are due too.
        due = (beeps[0] - 1 / speed, *beeps, beeps[-1] + 1 / speed)
        assert any(dark_s - tolerance_s < beep < bright_s + tolerance_s for beep in due)
    steps_ns = np.diff([chunk.t_ns for chunk in chunks])
    assert set(steps_ns) == {round(20_000_000 / speed)}


@pytest.mark.parametrize("query", ["?speed=0", "?speed=100", "?speed=-1", "?loop&loop=", "?fast"])
def test_other_options_are_part_of_the_name(tmp_path: Path, query: str) -> None:
    """Text that is not an option is part of the file name, which is reported as missing."""
    with pytest.raises(DeviceError, match=re.escape(query)):
        open_camera(f"file:{tmp_path}/c.mp4{query}", **SIZE)


def test_reopened_microphone_joins_the_camera(tmp_path: Path) -> None:
    """A microphone that is reopened continues where the camera is, not at the start."""
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


def test_a_closed_file_starts_again(marked: Path) -> None:
    """When no source plays a file, the next reader gets it from its beginning."""
    for _ in range(2):
        microphone = open_microphone(f"file:{marked}")
        chunks = list(itertools.islice(microphone, 55))
        microphone.close()
        del microphone
        assert loudest_s(chunks) - chunks[0].t_ns / 1e9 == pytest.approx(1.0, abs=0.01)


def test_live_chunks_are_the_offline_audio(marked: Path) -> None:
    """Replayed chunks concatenated equal the result of `read_audio`."""
    microphone = open_microphone(f"file:{marked}")
    live = np.concatenate([chunk.samples for chunk in microphone])
    microphone.close()
    np.testing.assert_array_equal(live, read_audio(marked))


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
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Read sources at the same time to their ends, or close them when `until` holds."""
    threads = [threading.Thread(target=lambda s=s, out=out: out.extend(s)) for s, out in pairs]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + 30
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline_s and not until():
        time.sleep(0.005)
    for source, _ in pairs:
        source.close()
    for thread in threads:
        thread.join(2)
        assert not thread.is_alive()
