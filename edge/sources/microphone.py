"""Opens microphones by token; each delivers 16 kHz mono in chunks of 20 ms.

alsa:CARD=Device   a card by the name that /proc/asound gives it; alsa:NAME for any other ALSA device
usb:VID:PID        a card by its USB ids, whatever its number at boot
file:  fake:       replay.py, fakes.py
auto               the first card that delivers audio, else ALSA's default
none               no audio
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from edge.errors import DeviceError
from edge.native_output import held_output
from edge.sources.devices import alsa_cards
from edge.sources.driver_threads import DriverThread, call_with_timeout
from edge.sources.fakes import EmptySource, FakeMicrophone
from edge.sources.holders import in_use, pcm_node
from edge.sources.rate import CHUNK, NS_PER_SAMPLE
from edge.sources.replay import FileMicrophone
from edge.sources.resampling import LoudestChannel, Resampler, SilenceDetector
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Source

log = logging.getLogger(__name__)

NO_DATA_S = 3.0  # a driver without data for this long is gone; silence would be zeros
MAX_WAITING = 500  # blocks of 20 ms that may wait for a slow reader
_INPUT_OVERFLOW = 0x2  # paInputOverflow
_DEVICE_UNAVAILABLE = -9985  # paDeviceUnavailable: another program has it
_LIST = "`emotion-edge devices` lists microphones"
# ALSA and JACK report every device that they try. Log lines of the daemon itself pass.
_NOT_OURS = re.compile(rb"(?!(DEBUG|INFO|WARNING|ERROR|CRITICAL) |emotion-edge: )")


class LiveMicrophone:
    """An open PortAudio input: its callback only queues blocks, the reader converts them.

    Iterating raises `DeviceError` when the device is gone or delivers nothing for `NO_DATA_S`.
    """

    def __init__(self, name: str, portaudio: Any, *, index: int, rate_hz: int, channels: int) -> None:
        self.name = name
        self._portaudio = portaudio
        self._rate_hz, self._channels = rate_hz, channels
        # Bytes, capture time of their last sample, number of samples lost before them. None: the end.
        self._blocks: queue.SimpleQueue[tuple[bytes, int, int] | None] = queue.SimpleQueue()
        self._lost = 0
        self._last_ns = 0
        self._closed = threading.Event()
        self._closing = threading.Lock()
        pyaudio = importlib.import_module("pyaudio")
        self._flow = {"on": pyaudio.paContinue, "end": pyaudio.paComplete}
        self._stream = portaudio.open(
            format=pyaudio.paFloat32,
            channels=channels,
            rate=rate_hz,
            input=True,
            input_device_index=index,
            frames_per_buffer=rate_hz // 50,
            stream_callback=self._receive,
        )

    def __iter__(self) -> Iterator[AudioChunk]:
        loudest = LoudestChannel(self._channels)
        silence = SilenceDetector(self.name, rate_hz=self._rate_hz)
        resampler = Resampler(self._rate_hz, SAMPLE_RATE_HZ)
        rest = np.zeros(0, np.float32)
        gap = 0
        while not self._closed.is_set():
            block = self._next_block()
            if block is None:
                return
            data, end_ns, lost = block
            # ALSA's null device returns uninitialised memory; one NaN would silence the resampler for good.
            frames = np.nan_to_num(np.frombuffer(data, np.float32))
            np.clip(frames, -1, 1, out=frames)
            frames = frames.reshape(-1, self._channels)  # (n * channels,) -> (n, channels)
            if not silence.is_alive(frames):
                continue
            rest = np.concatenate((rest, resampler.push(loudest.select(frames))))
            gap += lost * SAMPLE_RATE_HZ // self._rate_hz
            # The filter holds back the newest samples, so `rest` ends a little earlier than the block.
            start_ns = end_ns - (len(rest) + resampler.delay) * NS_PER_SAMPLE
            while len(rest) >= CHUNK:
                yield AudioChunk(rest[:CHUNK].clip(-1, 1), start_ns, gap=gap)
                rest, gap = rest[CHUNK:], 0
                start_ns += CHUNK * NS_PER_SAMPLE

    def close(self) -> None:
        """End the iteration at once and release the device; a driver that hangs is abandoned."""
        self._closed.set()
        self._blocks.put(None)
        if self._closing.acquire(blocking=False):
            # Stopping the stream of an unplugged device can hang in the driver, so use another thread.
            release = DriverThread("microphone", self._release)
            release.start()
            release.leave()

    def _next_block(self) -> tuple[bytes, int, int] | None:
        deadline_s = time.monotonic() + NO_DATA_S
        while True:
            try:
                return self._blocks.get(timeout=0.25)
            except queue.Empty:
                if not self._closed.is_set() and not self._stream.is_active():
                    raise DeviceError(f"{self.name}: stopped sending audio; check its plug") from None
                if time.monotonic() > deadline_s:
                    raise DeviceError(
                        f"{self.name}: no audio for {NO_DATA_S:g} s; connect it again", reason="timeout"
                    ) from None

    def _receive(self, data: bytes, count: int, _times: Mapping[str, float], status: int) -> tuple[None, int]:
        """Queue one block; PortAudio calls this on its own thread, which must not be blocked."""
        now_ns = time.monotonic_ns()
        if status & _INPUT_OVERFLOW:
            # PortAudio reports that samples were lost but not how many: the time since the last block does.
            silent_ns = now_ns - self._last_ns if self._last_ns else 0
            self._lost += max(0, silent_ns * self._rate_hz // 1_000_000_000 - count)
        self._last_ns = now_ns
        if self._blocks.qsize() >= MAX_WAITING:
            self._lost += count
        else:
            self._blocks.put((data, now_ns, self._lost))
            self._lost = 0
        return None, self._flow["end" if self._closed.is_set() else "on"]

    def _release(self) -> None:
        self._stream.close()
        self._portaudio.terminate()


def open_microphone(token: str) -> Source[AudioChunk]:
    """Open the microphone that `token` names. Raises `DeviceError` with a reason and a remedy.

    The reason is `absent` if `auto` finds no microphone at all.
    """
    if token == "auto":
        return _open_auto()
    opener = _OPENERS.get(token.partition(":")[0])
    if opener is None:
        raise DeviceError(f"{token}: not a kind of microphone; {_LIST}", reason="unsupported")
    if opener not in (_open_alsa, _open_usb):
        return opener(token)
    # Held by this thread and not by the one that may hang, which would never give stderr back.
    with held_output(_NOT_OURS):
        return call_with_timeout("microphone", token, lambda: opener(token))


def _open_alsa(token: str) -> Source[AudioChunk]:
    name = token.removeprefix("alsa:")
    if match := re.fullmatch(r"CARD=([^,]+)(?:,DEV=(\d+))?", name):
        for card in alsa_cards():
            if card.id == match[1]:
                return _open_portaudio(token, hardware=(card.index, int(match[2] or 0)))
        raise DeviceError(f"{token}: no such sound card; {_LIST}")
    return _open_portaudio(token, device=name)


def _open_usb(token: str) -> Source[AudioChunk]:
    wanted = token.removeprefix("usb:").lower()
    for card in alsa_cards():
        if card.usb_id == wanted:
            return _open_portaudio(token, hardware=(card.index, 0))
    raise DeviceError(f"{token}: no sound card with these USB ids; connect it; {_LIST}")


def _open_portaudio(
    token: str, *, device: str | None = None, hardware: tuple[int, int] | None = None
) -> LiveMicrophone:
    """Open a PortAudio input by its ALSA name, or by card and device number."""
    node = pcm_node(*hardware) if hardware is not None else None
    if node is not None and node.exists() and not os.access(node, os.R_OK | os.W_OK, effective_ids=True):
        raise DeviceError(
            f"{token}: not permitted; `sudo usermod -aG audio $USER` and log in again", reason="no_permission"
        )
    portaudio = _portaudio(token)
    try:
        info = _find(portaudio, token, device=device, hardware=hardware)
        rate_hz, channels = _format(portaudio, token, info)
        return LiveMicrophone(token, portaudio, index=int(info["index"]), rate_hz=rate_hz, channels=channels)
    except OSError as error:
        portaudio.terminate()
        if isinstance(error, DeviceError):
            raise
        if _DEVICE_UNAVAILABLE in error.args:
            raise _busy(token, node) from None
        raise DeviceError(f"{token}: cannot be opened ({error}); {_LIST}") from None


def _portaudio(token: str) -> Any:
    try:
        pyaudio = importlib.import_module("pyaudio")
    except ImportError:
        raise DeviceError(
            f"{token}: PyAudio is not installed; `sudo apt install python3-pyaudio` and a venv with "
            "--system-site-packages, or `sudo apt install portaudio19-dev` and "
            "`pip install PyAudio`",
            reason="unsupported",
        ) from None
    return pyaudio.PyAudio()


def _find(
    portaudio: Any, token: str, *, device: str | None, hardware: tuple[int, int] | None
) -> Mapping[str, Any]:
    infos = [portaudio.get_device_info_by_index(i) for i in range(portaudio.get_device_count())]
    inputs = [info for info in infos if info["maxInputChannels"] > 0]
    for info in inputs:
        # PortAudio names hardware "Title: PCM name (hw:1,0)" and all other devices by their ALSA name.
        if hardware is not None and f"(hw:{hardware[0]},{hardware[1]})" in info["name"]:
            return cast(Mapping[str, Any], info)
        if device is not None and info["name"] == device:
            return cast(Mapping[str, Any], info)
    if hardware is not None:
        # PortAudio does not list hardware that it could not open.
        raise _busy(token, pcm_node(*hardware))
    raise DeviceError(f"{token}: no such ALSA input; {_LIST}")


def _format(portaudio: Any, token: str, info: Mapping[str, Any]) -> tuple[int, int]:
    """Choose rate and channels so that only `LiveMicrophone` resamples and mixes.

    Hardware is opened at 16 kHz if possible. A mixer (`default`, `pulse`, dsnoop) accepts any rate, but
    resamples with aliasing and averages the channels: it is opened at 48 kHz with both channels.
    """
    pyaudio = importlib.import_module("pyaudio")
    is_hardware = "(hw:" in info["name"]
    own_hz = int(info["defaultSampleRate"])
    rates_hz = (
        (SAMPLE_RATE_HZ, own_hz, 48_000, 44_100) if is_hardware else (48_000, 44_100, own_hz, SAMPLE_RATE_HZ)
    )
    most = int(info["maxInputChannels"])
    for rate_hz in dict.fromkeys(rates_hz):
        # Cards with many inputs often accept all of them or none.
        for channels in dict.fromkeys((min(2, most), 1, min(8, most))):
            try:
                portaudio.is_format_supported(
                    rate_hz,
                    input_device=int(info["index"]),
                    input_channels=channels,
                    input_format=pyaudio.paFloat32,
                )
            except ValueError as error:
                if _DEVICE_UNAVAILABLE in error.args:
                    raise OSError(_DEVICE_UNAVAILABLE) from None
                continue
            return rate_hz, channels
    if not is_hardware:
        raise DeviceError(f"{token}: its sound server has nothing to record; connect a microphone")
    raise DeviceError(
        f"{token}: supports neither 16, 44.1 nor 48 kHz; use another device", reason="unsupported"
    )


def _busy(token: str, node: Path | None) -> DeviceError:
    holder = in_use(node) if node is not None else "in use; stop the other program"
    return DeviceError(f"{token}: {holder}, or share it by alsa:default", reason="busy")


def _open_auto() -> Source[AudioChunk]:
    cards = [f"alsa:CARD={card.id}" for card in alsa_cards() if card.captures]
    failure = None
    for candidate in [*cards, "alsa:default"]:
        try:
            microphone = open_microphone(candidate)
        except DeviceError as error:
            failure = failure or error
            continue
        if (fault := _fault(microphone)) is None:
            log.info("microphone auto: %s", candidate)
            return microphone
        failure = failure or fault
        microphone.close()
    if cards and failure is not None:
        raise failure  # a card that does not work is a fault; having no card is a valid setup
    raise DeviceError("microphone auto: none found; connect one", reason="absent")


def _fault(microphone: Source[AudioChunk]) -> DeviceError | None:
    """Wait for a first chunk, which is dropped, and return the error if none comes."""
    try:
        next(iter(microphone), None)
    except DeviceError as error:
        return error
    return None


def _open_none(token: str) -> Source[AudioChunk]:
    return cast(Source[AudioChunk], EmptySource(token))


_OPENERS: dict[str, Callable[[str], Source[AudioChunk]]] = {
    "alsa": _open_alsa,
    "fake": FakeMicrophone,
    "file": FileMicrophone,
    "none": _open_none,
    "usb": _open_usb,
}
