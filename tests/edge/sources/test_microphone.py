"""Microphones: resampling, selection of a channel, PortAudio through ALSA without a sound card, faults."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soxr

from edge.errors import DeviceError
from edge.sources import driver_threads as drivers
from edge.sources import microphone
from edge.sources import resampling as resample
from edge.sources.devices import AlsaCard, alsa_cards
from edge.sources.driver_threads import is_hanging
from edge.sources.microphone import LiveMicrophone, open_microphone
from edge.sources.resampling import LoudestChannel, Resampler, SilenceDetector
from tests.helpers import media
from tests.helpers.brokers import wait_until
from tests.helpers.sound_server import SoundServer, sound_server  # noqa: F401 - a fixture

pyaudio = pytest.importorskip("pyaudio", reason="PyAudio is missing: `sudo apt install python3-pyaudio`")


@pytest.fixture
def alsa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point ALSA to a recording of 440 Hz, 0.1 on the left and 0.5 on the right."""
    left = media.tone(2.0, rate_hz=48_000, amplitude=0.1)
    frames = np.stack([left, 5 * left], axis=1)
    conf = media.write_asound_conf(tmp_path, np.rint(frames * 32767).astype(np.int16))
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(conf))


def pitch_hz(samples: np.ndarray) -> float:
    """Return the strongest frequency of (n,) at 16 kHz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * len(samples)))
    return float(np.argmax(spectrum)) * 16_000 / (16 * len(samples))


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("block", [1, 160, 441, 960, 5_000])
def test_blocks_equal_the_whole(rate_hz: int, block: int) -> None:
    """Resampling in blocks equals resampling the whole signal; `delay` counts what is held back."""
    noise = np.random.default_rng(3).uniform(-1, 1, rate_hz // 4).astype(np.float32)
    resampler = Resampler(rate_hz, 16_000)
    blocks = np.concatenate([resampler.push(noise[at : at + block]) for at in range(0, len(noise), block)])
    whole = soxr.resample(noise, rate_hz, 16_000)
    assert 0 <= len(whole) - len(blocks) <= 0.06 * 16_000
    np.testing.assert_allclose(blocks, whole[: len(blocks)], atol=1e-4)
    assert resampler.delay == pytest.approx(len(whole) - len(blocks), abs=1)


def test_no_clicks() -> None:
    """A sine of 440 Hz resampled from 44.1 kHz has no larger step than a sine of 440 Hz."""
    resampler = Resampler(44_100, 16_000)
    sine = media.tone(2.0, rate_hz=44_100)
    out = np.concatenate([resampler.push(sine[at : at + 882]) for at in range(0, len(sine), 882)])
    steepest = 0.5 * 2 * np.pi * 440 / 16_000
    assert np.abs(np.diff(out[100:])).max() < steepest * 1.001


def test_same_rate_is_untouched() -> None:
    """Audio of 16 kHz passes unchanged and at once."""
    resampler = Resampler(16_000, 16_000)
    noise = np.random.default_rng(3).uniform(-1, 1, 320).astype(np.float32)
    np.testing.assert_array_equal(resampler.push(noise), noise)
    assert resampler.delay == 0


def test_loudest_channel_is_selected_and_kept() -> None:
    """A much louder channel is selected; a slightly louder one is not."""
    loudest = LoudestChannel(2)
    quiet, loud = media.tone(0.02, amplitude=0.1), media.tone(0.02, amplitude=0.5)
    for _ in range(50):
        picked = loudest.select(np.stack([quiet, loud], axis=1))
    np.testing.assert_array_equal(picked, loud)
    for _ in range(200):
        picked = loudest.select(np.stack([1.3 * loud, loud], axis=1))
    np.testing.assert_array_equal(picked, loud)


def test_opposite_channels_do_not_cancel() -> None:
    """Two channels of opposite polarity give a signal."""
    wave = media.tone(0.02)
    assert np.abs(LoudestChannel(2).select(np.stack([wave, -wave], axis=1))).max() > 0.4


@pytest.mark.usefixtures("alsa")
def test_alsa_device_is_resampled() -> None:
    """A 48-kHz device through real PortAudio and ALSA: 440 Hz stays 440 Hz, in chunks of 20 ms."""
    source = open_microphone("alsa:stereo48")
    chunks = list(itertools.islice(source, 40))
    source.close()
    assert {(len(chunk.samples), chunk.rate_hz, chunk.samples.dtype) for chunk in chunks} == {
        (320, 16_000, np.dtype(np.float32))
    }
    assert chunks[0].gap == 0
    sound = np.concatenate([chunk.samples for chunk in chunks])
    # Only the start: later ALSA's file device, without a clock, skips at the end of its ring.
    assert pitch_hz(sound[:960]) == pytest.approx(440, abs=2)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.02), "the louder channel, not a mixture"


@pytest.mark.usefixtures("alsa")
def test_slow_reader_sees_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that do not fit into the queue are counted as the gap of the next chunk."""
    monkeypatch.setattr(microphone, "MAX_WAITING", 5)
    source = open_microphone("alsa:stereo48")
    deadline_s = time.monotonic() + 5
    gap = 0
    for chunk in source:
        gap += chunk.gap
        if gap or time.monotonic() > deadline_s:
            break
    source.close()
    assert gap >= 320


@pytest.mark.usefixtures("alsa")
def test_closing_releases_portaudio() -> None:
    """A device can be opened and closed ten times, each within half a second."""
    for _ in range(10):
        source = open_microphone("alsa:stereo48")
        assert next(iter(source)).samples.shape == (320,)
        started_s = time.monotonic()
        source.close()
        assert time.monotonic() - started_s < 0.5


@pytest.mark.usefixtures("alsa")
def test_dead_driver_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver without data is a fault after `NO_DATA_S`, or at once if PortAudio reports its end."""
    monkeypatch.setattr(microphone, "NO_DATA_S", 0.3)
    source = open_microphone("alsa:stereo48")
    assert isinstance(source, LiveMicrophone)
    source._stream.stop_stream()
    with pytest.raises(DeviceError, match=r"alsa:stereo48: .+; ") as caught:
        list(source)
    source.close()
    assert caught.value.reason in ("no_device", "timeout")


def test_resampling_has_no_aliasing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frequencies above 8 kHz are removed; ALSA's own resampling would turn 11 kHz into 5 kHz."""
    left = media.tone(2.0, rate_hz=48_000, hz=11_000)
    frames = np.rint(np.stack([left, left], axis=1) * 32767).astype(np.int16)
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(media.write_asound_conf(tmp_path, frames)))
    source = open_microphone("alsa:stereo48")
    sound = np.concatenate([chunk.samples for chunk in itertools.islice(source, 40)])
    source.close()
    assert np.sqrt(np.mean(sound[320:1440] ** 2)) < 1e-3


def test_silence_is_a_fault_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SILENT_S` of one value is accepted, one block more is a fault; noise resets the time."""
    monkeypatch.setattr(resample, "SILENT_S", 0.1)
    silence = SilenceDetector("mic", rate_hz=16_000)
    zeros = np.zeros((320, 2), np.float32)
    assert [silence.is_alive(zeros) for _ in range(5)] == [False] * 5
    with pytest.raises(DeviceError, match=r"^mic: perfect silence for 0\.1 s; ") as caught:
        silence.is_alive(zeros)
    assert caught.value.reason == "silent"
    noise = zeros.copy()
    noise[7, 1] = 1 / 32768
    assert silence.is_alive(noise)
    constant = zeros + 0.25
    assert [silence.is_alive(constant) for _ in range(5)] == [True] * 5
    with pytest.raises(DeviceError):
        silence.is_alive(constant)


def tone_48k(seconds: float) -> np.ndarray:
    """Return 440 Hz, five times louder on the right."""
    left = media.tone(seconds, rate_hz=48_000, amplitude=0.1)
    return np.stack([left, 5 * left], axis=1)


def test_usb_microphone_under_another_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The USB ids select the number that the card has at this boot."""
    opened: list[object] = []

    def note(token: str, *, hardware: tuple[int, int]) -> None:
        opened.append((token, hardware))
        raise DeviceError("not here", reason="busy")

    monkeypatch.setattr(microphone, "_open_portaudio", note)
    for index in (1, 3):
        card = AlsaCard(index=index, id="Device", title="USB", usb_id="0d8c:0014", captures=True)
        monkeypatch.setattr(microphone, "alsa_cards", lambda card=card: [card])
        for token in ("usb:0D8C:0014", "alsa:CARD=Device", "alsa:CARD=Device,DEV=2"):
            with pytest.raises(DeviceError):
                open_microphone(token)
    assert opened == [
        (token, (index, device))
        for index in (1, 3)
        for token, device in (("usb:0D8C:0014", 0), ("alsa:CARD=Device", 0), ("alsa:CARD=Device,DEV=2", 2))
    ]


@pytest.mark.usefixtures("alsa")
def test_closing_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """If PortAudio cannot stop a lost device, closing takes under half a second."""
    comes_back = threading.Event()
    source = open_microphone("alsa:stereo48")
    assert isinstance(source, LiveMicrophone)
    next(iter(source))
    release = source._release
    monkeypatch.setattr(source, "_release", lambda: (comes_back.wait(), release()))
    started_s = time.monotonic()
    source.close()
    assert time.monotonic() - started_s < 0.5
    assert is_hanging("microphone")
    comes_back.set()
    wait_until(lambda: not is_hanging("microphone"), "the driver returns")


def test_opening_a_driver_that_hangs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """If PortAudio never starts, the call is abandoned; later output still reaches stderr."""
    comes_back = threading.Event()
    monkeypatch.setattr(drivers, "CALL_S", 0.2)
    monkeypatch.setattr(microphone, "_portaudio", lambda _token: comes_back.wait())
    with pytest.raises(
        DeviceError, match=r"^alsa:default: its driver has not answered for 0\.2 s; "
    ) as caught:
        open_microphone("alsa:default")
    assert caught.value.reason == "stuck"
    os.write(2, b"still here")
    assert capfd.readouterr().err == "still here"
    comes_back.set()
    wait_until(lambda: not is_hanging("microphone"), "the driver returns")


def test_sound_server_is_recorded(sound_server: SoundServer) -> None:  # noqa: F811
    """PulseAudio's monitor through ALSA and PortAudio: both channels at the mixer's rate, the louder one."""
    sound_server.play(tone_48k(5))
    source = open_microphone("alsa:pulse")
    assert isinstance(source, LiveMicrophone)
    assert (source._rate_hz, source._channels) == (48_000, 2)
    chunks = []
    for chunk in source:
        assert 0 < time.monotonic_ns() - chunk.t_ns < 500_000_000
        if np.abs(chunk.samples).max() > 0.4:  # playing has begun
            chunks.append(chunk)
        if len(chunks) == 50:
            break
    source.close()
    sound = np.concatenate([chunk.samples for chunk in chunks])
    assert pitch_hz(sound) == pytest.approx(440, abs=1)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.02)
    assert sum(chunk.gap for chunk in chunks) == 0


def test_unplugged_and_plugged_in_again(sound_server: SoundServer) -> None:  # noqa: F811
    """A microphone that goes away is a fault within five seconds, and can be opened when it is back."""
    sound_server.play(tone_48k(30))
    source = open_microphone("alsa:default")
    assert next(iter(source)).samples.shape == (320,)
    sound_server.unplug()
    started_s = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        list(source)
    assert time.monotonic() - started_s < 5
    source.close()
    assert caught.value.reason in ("no_device", "timeout")
    with pytest.raises(DeviceError, match="nothing to record") as gone:
        open_microphone("alsa:default")
    assert gone.value.reason == "no_device"
    sound_server.connect()
    sound_server.play(tone_48k(5))
    again = open_microphone("alsa:default")
    assert next(iter(again)).samples.shape == (320,)
    again.close()


def test_muted_microphone(sound_server: SoundServer, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Zeros give no chunk and then the fault `silent`; the first audio ends it."""
    monkeypatch.setattr(resample, "SILENT_S", 0.5)
    source = open_microphone("alsa:pulse")
    with pytest.raises(DeviceError, match="perfect silence") as caught:
        pytest.fail(f"a chunk from {next(iter(source)).t_ns}")
    source.close()
    assert caught.value.reason == "silent"
    monkeypatch.setattr(resample, "SILENT_S", 10)
    again = open_microphone("alsa:pulse")
    sound_server.play(tone_48k(5))
    assert np.abs(next(iter(again)).samples).max() > 0
    again.close()


def test_auto_takes_the_sound_server(sound_server: SoundServer) -> None:  # noqa: F811
    """Without a card, `auto` is ALSA's default if it delivers audio."""
    if alsa_cards():
        pytest.skip("this machine has a sound card of its own")
    sound_server.play(tone_48k(10))
    source = open_microphone("auto")
    assert source.name == "alsa:default"
    source.close()


@pytest.mark.parametrize(
    ("token", "remedy"),
    [
        ("alsa:CARD=Nothing", "no such sound card; `emotion-edge devices`"),
        ("alsa:nothing", "no such ALSA input; `emotion-edge devices`"),
        ("usb:dead:beef", "connect it"),
        ("smoke:signals", "`emotion-edge devices`"),
        ("fake:unicorn", "fake:tone"),
    ],
)
@pytest.mark.usefixtures("alsa")
def test_error_of_a_microphone_that_does_not_open(token: str, remedy: str) -> None:
    """The error has thing, value and remedy in one sentence."""
    with pytest.raises(DeviceError) as caught:
        open_microphone(token)
    assert str(caught.value).startswith(f"{token}: ")
    assert remedy in str(caught.value)


def test_without_pyaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyAudio the error names both ways to install it; without a card, `auto` is not a fault."""
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    with pytest.raises(DeviceError) as caught:
        open_microphone("alsa:default")
    assert "apt install python3-pyaudio" in str(caught.value)
    assert "pip install PyAudio" in str(caught.value)
    assert caught.value.reason == "unsupported"
    with pytest.raises(DeviceError) as absent:
        open_microphone("auto")
    assert absent.value.reason == "absent" or alsa_cards()


def test_libraries_are_quiet() -> None:
    """ALSA and JACK write nothing to stderr, and later output of Python still arrives."""
    code = """
import sys
from edge.sources.devices import AlsaCard, alsa_cards
from edge.sources.driver_threads import is_hanging
from edge.errors import DeviceError
from edge.sources.microphone import open_microphone
try:
    open_microphone("alsa:nothing")
except DeviceError as error:
    sys.stderr.write(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no_device")


class ListedDevices:
    """PortAudio's device list, with title, PCM and number of the hardware."""

    names = ("HDA Intel: ALC (hw:0,0)", "USB PnP: Audio (hw:10,0)", "USB PnP: Audio (hw:1,0)", "default")

    def get_device_count(self) -> int:
        return len(self.names)

    def get_device_info_by_index(self, index: int) -> dict[str, object]:
        return {"index": index, "name": self.names[index], "maxInputChannels": 0 if index == 0 else 1}


def test_card_is_found_by_number_of_this_boot() -> None:
    """Card 1 is not card 10; a card that only plays is not a microphone."""
    assert microphone._find(ListedDevices(), "t", device=None, hardware=(1, 0))["index"] == 2
    assert microphone._find(ListedDevices(), "t", device=None, hardware=(10, 0))["index"] == 1
    assert microphone._find(ListedDevices(), "t", device="default", hardware=None)["index"] == 3
    with pytest.raises(DeviceError, match=r"^t: in use"):
        microphone._find(ListedDevices(), "t", device=None, hardware=(0, 0))
