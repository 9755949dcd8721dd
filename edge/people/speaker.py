"""Tells who of those in view is speaking: whose mouth opens when what is heard sounds open.

Lips and loudness of one talker rise and fall together in the rhythm of syllables, 2 to 7 a second
(Chandrasekaran et al. 2009, "The natural statistics of audiovisual speech"). Slower movement is taken out,
since everybody who talks opens the mouth at the beginning of a sentence. Pure: time comes in with the values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.values import SAMPLE_RATE_HZ, UNCERTAIN, FaceMeasurements, Float32, Modality
from edge.voice.activity import SPEECH_THRESHOLD, VAD_LAG
from edge.voice.features import STEP
from edge.voice.pitch import FRAME
from edge.voice.windows import Window

Float64 = NDArray[np.float64]

SPAN_S = 3.0  # of picture and sound that are compared
SLOW_S = 0.8  # whole width of the mean that is taken out
SMOOTH_S = 0.1  # a frame of the camera sees about that much
RANGE_LOG = 6.0  # what is 26 dB below the loudest is silence
# Wide vowels are loud, and loud in the middle of the mel scale, where the second cosine of the spectrum is
# negative; the share was fitted by least squares to the mouths of five talkers
# (models/evaluation/figures/active_speaker.py).
COSINE, COSINE_SHARE = 2, -0.1
LOUD_LOG = 4.5
LOUDEST_FRAMES = 15
STILL = 0.005  # deviation of a mouth that does not speak; the landmarks of a shut one tremble by 0.003
FEWEST_FRAMES = 12
SHORTEST_S = 1.5
IN_VIEW_S = 1.0
PAUSE_S = 1.0  # a talker keeps the turn for so long
LEAST_SPEECH_S = 0.1  # within `PAUSE_S`
QUIETER_LOG = 2.0  # energy, 8.7 dB: syllables are so different
FULL_SPEECH_S = 1.5  # within `SPAN_S`; with less, less is known
FULL_FRAMES = 27  # likewise: 10 a second but for a few dropped ones
STALE_S = 2.0  # without sound nobody is heard

# The correlation of a talker with the own voice is STEEPNESS * (r - MIDDLE) nats likelier than that of
# somebody else's; fitted on montages of people who are in no figure
# (models/evaluation/figures/active_speaker.py).
STEEPNESS, MIDDLE = 22.0, 0.33
SUREST_LOG = 4.0  # what one window can prove: an echo of the rhythm at a wrong skew looks as good
ELSEWHERE = 0.3  # share of voices that come from nobody in view
ENTER, EXIT = 0.7, 0.4

# Picture and sound of two devices are up to 200 ms apart, always by the same amount: it is learnt.
SKEWS_S: Float64 = np.arange(-5, 6, dtype=np.float64) * 0.05
SKEW_PRIOR_S = 0.025
SKEW_PRIOR: Float64 = -0.5 * (SKEWS_S / SKEW_PRIOR_S) ** 2  # logarithm, not scaled
SKEW_MEMORY_S = 120.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks: `track` in state `track`; `uncertain` when nobody stands out; `nobody` of those in view.

    `confidence` is the probability of the likeliest face. `owner` is the face that the voice of the last
    window belongs to, also in the pause after it; None leaves it to the room.
    """

    state: Literal["track", "uncertain", "nobody"]
    track: int | None = None
    confidence: float = 0.0
    owner: int | None = None

    @property
    def word(self) -> str | None:
        """What is told on the wire: `person-3`, `uncertain`, or None for nobody."""
        return f"person-{self.track}" if self.track is not None else UNCERTAIN if self._is_open else None

    def speaks(self, subject: str) -> bool | None:
        """Tell whether `subject` (`person-3`) speaks; None where that is uncertain."""
        return None if self._is_open else self.word == subject

    @property
    def _is_open(self) -> bool:
        return self.state == "uncertain"


NO_SPEAKER = Speaker("nobody")


@dataclass(slots=True)
class _Sound:
    """What was heard lately, frame by frame (n,): its middle, its log energy, its cosine, is it speech."""

    t_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    energy: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    cosine: Float32 = field(default_factory=lambda: np.empty(0, np.float32))
    is_speech: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))

    def take(self, window: Window) -> None:
        """Put the frames of a window in place of those that it repeats; forget what is too old."""
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
        self._guess_newest()

    def _guess_newest(self) -> None:
        """Take sound as loud as the speech before it for speech: voice activity is known `VAD_LAG` late."""
        known = self.energy[:-VAD_LAG][self.is_speech[:-VAD_LAG]]
        if known.size * STEP >= LEAST_SPEECH_S * SAMPLE_RATE_HZ:
            self.is_speech[-VAD_LAG:] = self.energy[-VAD_LAG:] > known.mean() - QUIETER_LOG

    def speech_s(self, span_s: float) -> float:
        """Return the seconds of speech in the newest `span_s`."""
        newest = self.t_ns > self.t_ns[-1] - int(span_s * 1e9)
        return float(np.count_nonzero(self.is_speech & newest)) * STEP / SAMPLE_RATE_HZ

    def openness(self, t_ns: NDArray[np.int64]) -> Float64:
        """Return how open a mouth sounds at `t_ns`, of the same shape; 0 is silence, and no gain moves it."""
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
    """Remembers lips and loudness of the last seconds: `see` every frame, `hear` every window."""

    _mouths: dict[int, deque[tuple[int, float | None]]] = field(default_factory=dict)
    _sound: _Sound = field(default_factory=_Sound)
    _skew: Float64 = field(default_factory=SKEW_PRIOR.copy)
    _heard_ns: int = 0
    _now: Speaker = NO_SPEAKER

    @property
    def skew_s(self) -> float:
        """How much later the sound of one instant is stamped than its picture, as far as it is known."""
        return float(SKEWS_S @ _shares(self._skew))

    def add_faces(self, measurements: Sequence[FaceMeasurements]) -> None:
        """Take what the mouths in one frame do."""
        for reading in measurements:
            mouth = self._mouths.setdefault(reading.track, deque())
            mouth.append((reading.t_ns, reading.mouth))
        newest_ns = max((reading.t_ns for reading in measurements), default=0)
        oldest_ns = newest_ns - int((SPAN_S + 1) * 1e9)
        for track, mouth in list(self._mouths.items()):
            while mouth and mouth[0][0] < oldest_ns:
                mouth.popleft()
            if not mouth:
                del self._mouths[track]

    def add_window(self, window: Window) -> Speaker:
        """Take a window of sound; return who speaks at its end."""
        since_s = min(SPAN_S, max(0.0, (window.t_ns - self._heard_ns) / 1e9))
        self._heard_ns = window.t_ns
        if len(window.frames):
            self._sound.take(window)
        tracks = [
            track
            for track, mouth in sorted(self._mouths.items())
            if mouth[-1][0] > window.t_ns - int(IN_VIEW_S * 1e9)
        ]
        if not len(window.frames) or self._sound.speech_s(PAUSE_S) < LEAST_SPEECH_S:
            owner = self._now.owner if self._now.owner in tracks else None
            self._now = Speaker("nobody", owner=owner)
        else:
            self._now = self._choose(tracks, since_s)
        return self._now

    def speaker(self, now_ns: int) -> Speaker:
        """Return who speaks at `now_ns`; nobody where no sound came for `STALE_S`."""
        return self._now if now_ns - self._heard_ns <= STALE_S * 1e9 else NO_SPEAKER

    def forget(self, modality: Modality) -> None:
        """Drop what was seen or heard: its device was switched off."""
        if modality is Modality.FACE:
            self._mouths.clear()
        else:
            self._sound = _Sound()
        self._now = NO_SPEAKER

    def _choose(self, tracks: Sequence[int], since_s: float) -> Speaker:
        """Weigh those in view against each other and against somebody out of view."""
        scores: dict[int, Float64] = {}
        moving = []
        for track in tracks:
            t_ns, opening = self._lips(track)
            if opening.size < FEWEST_FRAMES or t_ns[-1] - t_ns[0] < SHORTEST_S * 1e9:
                moving.append(track)  # nothing is known against it
                continue
            correlation, deviation = self._compare(t_ns, opening)
            if deviation >= STILL:
                moving.append(track)
            scores[track] = correlation
        if not moving:
            return NO_SPEAKER
        only = moving[0] if len(tracks) == 1 else None
        if not scores:
            return Speaker("uncertain", owner=only)
        # Little speech and rare frames tell less.
        frames = max(mouth.size for _, mouth in (self._lips(track) for track in scores))
        sureness = min(1.0, self._sound.speech_s(SPAN_S) / FULL_SPEECH_S) * min(1.0, frames / FULL_FRAMES)
        prior = np.log((1 - ELSEWHERE) / ELSEWHERE / len(tracks))
        # (faces + 1, skews): the last row is somebody out of view.
        odds = np.stack(
            [prior + sureness * np.minimum(STEEPNESS * (r - MIDDLE), SUREST_LOG) for r in scores.values()]
            + [np.zeros(len(SKEWS_S))]
        )
        p = (np.exp(odds) / np.exp(odds).sum(axis=0)) @ _shares(self._skew)
        self._learn_skew(odds, since_s)
        return self._decide(dict(zip(scores, p[:-1].tolist(), strict=True)), only)

    def _lips(self, track: int) -> tuple[NDArray[np.int64], Float64]:
        """Return when the mouth was seen (n,), and its opening (n,), within the span that was heard."""
        newest_ns = int(self._sound.t_ns[-1])
        oldest_ns = max(int(self._sound.t_ns[0]), newest_ns - int(SPAN_S * 1e9))
        seen = [(t, m) for t, m in self._mouths[track] if m is not None and oldest_ns <= t <= newest_ns]
        return np.array([t for t, _ in seen], np.int64), np.array([m for _, m in seen], np.float64)

    def _compare(self, t_ns: NDArray[np.int64], opening: Float64) -> tuple[Float64, float]:
        """Return how a mouth correlates with the sound at each of `SKEWS_S`, and how much it moves."""
        apart_s = (t_ns[:, None] - t_ns[None]) / 1e9
        mean = np.where(np.abs(apart_s) < SLOW_S / 2, 0.5 + 0.5 * np.cos(2 * np.pi * apart_s / SLOW_S), 0.0)
        mean /= mean.sum(axis=1, keepdims=True)
        mouth = opening - mean @ opening
        deviation = float(mouth.std())
        # (n, skews)
        sound = self._sound.openness(t_ns[:, None] + (SKEWS_S * 1e9).astype(np.int64))
        sound = sound - mean @ sound
        # What trembles less than a mouth that speaks correlates with nothing.
        scale = np.hypot(deviation, STILL) * np.hypot(sound.std(axis=0), 0.1)
        return (mouth - mouth.mean()) @ sound / len(mouth) / scale, deviation

    def _learn_skew(self, odds: Float64, since_s: float) -> None:
        """Believe more in the skews at which somebody's lips fit; of a window only what is new counts."""
        fit = np.log(np.exp(odds).mean(axis=0))
        kept = np.exp(-since_s / SKEW_MEMORY_S)
        self._skew = SKEW_PRIOR + kept * (self._skew - SKEW_PRIOR) + since_s / SPAN_S * fit

    def _decide(self, p: dict[int, float], only: int | None) -> Speaker:
        """Hysteresis: who speaks is believed above `ENTER`, and until below `EXIT` or surpassed."""
        best = max(p, key=lambda track: p[track])
        before = self._now.track
        if p[best] >= ENTER:
            return Speaker("track", best, round(p[best], 4), best)
        if before is not None and p.get(before, 0.0) >= EXIT:
            return Speaker("track", before, round(p[before], 4), before)
        return Speaker("uncertain", None, round(p[best], 4), only)


def _shares(logarithms: Float64) -> Float64:
    """Return what sums to 1 and is proportional to exp(`logarithms`)."""
    e = np.exp(logarithms - logarithms.max())
    return np.asarray(e / e.sum(), np.float64)
