"""Turns sound into what the voice model reads: voice activity, MFCC frames, sliding windows.

Training uses this very code, so what the model learnt and what the device computes cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import python_speech_features
from pymicro_vad import MicroVad

from edge.errors import ModelError
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Float32

FRAME = 400  # samples, 25 ms
STEP = 160  # samples, 10 ms; also the step of the voice activity detector
COEFFICIENTS = 40
PREEMPHASIS = 0.97
# Rises and falls of pymicro-vad's probability lie this many steps behind the sound's own energy
# (median over 50 RAVDESS clips, both edges), and its first answer comes after 76 steps.
VAD_LAG = 45
VAD_WARM_UP = 76
SPEECH_THRESHOLD = 0.5
MIN_SPEECH_S = 0.5
# Of the frames that a sequence model reads. Energies are natural logarithms: 1 is 4.3 dB.
LOUDEST_FRAMES = 15
ENERGY_FLOOR = np.float32(8.0)
LOUD = np.float32(4.5)
RANGE = np.float32(4.0)  # standard deviations


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The frames of the last seconds: `mfcc` (T, 40) float32, `speech` (T,) float32 probability.

    `t_ns` is when its newest sample was captured.
    """

    mfcc: Float32
    speech: Float32
    t_ns: int

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
        """Tell whether there is enough speech to say anything about it."""
        return self.speech_s >= MIN_SPEECH_S

    @property
    def quality(self) -> float:
        """How much speech there is, 0..1; a second and a half is as good as it gets."""
        return min(1.0, self.speech_s / 1.5)


class SpeechStream:
    """Computes MFCC frames and voice activity once each, as sound comes in.

    Pre-emphasis runs over the whole stream, so frames do not depend on how the sound was cut.
    """

    def __init__(self) -> None:
        self._vad = MicroVad()
        self._pending = np.empty(0, np.float32)  # samples that no frame starts at yet
        self._previous = np.float32(0.0)  # the sample before them, for pre-emphasis
        self._vad_pending = np.empty(0, np.float32)
        self._vad_steps = 0
        silence = bytes(2 * STEP)
        for _ in range(VAD_WARM_UP):
            self._vad.process_10ms(silence)

    def push(self, samples: Float32) -> tuple[Float32, Float32]:
        """Take `samples` (n,); return the new frames (k, 40) and voice activity steps (m,), both float32."""
        self._pending = np.concatenate([self._pending, samples])
        self._vad_pending = np.concatenate([self._vad_pending, samples])
        return self._frames(), self._activity()

    def _frames(self) -> Float32:
        count = (self._pending.size - FRAME) // STEP + 1
        if count <= 0:
            return np.empty((0, COEFFICIENTS), np.float32)
        frames = mfcc_frames(self._pending[: (count - 1) * STEP + FRAME], previous=float(self._previous))
        self._previous = self._pending[count * STEP - 1]
        self._pending = self._pending[count * STEP :]
        return frames

    def _activity(self) -> Float32:
        count = self._vad_pending.size // STEP
        pcm = (np.clip(self._vad_pending[: count * STEP], -1, 1) * 32767).astype(np.int16).tobytes()
        self._vad_pending = self._vad_pending[count * STEP :]
        steps = [self._vad.process_10ms(pcm[i : i + 2 * STEP]) for i in range(0, len(pcm), 2 * STEP)]
        return np.asarray(steps, np.float32)


class SpeechWindows:
    """Cuts a stream of chunks into overlapping windows of `window_s`, one every `hop_s`.

    The first windows are shorter: a window is given as soon as a second of sound is there. Samples
    that a driver lost (`AudioChunk.gap`) are replaced by silence, so that time stays true.
    """

    def __init__(self, *, window_s: float, hop_s: float) -> None:
        self._length = frame_count(window_s)
        self._hop = max(1, round(hop_s * SAMPLE_RATE_HZ / STEP)) * STEP
        self._stream = SpeechStream()
        # Sound waits here until a hop is full: one call for 50 frames costs a tenth of 50 calls.
        self._hop_samples = np.empty(self._hop, np.float32)
        self._hop_filled = 0
        # Both keep the newest frames at the end; the activity row is shifted by its lag when it is read.
        self._mfcc = np.zeros((self._length, COEFFICIENTS), np.float32)
        self._vad = np.zeros(self._length + VAD_LAG, np.float32)
        self._filled = 0

    def push(self, chunk: AudioChunk) -> Iterator[Window]:
        """Take a chunk of any length; yield the windows that it completes."""
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
                frames, activity = self._stream.push(self._hop_samples)
                _append(self._mfcc, frames)
                _append(self._vad, activity)
                self._filled = min(self._length, self._filled + len(frames))
                if self._filled >= frame_count(1.0):
                    yield self._window(end_ns - samples.size * 1_000_000_000 // SAMPLE_RATE_HZ)

    def _window(self, t_ns: int) -> Window:
        speech = np.empty(self._length, np.float32)
        speech[: self._length - VAD_LAG] = self._vad[2 * VAD_LAG :]
        speech[self._length - VAD_LAG :] = self._vad[-1]
        return Window(self._mfcc[-self._filled :].copy(), speech[-self._filled :], t_ns)


def mfcc_frames(samples: Float32, *, previous: float) -> Float32:
    """Return all whole frames (T, 40) of `samples` (n,); `previous` is the sample before them."""
    before = np.concatenate([[previous], samples[:-1]])
    frames = python_speech_features.mfcc(
        samples.astype(np.float64) - PREEMPHASIS * before,
        samplerate=SAMPLE_RATE_HZ,
        winlen=FRAME / SAMPLE_RATE_HZ,
        winstep=STEP / SAMPLE_RATE_HZ,
        numcep=COEFFICIENTS,
        nfilt=COEFFICIENTS,
        nfft=512,
        preemph=0,
    )
    return cast(Float32, frames.astype(np.float32))


def frame_count(seconds: float) -> int:
    """Return how many whole frames lie in so many seconds; 3 s are 298."""
    return max(1, (round(seconds * SAMPLE_RATE_HZ) - FRAME) // STEP + 1)


def clip_window(samples: Float32) -> Window:
    """Return all frames of one clip (n,) at 16 kHz as a single window, its voice activity in place.

    A clip shorter than one frame is filled up with silence.
    """
    stream = SpeechStream()
    short = max(0, FRAME - samples.size)
    mfcc, activity = stream.push(np.concatenate([samples, np.zeros(short, np.float32)]))
    _, tail = stream.push(np.zeros(VAD_LAG * STEP, np.float32))
    speech = np.concatenate([activity, tail])[VAD_LAG : VAD_LAG + len(mfcc)]
    return Window(mfcc, speech, samples.size * 1_000_000_000 // SAMPLE_RATE_HZ)


def clip_frames(samples: Float32) -> Float32:
    """Return the MFCC frames (T, 40) of one clip (n,), as `clip_window` does but without voice activity."""
    short = max(0, FRAME - samples.size)
    return mfcc_frames(np.concatenate([samples, np.zeros(short, np.float32)]), previous=0.0)


class WindowInput(Protocol):
    """Makes what one voice model reads out of a window."""

    def __call__(self, window: Window) -> Float32: ...


def window_input(features: Mapping[str, Any]) -> WindowInput:
    """Return the function that a card's `input.features` asks for; raise `ModelError` for an unknown kind."""
    if features.get("kind") == "mfcc_mean":
        mean = np.asarray(features["mean"], np.float32)
        std = np.asarray(features["std"], np.float32)
        return lambda window: pool(window.mfcc, window.speech, mean=mean, std=std)
    if features.get("kind") == "mfcc_frames":
        return FrameInput(features)
    raise ModelError(
        f"input.features.kind {features.get('kind')!r}: unknown voice features; "
        "update emotion-edge or choose another models.voice"
    )


def pool(mfcc: Float32, speech: Float32, *, mean: Float32, std: Float32) -> Float32:
    """Average (T, 40) over the frames with speech and standardise each coefficient: (40,) float32.

    Where no frame has speech all frames count, so that the result is always finite.
    """
    spoken = speech >= SPEECH_THRESHOLD
    frames = mfcc[spoken] if spoken.any() else mfcc
    return cast(Float32, ((frames.mean(axis=0) - mean) / std).astype(np.float32))


class FrameInput:
    """Makes (frames, 40) float32 in [-RANGE, RANGE] of a window: MFCC that know no gain, standardised.

    Coefficient 0 is the log energy against the window's loudest frames, cut at `ENERGY_FLOOR` below; from the
    others `centre` (0..1) of their mean over the loud frames is taken: what is left of the line and the voice
    itself. `mean` and `std` (40,) are those of the training windows.
    """

    def __init__(self, features: Mapping[str, Any]) -> None:
        self._frames = frame_count(float(features["window_s"]))
        self._centre = np.float32(features["centre"])
        self._mean = np.asarray(features["mean"], np.float32)
        self._std = np.asarray(features["std"], np.float32)

    def __call__(self, window: Window) -> Float32:
        """Return what the model reads of `window`; a longer one gives its stretch with most speech."""
        frames = centred(fitted(window.mfcc, window.speech, self._frames), self._centre)
        return np.asarray(np.clip((frames - self._mean) / self._std, -RANGE, RANGE), np.float32)


def fitted(mfcc: Float32, speech: Float32, count: int) -> Float32:
    """Return `count` frames of (T, 40): the stretch with most speech, or all after copies of the quietest."""
    short = count - len(mfcc)
    if short > 0:
        quietest = mfcc[np.argmin(mfcc[:, 0])]
        return np.concatenate([np.repeat(quietest[None], short, axis=0), mfcc])
    total = np.concatenate([[0.0], np.cumsum(speech, dtype=np.float64)])
    start = int(np.argmax(total[count:] - total[:-count]))
    return mfcc[start : start + count]


def centred(mfcc: Float32, centre: np.float32) -> Float32:
    """Return (T, 40) with the energy relative and `centre` of the mean of the loud frames taken away."""
    energy = mfcc[:, 0]
    top = np.sort(energy)[-LOUDEST_FRAMES:].mean()
    relative = np.maximum(energy - top, -ENERGY_FLOOR)
    frames: Float32 = mfcc - centre * mfcc[relative > -LOUD].mean(axis=0)
    frames[:, 0] = relative
    return frames


def _append(rows: Float32, new: Float32) -> None:
    """Shift `rows` up and put `new` at its end, in place."""
    count = min(len(rows), len(new))
    if count:
        rows[:-count] = rows[count:]
        rows[-count:] = new[-count:]
