"""Finds who in view is speaking: the person whose mouth opens when the audio sounds like an open mouth.

Lips and loudness of one speaker rise and fall together in the rhythm of syllables, 2 to 7 a second
(Chandrasekaran et al. 2009, "The natural statistics of audiovisual speech"). Slower movement is removed:
every speaker opens the mouth at the beginning of a sentence. Pure: time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.people.decision import decide
from edge.values import SAMPLE_RATE_HZ, UNCERTAIN, FaceMeasurements, Float32, Modality
from edge.voice.activity import SPEECH_THRESHOLD, VAD_LAG
from edge.voice.features import STEP
from edge.voice.pitch import FRAME
from edge.voice.windows import Window

Float64 = NDArray[np.float64]

SPAN_S = 3.0  # of video and audio that are compared
SLOW_S = 0.8  # full width of the moving average that is subtracted
SMOOTH_S = 0.1  # about the exposure and spacing of camera frames
RANGE_LOG = 6.0  # 26 dB below the loudest counts as silence
# Wide vowels are loud, and loud in the middle of the mel scale, where the second cosine of the spectrum is
# negative; the share was fitted by least squares to the mouths of five talkers
# (models/evaluation/figures/active_speaker.py).
COSINE, COSINE_SHARE = 2, -0.1
LOUD_LOG = 4.5
LOUDEST_FRAMES = 15
STILL = 0.005  # standard deviation of a mouth that does not speak; noise of the landmarks alone is 0.003
FEWEST_FRAMES = 12
SHORTEST_S = 1.5
IN_VIEW_S = 1.0
PAUSE_S = 1.0  # a speaker keeps the turn through pauses of up to this long
LEAST_SPEECH_S = 0.1  # within `PAUSE_S`
QUIETER_LOG = 2.0  # natural logarithm of energy, 8.7 dB: how much syllables differ in loudness
FULL_SPEECH_S = 1.5  # within `SPAN_S`; less speech is weaker evidence
FULL_FRAMES = 27  # within `SPAN_S`: 10 a second except for a few dropped ones; fewer are weaker evidence
STALE_S = 2.0  # after this long without a window of audio there is no speaker

# A correlation r is STEEPNESS * (r - MIDDLE) nats more probable between the lips and the voice of one person
# than of two. Fitted on montages of people who are in no figure
# (models/evaluation/figures/active_speaker.py).
STEEPNESS, MIDDLE = 22.0, 0.33
SUREST_LOG = 4.0  # limit for one window, since an echo of the rhythm at a wrong skew correlates as well
ELSEWHERE = 0.3  # prior probability that the voice comes from out of view
ENTER, EXIT = 0.7, 0.4  # probabilities, for `edge.people.decision.decide`

# Audio and video of two devices are up to 200 ms apart, by a constant amount, which is learnt.
SKEWS_S: Float64 = np.arange(-5, 6, dtype=np.float64) * 0.05
SKEW_PRIOR_S = 0.025
SKEW_PRIOR: Float64 = -0.5 * (SKEWS_S / SKEW_PRIOR_S) ** 2  # logarithm, not scaled
SKEW_MEMORY_S = 120.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks: `track` in state `track`, unclear in state `uncertain`, no one in view in state `none`.

    `confidence` is the probability of the most probable face. `owner` is the face that the voice of the last
    window belongs to, also in the pause after it; None: the voice belongs to the room only.
    """

    state: Literal["track", "uncertain", "none"]
    track: int | None = None
    confidence: float = 0.0
    owner: int | None = None

    @property
    def label(self) -> str | None:
        """The speaker on the wire: `person-3`, `uncertain`, or None for no one in view."""
        if self.track is not None:
            return f"person-{self.track}"
        return UNCERTAIN if self.is_uncertain else None

    def speaks(self, subject: str) -> bool | None:
        """Return whether `subject` (`person-3`) speaks; None if the speaker is uncertain."""
        return None if self.is_uncertain else self.label == subject

    @property
    def is_uncertain(self) -> bool:
        """Whether a voice is present, but no face is probable enough or has enough frames to compare."""
        return self.state == "uncertain"


NO_SPEAKER = Speaker("none")


@dataclass(slots=True)
class _Audio:
    """The newest frames of audio, (n,) each: time of the middle, log energy, cosine, whether it is speech."""

    t_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    energy: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    cosine: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    is_speech: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def add(self, window: Window) -> None:
        """Add the frames of a window in place of those that it repeats; drop frames that are too old."""
        count = len(window.frames)
        step_ns = STEP * 1_000_000_000 // SAMPLE_RATE_HZ
        # The newest frame ends half a step before the newest sample.
        last_ns = window.t_ns - (FRAME + STEP) * 500_000_000 // SAMPLE_RATE_HZ
        t_ns = last_ns - step_ns * np.arange(count - 1, -1, -1, dtype=np.int64)
        old = (self.t_ns < t_ns[0] - step_ns // 2) & (self.t_ns > last_ns - int((SPAN_S + 1) * 1e9))
        self.t_ns = np.concatenate([self.t_ns[old], t_ns])
        self.energy = np.concatenate([self.energy[old], window.frames[:, 0]])
        self.cosine = np.concatenate([self.cosine[old], window.frames[:, COSINE]])
        self.is_speech = np.concatenate([self.is_speech[old], window.speech >= SPEECH_THRESHOLD])
        self._estimate_newest_speech()

    def _estimate_newest_speech(self) -> None:
        """Mark the newest frames as speech if they are as loud as the speech before.

        The voice activity detector lags by `VAD_LAG` frames.
        """
        known = self.energy[:-VAD_LAG][self.is_speech[:-VAD_LAG]]
        if known.size * STEP >= LEAST_SPEECH_S * SAMPLE_RATE_HZ:
            self.is_speech[-VAD_LAG:] = self.energy[-VAD_LAG:] > known.mean() - QUIETER_LOG

    def speech_s(self, span_s: float) -> float:
        """Return the seconds of speech in the newest `span_s`."""
        newest = self.t_ns > self.t_ns[-1] - int(span_s * 1e9)
        return float(np.count_nonzero(self.is_speech & newest)) * STEP / SAMPLE_RATE_HZ

    def openness(self, t_ns: NDArray[np.int64]) -> Float64:
        """Return how open the mouth of the voice is at `t_ns`, of the same shape; 0 is silence.

        The result does not depend on the gain of the microphone.
        """
        level = self.energy - np.sort(self.energy)[-LOUDEST_FRAMES:].mean()
        loud = np.maximum(level + RANGE_LOG, 0.0)
        cosine = self.cosine - self.cosine[level > -LOUD_LOG].mean()
        opened = loud * (1 + COSINE_SHARE / RANGE_LOG * cosine)
        half = round(SMOOTH_S * SAMPLE_RATE_HZ / STEP) // 2
        smooth = np.convolve(np.pad(opened, half, "edge"), np.full(2 * half + 1, 1 / (2 * half + 1)), "valid")
        at_s, known_s = (t_ns - self.t_ns[0]) / 1e9, (self.t_ns - self.t_ns[0]) / 1e9
        return np.asarray(np.interp(at_s, known_s, smooth), np.float64)


@dataclass(slots=True)
class SpeakerTracker:
    """Compares lips and loudness of the last seconds; add all frames and all windows of audio."""

    _mouths: dict[int, deque[tuple[int, float | None]]] = field(default_factory=dict)
    _audio: _Audio = field(default_factory=_Audio)
    _skew: Float64 = field(default_factory=SKEW_PRIOR.copy)  # (skews,) logarithm of the probability
    _window_ns: int = 0  # time of the newest window
    _speaker: Speaker = NO_SPEAKER  # at that time

    @property
    def skew_s(self) -> float:
        """The estimate of how much later the audio of an instant is stamped than its video."""
        return float(SKEWS_S @ _softmax(self._skew))

    def add_faces(self, measurements: Sequence[FaceMeasurements]) -> None:
        """Add the mouths in one frame."""
        for face in measurements:
            self._mouths.setdefault(face.track, deque()).append((face.t_ns, face.mouth))
        newest_ns = max((face.t_ns for face in measurements), default=0)
        oldest_ns = newest_ns - int((SPAN_S + 1) * 1e9)
        for track, mouth in list(self._mouths.items()):
            while mouth and mouth[0][0] < oldest_ns:
                mouth.popleft()
            if not mouth:
                del self._mouths[track]

    def add_window(self, window: Window) -> Speaker:
        """Add a window of audio; return who speaks at its end."""
        since_s = min(SPAN_S, max(0.0, (window.t_ns - self._window_ns) / 1e9))
        self._window_ns = window.t_ns
        if len(window.frames):
            self._audio.add(window)
        tracks = [
            track
            for track, mouth in sorted(self._mouths.items())
            if mouth[-1][0] > window.t_ns - int(IN_VIEW_S * 1e9)
        ]
        if not len(window.frames) or self._audio.speech_s(PAUSE_S) < LEAST_SPEECH_S:
            owner = self._speaker.owner if self._speaker.owner in tracks else None
            self._speaker = Speaker("none", owner=owner)
        else:
            self._speaker = self._choose(tracks, since_s)
        return self._speaker

    def speaker(self, now_ns: int) -> Speaker:
        """Return who speaks at `now_ns`; no one if the newest window is older than `STALE_S`."""
        return self._speaker if now_ns - self._window_ns <= STALE_S * 1e9 else NO_SPEAKER

    def forget(self, modality: Modality) -> None:
        """Drop the mouths or the audio: the device was switched off."""
        if modality is Modality.FACE:
            self._mouths.clear()
        else:
            self._audio = _Audio()
        self._speaker = NO_SPEAKER

    def _choose(self, tracks: Sequence[int], since_s: float) -> Speaker:
        """Return the most probable of `tracks` if it stands out from the others and someone out of view."""
        correlations: dict[int, Float64] = {}
        moving = []  # faces that may speak: their mouths move, or there are too few frames to exclude it
        for track in tracks:
            t_ns, opening = self._lips(track)
            if opening.size < FEWEST_FRAMES or t_ns[-1] - t_ns[0] < SHORTEST_S * 1e9:
                moving.append(track)
                continue
            correlation, deviation = self._correlate(t_ns, opening)
            if deviation >= STILL:
                moving.append(track)
            correlations[track] = correlation
        if not moving:
            return NO_SPEAKER
        only = moving[0] if len(tracks) == 1 else None
        if not correlations:
            return Speaker("uncertain", owner=only)
        odds = self._log_odds(correlations, faces=len(tracks))
        p = (np.exp(odds) / np.exp(odds).sum(axis=0)) @ _softmax(self._skew)  # (faces + 1,)
        self._learn_skew(odds, since_s)
        return self._decide(list(correlations), p[:-1].tolist(), only)

    def _log_odds(self, correlations: dict[int, Float64], *, faces: int) -> Float64:
        """Return (correlations + 1, skews) log odds of each face; the last row, 0, is someone out of view."""
        # Little speech and few frames are weak evidence.
        frames = max(self._lips(track)[0].size for track in correlations)
        weight = min(1.0, self._audio.speech_s(SPAN_S) / FULL_SPEECH_S) * min(1.0, frames / FULL_FRAMES)
        prior = np.log((1 - ELSEWHERE) / ELSEWHERE / faces)
        return np.stack(
            [prior + weight * np.minimum(STEEPNESS * (r - MIDDLE), SUREST_LOG) for r in correlations.values()]
            + [np.zeros(len(SKEWS_S))]
        )

    def _lips(self, track: int) -> tuple[NDArray[np.int64], Float64]:
        """Return the times (n,) and openings (n,) of a mouth within the span of the audio."""
        newest_ns = int(self._audio.t_ns[-1])
        oldest_ns = max(int(self._audio.t_ns[0]), newest_ns - int(SPAN_S * 1e9))
        known = [(t, m) for t, m in self._mouths[track] if m is not None and oldest_ns <= t <= newest_ns]
        return np.array([t for t, _ in known], np.int64), np.array([m for _, m in known], np.float64)

    def _correlate(self, t_ns: NDArray[np.int64], opening: Float64) -> tuple[Float64, float]:
        """Return the correlation of a mouth with the audio at each of `SKEWS_S`, and how much it moves."""
        apart_s = (t_ns[:, None] - t_ns[None]) / 1e9
        mean = np.where(np.abs(apart_s) < SLOW_S / 2, 0.5 + 0.5 * np.cos(2 * np.pi * apart_s / SLOW_S), 0.0)
        mean /= mean.sum(axis=1, keepdims=True)
        mouth = opening - mean @ opening
        deviation = float(mouth.std())
        # (n, skews)
        voice = self._audio.openness(t_ns[:, None] + (SKEWS_S * 1e9).astype(np.int64))
        voice = voice - mean @ voice
        # A movement below that of speech correlates with nothing.
        scale = np.hypot(deviation, STILL) * np.hypot(voice.std(axis=0), 0.1)
        return (mouth - mouth.mean()) @ voice / len(mouth) / scale, deviation

    def _learn_skew(self, odds: Float64, since_s: float) -> None:
        """Raise the probability of the skews at which some lips fit, by the new share of the window."""
        fit = np.log(np.exp(odds).mean(axis=0))
        kept = np.exp(-since_s / SKEW_MEMORY_S)
        self._skew = SKEW_PRIOR + kept * (self._skew - SKEW_PRIOR) + since_s / SPAN_S * fit

    def _decide(self, tracks: list[int], p: list[float], only: int | None) -> Speaker:
        """Return the speaker for the probability of each track; the one before is kept down to `EXIT`."""
        before = tracks.index(self._speaker.track) if self._speaker.track in tracks else None
        choice = decide(p, enter=ENTER, exit=EXIT, current=before)
        if choice is None:
            return Speaker("uncertain", None, round(max(p), 4), only)
        return Speaker("track", tracks[choice], round(p[choice], 4), tracks[choice])


def _softmax(logarithms: Float64) -> Float64:
    """Return exp(`logarithms`) divided by its sum."""
    e = np.exp(logarithms - logarithms.max())
    return np.asarray(e / e.sum(), np.float64)
