"""Turns sound into what the voice model reads: voice activity, MFCC and pitch frames, sliding windows.

Training uses this very code, so what the model learnt and what the device computes cannot drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from pymicro_vad import MicroVad

from edge.errors import ModelError
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Float32, Prediction
from edge.voice.pitch import pitch_frames

FRAME = 400  # samples, 25 ms
STEP = 160  # samples, 10 ms; also the step of the voice activity detector
COEFFICIENTS = 40
COLUMNS = COEFFICIENTS + 2  # of a frame: MFCC, then octaves above 200 Hz and periodicity
PREEMPHASIS = 0.97
# Rises and falls of pymicro-vad's probability lie this many steps behind the sound's own energy
# (median over 50 RAVDESS clips, both edges), and its first answer comes after 76 steps.
VAD_LAG = 45
VAD_WARM_UP = 76
SPEECH_THRESHOLD = 0.5
MIN_SPEECH_S = 0.5
# Contrast of a window that noise drowns, and of a clear one. Medians of 60 clips each of TESS, RAVDESS and
# nEMO: 39, 78 and 40 dB as they are, 22, 25 and 20 with babble 10 dB under them, 14, 16 and 12 with as much
# babble as speech, 10 to 12 where babble is 5 dB above.
NOISY_DB, CLEAR_DB = 6.0, 26.0
# Of the frames that a sequence model reads. Energies are natural logarithms: 1 is 4.3 dB.
LOUDEST_FRAMES = 15
ENERGY_FLOOR = np.float32(8.0)
LOUD = np.float32(4.5)
VOICED = np.float32(0.6)  # periodicity
RANGE = np.float32(4.0)  # standard deviations
MELODY, HEIGHT, PERIODICITY = 37, 38, 39  # columns of what `relative` returns


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The frames of the last seconds: (T, 42) float32, and `speech` (T,) float32 probability.

    A frame is 40 MFCC, then the pitch as `edge.voice.pitch` has it. In a stream there are none, (0, 42),
    where nothing was spoken. `t_ns` is when its newest sample was captured.
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
        """Tell whether there is enough speech to say anything about it."""
        return self.speech_s >= MIN_SPEECH_S

    @property
    def quality(self) -> float:
        """How much speech there is and how clear of noise, 0..1; 1.5 s are as good as it gets."""
        if not len(self.frames):
            return 0.0
        clear = (self.contrast_db - NOISY_DB) / (CLEAR_DB - NOISY_DB)
        return min(1.0, self.speech_s / 1.5) * float(np.clip(clear, 0, 1))

    @property
    def contrast_db(self) -> float:
        """How far the loudest frames stand above the quietest ones, which noise fills up."""
        energy = np.sort(self.frames[:, 0])
        nepers = energy[-LOUDEST_FRAMES:].mean() - energy[:LOUDEST_FRAMES].mean()
        return float(10 / np.log(10) * nepers)


@dataclass(frozen=True, slots=True, eq=False)
class VoiceResult:
    """One window of sound; `prediction` is None where there is too little speech in it."""

    window: Window
    prediction: Prediction | None


class SpeechStream:
    """Computes voice activity as sound comes in, and frames, each once, when they are asked for.

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

    @property
    def waiting(self) -> int:
        """How many frames could be computed now."""
        return max(0, (self._pending.size - FRAME) // STEP + 1)

    def push(self, samples: Float32) -> Float32:
        """Take `samples` (n,); return the new steps of voice activity (m,) float32."""
        self._pending = np.concatenate([self._pending, samples])
        self._vad_pending = np.concatenate([self._vad_pending, samples])
        return self._activity()

    def frames(self) -> Float32:
        """Return the frames (k, 42) float32 since they were last asked for."""
        if not self.waiting:
            return np.empty((0, COLUMNS), np.float32)
        frames = sound_frames(self._pending, previous=float(self._previous))
        self.skip(self.waiting)
        return frames

    def skip(self, count: int) -> None:
        """Forget the oldest `count` waiting frames."""
        if count > 0:
            self._previous = self._pending[count * STEP - 1]
            self._pending = self._pending[count * STEP :]

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
        self._frames = np.zeros((self._length, COLUMNS), np.float32)
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
                waiting = self._stream.waiting
                _append(self._vad, self._stream.push(self._hop_samples))
                self._filled = min(self._length, self._filled + self._stream.waiting - waiting)
                # Nobody asks for frames that no window has any more.
                self._stream.skip(self._stream.waiting - self._length)
                if self._filled >= frame_count(1.0):
                    yield self._window(end_ns - samples.size * 1_000_000_000 // SAMPLE_RATE_HZ)

    def _window(self, t_ns: int) -> Window:
        speech = np.empty(self._length, np.float32)
        speech[: self._length - VAD_LAG] = self._vad[2 * VAD_LAG :]
        speech[self._length - VAD_LAG :] = self._vad[-1]
        speech = speech[-self._filled :]
        if not np.any(speech >= SPEECH_THRESHOLD):  # most of the day: a third of what silence would cost
            return Window(self._frames[:0], speech, t_ns)
        _append(self._frames, self._stream.frames())
        return Window(self._frames[-self._filled :].copy(), speech, t_ns)


def sound_frames(samples: Float32, *, previous: float) -> Float32:
    """Return all whole frames (T, 42) of `samples` (n,), n >= 400; `previous` is the sample before them."""
    # Not at the top: with scipy a quarter of what the daemon imports, for which the first picture would wait.
    import python_speech_features

    samples = samples[: (samples.size - FRAME) // STEP * STEP + FRAME]
    before = np.concatenate([[previous], samples[:-1]])
    mfcc = python_speech_features.mfcc(
        samples.astype(np.float64) - PREEMPHASIS * before,
        samplerate=SAMPLE_RATE_HZ,
        winlen=FRAME / SAMPLE_RATE_HZ,
        winstep=STEP / SAMPLE_RATE_HZ,
        numcep=COEFFICIENTS,
        nfilt=COEFFICIENTS,
        nfft=512,
        preemph=0,
    )
    raw = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::STEP]  # (T, 400)
    return np.concatenate([mfcc.astype(np.float32), pitch_frames(raw)], axis=1)


def frame_count(seconds: float) -> int:
    """Return how many whole frames lie in so many seconds; 3 s are 298."""
    return max(1, (round(seconds * SAMPLE_RATE_HZ) - FRAME) // STEP + 1)


def clip_window(samples: Float32) -> Window:
    """Return all frames of one clip (n,) at 16 kHz as a single window, its voice activity in place.

    A clip shorter than one frame is filled up with silence.
    """
    stream = SpeechStream()
    short = max(0, FRAME - samples.size)
    activity = stream.push(np.concatenate([samples, np.zeros(short, np.float32)]))
    frames = stream.frames()
    tail = stream.push(np.zeros(VAD_LAG * STEP, np.float32))
    speech = np.concatenate([activity, tail])[VAD_LAG : VAD_LAG + len(frames)]
    return Window(frames, speech, samples.size * 1_000_000_000 // SAMPLE_RATE_HZ)


def clip_frames(samples: Float32) -> Float32:
    """Return the frames (T, 42) of one clip (n,), as `clip_window` does but without voice activity."""
    short = max(0, FRAME - samples.size)
    return sound_frames(np.concatenate([samples, np.zeros(short, np.float32)]), previous=0.0)


class WindowInput(Protocol):
    """Makes what one voice model reads out of a window."""

    def __call__(self, window: Window) -> Float32: ...


def window_input(features: Mapping[str, Any]) -> WindowInput:
    """Return the function that a card's `input.features` asks for; raise `ModelError` for an unknown kind."""
    if features.get("kind") == "mfcc_mean":
        mean = np.asarray(features["mean"], np.float32)
        std = np.asarray(features["std"], np.float32)
        return lambda window: pool(window.mfcc, window.speech, mean=mean, std=std)
    if features.get("kind") == "mfcc_pitch_frames":
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
    """Makes (frames, 40) float32 in [-RANGE, RANGE] of a window: MFCC and melody that know no gain.

    `mean` and `std` (40,) are those of the training windows.
    """

    def __init__(self, features: Mapping[str, Any]) -> None:
        self._count = frame_count(float(features["window_s"]))
        self._mean = np.asarray(features["mean"], np.float32)
        self._std = np.asarray(features["std"], np.float32)

    def __call__(self, window: Window) -> Float32:
        """Return what the model reads of `window`; a longer one gives its stretch with most speech."""
        values = relative(fitted(window.frames, window.speech, self._count))
        return np.asarray(np.clip((values - self._mean) / self._std, -RANGE, RANGE), np.float32)


def fitted(frames: Float32, speech: Float32, count: int) -> Float32:
    """Return `count` of (T, 42) frames: the stretch with most speech, or all after copies of the quietest."""
    short = count - len(frames)
    if short > 0:
        quietest = frames[np.argmin(frames[:, 0])]
        return np.concatenate([np.repeat(quietest[None], short, axis=0), frames])
    total = np.concatenate([[0.0], np.cumsum(speech, dtype=np.float64)])
    start = int(np.argmax(total[count:] - total[:-count]))
    return frames[start : start + count]


def relative(frames: Float32) -> Float32:
    """Return (T, 40) values of a window's (T, 42) frames that no gain, line or microphone moves.

    0: log energy against the loudest frames, cut at `ENERGY_FLOOR` below. 1 to 36: MFCC without their mean
    over the loud frames. 37: octaves above the window's median pitch, 38: octaves above 200 Hz, both 0 where
    there is no clear pitch. 39: periodicity, 0..1. The three highest MFCC, which say least, give way.
    """
    mfcc, octaves, periodicity = (
        frames[:, :COEFFICIENTS],
        frames[:, COEFFICIENTS],
        frames[:, COEFFICIENTS + 1],
    )
    energy = mfcc[:, 0]
    energy = np.maximum(energy - np.sort(energy)[-LOUDEST_FRAMES:].mean(), -ENERGY_FLOOR)
    is_loud = energy > -LOUD
    values: Float32 = mfcc - mfcc[is_loud].mean(axis=0)
    is_voiced = is_loud & (periodicity > VOICED)
    median = np.median(octaves[is_voiced]) if is_voiced.any() else np.float32(0)
    values[:, 0] = energy
    values[:, MELODY] = np.where(is_voiced, np.clip(octaves - median, -1.2, 1.2), 0)
    values[:, HEIGHT] = np.where(is_voiced, octaves, 0)
    values[:, PERIODICITY] = periodicity
    return values


def _append(rows: Float32, new: Float32) -> None:
    """Shift `rows` up and put `new` at its end, in place."""
    count = min(len(rows), len(new))
    if count:
        rows[:-count] = rows[count:]
        rows[-count:] = new[-count:]
