"""Microphones: resampling, choosing a channel, PortAudio through ALSA without a sound card, faults."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import media
import numpy as np
import pytest
from scipy.signal import resample_poly

from edge import microphone
from edge.errors import DeviceError
from edge.microphone import LiveMicrophone, open_microphone
from edge.resample import LouderChannel, Resampler

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
    """Resampling block by block is resampling the whole signal, within a thousandth."""
    noise = np.random.default_rng(3).uniform(-1, 1, 6_000).astype(np.float32)
    resampler = Resampler(rate_hz, 16_000)
    pieces = [resampler.push(noise[at : at + block]) for at in range(0, len(noise), block)]
    blocks = np.concatenate(pieces)
    divisor = np.gcd(rate_hz, 16_000)
    whole = resample_poly(noise, 16_000 // divisor, rate_hz // divisor)
    assert 0 <= len(whole) - len(blocks) <= 0.003 * 16_000, "hardly anything is held back"
    np.testing.assert_allclose(blocks, whole[: len(blocks)], atol=1e-3)
    assert resampler.delay == pytest.approx(len(whole) - len(blocks), abs=1)


def test_no_clicks() -> None:
    """A sine of 440 Hz from 44.1 kHz has no step larger than a sine of 440 Hz has."""
    resampler = Resampler(44_100, 16_000)
    sine = media.tone(2.0, rate_hz=44_100)
    out = np.concatenate([resampler.push(sine[at : at + 882]) for at in range(0, len(sine), 882)])
    steepest = 0.5 * 2 * np.pi * 440 / 16_000
    assert np.abs(np.diff(out[100:])).max() < steepest * 1.001


def test_resampler_forgets_the_past() -> None:
    """After a minute of sound it holds no more than at the start."""
    resampler = Resampler(44_100, 16_000)
    for _ in range(3_000):
        resampler.push(np.zeros(882, np.float32))
    assert len(resampler._held) < 2_000


def test_louder_channel_wins_and_stays() -> None:
    """A much louder channel is taken; a slightly louder one is no reason to change."""
    louder = LouderChannel(2)
    quiet, loud = media.tone(0.02, amplitude=0.1), media.tone(0.02, amplitude=0.5)
    for _ in range(50):
        picked = louder.pick(np.stack([quiet, loud], axis=1))
    np.testing.assert_array_equal(picked, loud)
    for _ in range(200):
        picked = louder.pick(np.stack([1.3 * loud, loud], axis=1))
    np.testing.assert_array_equal(picked, loud)


def test_opposite_channels_do_not_cancel() -> None:
    """Two channels wired against each other give sound."""
    wave = media.tone(0.02)
    assert np.abs(LouderChannel(2).pick(np.stack([wave, -wave], axis=1))).max() > 0.4


@pytest.mark.usefixtures("alsa")
def test_alsa_device_is_resampled() -> None:
    """A 48-kHz device through real PortAudio and ALSA: 440 Hz stay 440 Hz, in chunks of 20 ms."""
    source = open_microphone("alsa:stereo48")
    chunks = list(itertools.islice(source, 40))
    source.close()
    assert {(len(chunk.samples), chunk.rate_hz, chunk.samples.dtype) for chunk in chunks} == {
        (320, 16_000, np.dtype(np.float32))
    }
    assert chunks[0].gap == 0
    sound = np.concatenate([chunk.samples for chunk in chunks])
    # Only the start: later ALSA's file device, without a clock, skips at the end of its ring.
    assert pitch_hz(sound[:1440]) == pytest.approx(440, abs=2)
    assert np.abs(sound).max() == pytest.approx(0.3, abs=0.02)  # ALSA mixes 0.1 and 0.5


@pytest.mark.usefixtures("alsa")
def test_slow_reader_sees_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the queue is counted in front of the chunk that follows it."""
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
    """A device is opened and closed ten times, each within half a second, and works to the last."""
    for _ in range(10):
        source = open_microphone("alsa:stereo48")
        assert next(iter(source)).samples.shape == (320,)
        started_s = time.monotonic()
        source.close()
        assert time.monotonic() - started_s < 0.5


@pytest.mark.usefixtures("alsa")
def test_dead_driver_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that stops calling is told after `NO_DATA_S`, or at once when PortAudio says that it ended."""
    monkeypatch.setattr(microphone, "NO_DATA_S", 0.3)
    source = open_microphone("alsa:stereo48")
    assert isinstance(source, LiveMicrophone)
    source._stream.stop_stream()
    with pytest.raises(DeviceError, match=r"alsa:stereo48: .+; ") as caught:
        list(source)
    source.close()
    assert caught.value.reason in ("no_device", "timeout")


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
def test_sentence_for_what_does_not_open(token: str, remedy: str) -> None:
    """Thing, value and remedy in one sentence."""
    with pytest.raises(DeviceError) as caught:
        open_microphone(token)
    assert str(caught.value).startswith(f"{token}: ")
    assert remedy in str(caught.value)


def test_without_pyaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyAudio is missing, both ways to get it are named; `auto` goes on without a microphone."""
    monkeypatch.setitem(sys.modules, "pyaudio", None)
    with pytest.raises(DeviceError) as caught:
        open_microphone("alsa:default")
    assert "apt install python3-pyaudio" in str(caught.value)
    assert "pip install emotion-edge[microphone]" in str(caught.value)
    assert caught.value.reason == "unsupported"
    source = open_microphone("auto")
    source.close()
    assert source.name == "none"


def test_libraries_are_quiet() -> None:
    """ALSA and JACK write nothing to stderr, and what Python writes afterwards still arrives."""
    code = """
import sys
from edge.errors import DeviceError
from edge.microphone import open_microphone
try:
    open_microphone("alsa:nothing")
except DeviceError as error:
    sys.stderr.write(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no_device")


class ListedDevices:
    """PortAudio's device list as it names hardware: title, PCM, and the number of this boot."""

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
