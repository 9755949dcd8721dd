"""One contract for all sources: files, fakes, a network camera, a Pi camera, and PortAudio through ALSA."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import DeviceError
from edge.settings import CAMERA_TOKENS, MICROPHONE_TOKENS
from edge.sources.camera import open_camera
from edge.sources.microphone import open_microphone
from edge.sources.replay import clip_path
from edge.values import AudioChunk, Frame, Source
from tests.helpers import media
from tests.helpers.fake_picamera2 import picamera2  # noqa: F401 - a fixture
from tests.helpers.rtsp_server import RtspServer
from tests.helpers.sound_server import sound_server  # noqa: F401 - a fixture

SIZE = {"fps": 20, "width": 96, "height": 64}
CAMERAS = (
    "file",
    "loop",
    "http",
    "rtsp",
    "gstreamer",
    "picamera",
    "fake:pattern",
    "fake:black",
    "fake:unplug?after=60",
)
MICROPHONES = ("file", "loop", "alsa", "pulse", "fake:tone", "fake:noise", "fake:unplug?after=60")
# They deliver something and then nothing, or nothing at all.
SILENT_CAMERAS = ("none", "stall", "fake:freeze", "fake:still")

Open = Callable[[], Source[Any]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Return a clip of 1.5 s with sound."""
    return media.write_clip(tmp_path / "clip.mp4", seconds=1.5)


@pytest.fixture
def camera(
    request: pytest.FixtureRequest,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Open]:
    """Return what opens the camera that the parameter names."""
    if request.param == "picamera":
        request.getfixturevalue("picamera2")
    if request.param == "gstreamer":
        if shutil.which("gst-launch-1.0") is None:
            pytest.skip("GStreamer is missing: sudo apt install gstreamer1.0-tools")
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path_factory.getbasetemp() / "state"))
    stall: dict[str, Any] = {"count": 20, "then": "stall"} if request.param == "stall" else {}
    with (
        media.MjpegServer(media.picture(), **stall) as server,
        RtspServer(clip_path()) if request.param == "rtsp" else nullcontext() as rtsp,
    ):
        tokens = {
            "rtsp": rtsp.url if rtsp is not None else "",
            "gstreamer": "gstreamer:videotestsrc is-live=true ! video/x-raw,framerate=30/1",
            "file": f"file:{clip}",
            "loop": f"file:{clip}?loop",
            "http": server.url,
            "stall": server.url,
            "picamera": "picamera:0",
        }
        token = tokens.get(request.param, request.param)
        yield lambda: open_camera(token, **SIZE)


@pytest.fixture
def microphone(
    request: pytest.FixtureRequest, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    """Return what opens the microphone that the parameter names."""
    if request.param == "alsa":
        pytest.importorskip("pyaudio", reason="PyAudio is missing: `sudo apt install python3-pyaudio`")
        frames = np.random.default_rng(1).integers(-9_000, 9_000, (48_000, 2), np.int16)
        monkeypatch.setenv("ALSA_CONFIG_PATH", str(media.write_asound_conf(tmp_path, frames)))
    if request.param == "pulse":
        pytest.importorskip("pyaudio", reason="PyAudio is missing: `sudo apt install python3-pyaudio`")
        server = request.getfixturevalue("sound_server")
        server.play(np.random.default_rng(1).uniform(-0.5, 0.5, (480_000, 2)).astype(np.float32))
    tokens = {
        "file": f"file:{clip}",
        "loop": f"file:{clip}?loop",
        "alsa": "alsa:stereo48",
        "pulse": "alsa:pulse",
    }
    token = tokens.get(request.param, request.param)
    return lambda: open_microphone(token)


@pytest.mark.parametrize("camera", CAMERAS, indirect=True)
def test_frames_are_frames(camera: Open) -> None:
    """Frames are RGB bytes; their times increase and are recent."""
    source = camera()
    times_ns = []
    for frame in itertools.islice(source, 6):
        assert isinstance(frame, Frame)
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.shape[2] == 3
        assert frame.pixels.flags.c_contiguous
        assert 0 <= time.monotonic_ns() - frame.t_ns < 1_000_000_000
        times_ns.append(frame.t_ns)
    source.close()
    assert len(times_ns) == 6
    assert min(np.diff(times_ns)) > 0


@pytest.mark.parametrize("microphone", MICROPHONES, indirect=True)
def test_chunks_are_chunks(microphone: Open) -> None:
    """Chunks are 20 ms of 16 kHz in [-1, 1], from the past, without a gap."""
    source = microphone()
    count = 0
    for chunk in itertools.islice(source, 10):
        assert isinstance(chunk, AudioChunk)
        assert chunk.samples.dtype == np.float32
        assert (chunk.samples.shape, chunk.rate_hz) == ((320,), 16_000)
        assert np.abs(chunk.samples).max() <= 1
        assert chunk.gap == 0
        assert 0 <= time.monotonic_ns() - chunk.t_ns < 1_500_000_000
        count += 1
    source.close()
    assert count == 10


# ALSA's null device has no clock, so it cannot time the samples; a sound server's blocks come when they come.
@pytest.mark.parametrize(
    "microphone", [name for name in MICROPHONES if name not in ("alsa", "pulse")], indirect=True
)
def test_chunks_follow_each_other(microphone: Open) -> None:
    """Every chunk begins exactly where the previous one ended."""
    source = microphone()
    times_ns = [chunk.t_ns for chunk in itertools.islice(source, 20)]
    source.close()
    assert set(np.diff(times_ns)) == {20_000_000}


def check_close_from_another_thread(source: Source[Any], *, after: int) -> None:
    """Iterate in a thread, close the source, and check that the thread ends within half a second."""
    errors: list[Exception] = []
    reached, count = threading.Event(), 0

    def read() -> None:
        nonlocal count
        try:
            for _ in source:
                count += 1
                if count >= after:
                    reached.set()
        except Exception as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    if after:
        assert reached.wait(5)
    started_s = time.monotonic()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert time.monotonic() - started_s < 0.5
    source.close()
    assert errors == []
    assert list(source) == [], "a closed source stays closed"


@pytest.mark.parametrize("camera", CAMERAS + SILENT_CAMERAS, indirect=True)
def test_camera_is_closed_from_another_thread(camera: Open, request: pytest.FixtureRequest) -> None:
    """Closing ends a reader that waits for a frame, even if none comes; closing twice is permitted."""
    name = request.node.callspec.params["camera"]
    check_close_from_another_thread(
        camera(), after={"none": 0, "fake:still": 0, "fake:freeze": 1, "stall": 3}.get(name, 2)
    )


@pytest.mark.parametrize("microphone", [*MICROPHONES, "none"], indirect=True)
def test_microphone_is_closed_from_another_thread(microphone: Open, request: pytest.FixtureRequest) -> None:
    """Closing ends a reader that waits for a chunk; closing twice is permitted."""
    name = request.node.callspec.params["microphone"]
    check_close_from_another_thread(microphone(), after=0 if name == "none" else 2)


@pytest.mark.parametrize("camera", CAMERAS + SILENT_CAMERAS, indirect=True)
def test_camera_closed_before_it_is_read(camera: Open) -> None:
    """A source can be closed before it is read, and then has no items."""
    source = camera()
    source.close()
    assert list(source) == []


@pytest.mark.parametrize("microphone", [*MICROPHONES, "none"], indirect=True)
def test_microphone_closed_before_it_is_read(microphone: Open) -> None:
    """A source can be closed before it is read, and then has no items."""
    source = microphone()
    source.close()
    assert list(source) == []


@pytest.mark.parametrize("camera", [*CAMERAS, *SILENT_CAMERAS], indirect=True)
def test_camera_opens_again(camera: Open) -> None:
    """A closed device can be reopened at once, as when it is switched off and on."""
    for _ in range(3):
        source = camera()
        assert source.name
        source.close()


def test_files_end_and_loops_do_not(clip: Path) -> None:
    """A file ends after its 1.5 s; with `?loop` it restarts."""
    once, again = open_microphone(f"file:{clip}"), open_microphone(f"file:{clip}?loop")
    assert 75 <= len(list(itertools.islice(once, 90))) <= 78
    assert len(list(itertools.islice(again, 90))) == 90
    once.close()
    again.close()


@pytest.mark.parametrize("opener", [lambda token: open_camera(token, **SIZE), open_microphone])
def test_unplugged_fake_fails(opener: Callable[[str], Source[Any]]) -> None:
    """`fake:unplug` works, then fails like a device after the given time."""
    source = opener("fake:unplug?after=0.3")
    started_s = time.monotonic()
    items: list[Any] = []
    with pytest.raises(DeviceError, match=r"fake:unplug\?after=0\.3: .+; .+") as caught:
        items.extend(source)
    source.close()
    assert len(items) >= 4
    assert 0.25 < time.monotonic() - started_s < 1.0
    assert caught.value.reason == "no_device"


def test_moving_card_moves_and_frozen_card_does_not() -> None:
    """The test card differs in every frame; the frozen camera delivers exactly one frame."""
    source = open_camera("fake:pattern", **SIZE)
    first, second = (frame.pixels for frame in itertools.islice(source, 2))
    source.close()
    assert first.shape == (64, 96, 3)
    assert not np.array_equal(first, second)
    frozen = open_camera("fake:freeze", **SIZE)
    frames = iter(frozen)
    next(frames)
    threading.Timer(0.3, frozen.close).start()
    assert list(frames) == []


def test_tone_is_continuous() -> None:
    """The tone has an amplitude of 0.3 and no step between chunks."""
    source = open_microphone("fake:tone")
    sound = np.concatenate([chunk.samples for chunk in itertools.islice(source, 10)])
    source.close()
    assert np.abs(sound).max() == pytest.approx(0.3, abs=0.01)
    assert np.abs(np.diff(sound)).max() <= 0.3 * 2 * np.pi * 440 / 16_000 * 1.01


DEAD = {"fake:freeze": "timeout", "fake:still": "frozen", "fake:silence": "silent"}


@pytest.fixture(scope="module")
def faults() -> dict[str, tuple[str, float]]:
    """Read all dead devices at once; return the reason of each fault and the seconds until it."""

    def read(token: str) -> tuple[str, float]:
        source: Source[Any] = (
            open_microphone(token) if token == "fake:silence" else open_camera(token, **SIZE)
        )
        started_s = time.monotonic()
        with closing(source), pytest.raises(DeviceError) as caught:
            list(source)
        return caught.value.reason, time.monotonic() - started_s

    with ThreadPoolExecutor(len(DEAD)) as threads:
        return dict(zip(DEAD, threads.map(read, DEAD), strict=True))


@pytest.mark.parametrize(("token", "reason"), DEAD.items())
def test_dead_devices_are_faults_in_time(
    faults: dict[str, tuple[str, float]], token: str, reason: str
) -> None:
    """Frozen, stuck and silent devices are faults within five seconds, each with its own reason."""
    found, after_s = faults[token]
    assert found == reason
    assert 3.5 < after_s < 5


def test_config_and_openers_have_the_same_schemes() -> None:
    """The config accepts exactly the schemes that can be opened."""
    from edge.sources.camera import _OPENERS as cameras
    from edge.sources.microphone import _OPENERS as microphones

    samples = {"picamera": "picamera:0", "v4l2": "v4l2:/dev/x", "usb": "usb:046d:0825"}
    for openers, pattern in ((cameras, CAMERA_TOKENS), (microphones, MICROPHONE_TOKENS)):
        for scheme in openers:
            plain = scheme if scheme == "none" else f"{scheme}://x"
            assert pattern.fullmatch(samples.get(scheme, plain)), scheme
