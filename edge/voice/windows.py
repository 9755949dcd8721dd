"""Audio chunks -> sliding windows of MFCC and pitch frames with their voice activity.

Training uses the same code, so the model is trained on the features that the device computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.values import SAMPLE_RATE_HZ, AudioChunk, Float32, Prediction
from edge.voice.activity import SPEECH_THRESHOLD, VAD_LAG, VoiceActivity
from edge.voice.features import COEFFICIENTS, COLUMNS, STEP, FrameStream, frame_count
from edge.voice.pitch import FRAME

MIN_SPEECH_S = 0.5
FULL_SPEECH_S = 1.5  # more speech does not raise the quality of a window
# Contrast of a window whose speech is lost in noise, and of a clear one. Medians of 60 clips each of TESS,
# RAVDESS and nEMO: 39, 78 and 40 dB without added noise; 22, 25 and 20 dB with babble 10 dB below the speech;
# 14, 16 and 12 dB with equally loud babble; 10 to 12 dB with babble 5 dB above the speech.
NOISY_DB, CLEAR_DB = 6.0, 26.0
LOUDEST_FRAMES = 15


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The frames of the last seconds, (T, 42) float32, and the probability of `speech` in each, (T,) float32.

    A frame is 40 MFCC followed by the pitch of `edge.voice.pitch`. In a stream, a window without speech has
    no frames, (0, 42). `t_ns` is the capture time of its newest sample.
    """

    frames: Float32
    speech: Float32
    t_ns: int

    @property
    def mfcc(self) -> Float32:
        """The MFCC alone, (T, 40)."""
        return self.frames[:, :COEFFICIENTS]

    @property
    def speech_s(self) -> float:
        """Seconds of speech in the window."""
        return float(np.count_nonzero(self.speech >= SPEECH_THRESHOLD)) * STEP / SAMPLE_RATE_HZ

    @property
    def speech_ratio(self) -> float:
        """Share of the window that is speech, 0..1."""
        return float(np.mean(self.speech >= SPEECH_THRESHOLD)) if self.speech.size else 0.0

    @property
    def has_speech(self) -> bool:
        """True when there is enough speech to classify."""
        return self.speech_s >= MIN_SPEECH_S

    @property
    def quality(self) -> float:
        """How much speech there is and how clear it is of noise, 0..1; 1.5 s of clear speech give 1."""
        if not len(self.frames):
            return 0.0
        clear = (self.contrast_db - NOISY_DB) / (CLEAR_DB - NOISY_DB)
        return min(1.0, self.speech_s / FULL_SPEECH_S) * float(np.clip(clear, 0, 1))

    @property
    def contrast_db(self) -> float:
        """Energy of the loudest frames above that of the quietest frames; noise raises the quietest ones."""
        energy = np.sort(self.frames[:, 0])
        nepers = energy[-LOUDEST_FRAMES:].mean() - energy[:LOUDEST_FRAMES].mean()
        return float(10 / np.log(10) * nepers)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceResult:
    """One window of audio; `prediction` is None where the window has too little speech."""

    window: Window
    prediction: Prediction | None


class SpeechWindows:
    """Cuts a stream of chunks into overlapping windows of `window_s`, one every `hop_s`.

    The first windows are shorter: they start as soon as 1 s of audio is buffered. Silence replaces the
    samples that a driver lost (`AudioChunk.gap`), so that time stays true.
    """

    def __init__(self, *, window_s: float, hop_s: float) -> None:
        self._length = frame_count(window_s)
        self._hop = max(1, round(hop_s * SAMPLE_RATE_HZ / STEP)) * STEP
        self._activity = VoiceActivity()
        self._stream = FrameStream()
        # Samples are buffered until a hop is full: one call for 50 frames costs a tenth of 50 calls.
        self._hop_samples = np.empty(self._hop, np.float32)
        self._hop_filled = 0
        # Both keep the newest values at the end; the lag of the voice activity is removed when it is read.
        self._frames = np.zeros((self._length, COLUMNS), np.float32)
        self._speech = np.zeros(self._length + VAD_LAG, np.float32)
        self._filled = 0

    def process(self, chunk: AudioChunk) -> Iterator[Window]:
        """Add a chunk of any length; yield the windows that it completes."""
        samples = chunk.samples
        if chunk.gap:
            lost = min(chunk.gap, self._length * STEP)
            samples = np.concatenate([np.zeros(lost, np.float32), samples])
        end_ns = chunk.t_ns + chunk.samples.size * 1_000_000_000 // SAMPLE_RATE_HZ
        while samples.size:
            part = samples[: self._hop - self._hop_filled]
            samples = samples[part.size :]
            self._hop_samples[self._hop_filled : self._hop_filled + part.size] = part
            self._hop_filled += part.size
            if self._hop_filled == self._hop:
                self._hop_filled = 0
                self._add_hop()
                if self._filled >= frame_count(1.0):
                    yield self._window(end_ns - samples.size * 1_000_000_000 // SAMPLE_RATE_HZ)

    def _add_hop(self) -> None:
        waiting = self._stream.waiting
        _append(self._speech, self._activity.process(self._hop_samples))
        self._stream.add(self._hop_samples)
        self._filled = min(self._length, self._filled + self._stream.waiting - waiting)
        # Frames that are older than the window are never computed.
        self._stream.skip(self._stream.waiting - self._length)

    def _window(self, t_ns: int) -> Window:
        speech = np.empty(self._length, np.float32)
        speech[: self._length - VAD_LAG] = self._speech[2 * VAD_LAG :]
        speech[self._length - VAD_LAG :] = self._speech[-1]
        speech = speech[-self._filled :]
        # Most windows of a day have no speech: without frames they cost a third.
        if not np.any(speech >= SPEECH_THRESHOLD):
            return Window(self._frames[:0], speech, t_ns)
        _append(self._frames, self._stream.frames())
        return Window(self._frames[-self._filled :].copy(), speech, t_ns)


def clip_window(samples: Float32) -> Window:
    """Return all frames of one clip (n,) at 16 kHz as a single window, its voice activity without lag.

    A clip shorter than one frame is padded with silence.
    """
    activity, stream = VoiceActivity(), FrameStream()
    padded = np.concatenate([samples, np.zeros(max(0, FRAME - samples.size), np.float32)])
    stream.add(padded)
    frames = stream.frames()
    lagging = [activity.process(padded), activity.process(np.zeros(VAD_LAG * STEP, np.float32))]
    speech = np.concatenate(lagging)[VAD_LAG : VAD_LAG + len(frames)]
    return Window(frames, speech, samples.size * 1_000_000_000 // SAMPLE_RATE_HZ)


def _append(rows: Float32, new: Float32) -> None:
    """Shift `rows` up and write `new` at its end, in place."""
    count = min(len(rows), len(new))
    if count:
        rows[:-count] = rows[count:]
        rows[-count:] = new[-count:]
