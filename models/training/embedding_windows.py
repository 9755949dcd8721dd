"""Samples windows of embeddings: frames at uneven times, as from a camera, resampled as on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.face.history import resample
from edge.inference.features import VideoSpec
from edge.values import Float32
from models.data.expression_sequences import NEUTRAL, ONSET
from models.training.embeddings import EmbeddedSequence

FPS = (3.0, 30.0)  # from a hot or slow device to a fast one
JITTER, LOST = 0.25, 0.05  # share of the frame interval, share of the frames
ONSET_S = (0.3, 1.5)  # from neutral to the peak; half of CK+'s onsets last 0.4 to 0.7 s
HOLD_S = 1.5  # maximum before and after the onset
STEADY = 0.3  # probability that a frame uses the same view as the frame before
# Kinds of windows: a filmed or blended onset, a still face, a transition between two still faces.
MIX = {"course": 0.35, "still": 0.35, "change": 0.30}
# Maximum noise per frame, in standard deviations of each element of the embeddings. Without noise the model
# relies on the last frame alone, and camera noise makes its output flicker.
NOISE = 0.5
NEW_TRACK, REVERSED = 0.3, 0.2  # probabilities: a track begins within the window; an onset runs backwards

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Inputs (n, steps, 192) with soft targets (n, 7); `p` (n, 7) of the newest frame; `share` (n,)."""

    inputs: Float32
    targets: Float32
    p: Float32
    share: Float32


class WindowSampler:
    """Samples windows of `spec` from sequences; the same `random` gives the same windows.

    `noise` is the maximum noise per frame, in standard deviations of each element of the embeddings.
    """

    def __init__(self, sequences: Sequence[EmbeddedSequence], spec: VideoSpec, *, noise: float = 0.0) -> None:
        self._spec = spec
        deviation = np.concatenate([sequence.embeddings[0] for sequence in sequences]).std(axis=0)
        self._noise = np.asarray(noise * deviation, np.float32)
        onsets = [sequence for sequence in sequences if sequence.steps > 1]
        stills = [sequence for sequence in sequences if sequence.steps == 1]
        self._stills_of: dict[int, list[EmbeddedSequence]] = {}
        for sequence in stills:
            self._stills_of.setdefault(int(sequence.targets[0].argmax()), []).append(sequence)
        self._onsets_of: dict[int, list[EmbeddedSequence]] = {}
        for sequence in onsets:
            self._onsets_of.setdefault(int(sequence.targets[-1].argmax()), []).append(sequence)

    def draw(self, random: np.random.Generator, *, count: int) -> Windows:
        """Return `count` windows with kinds mixed as in `MIX` and classes equally likely."""
        kinds = random.choice(len(MIX), count, p=list(MIX.values()))
        drawn = [self._window(tuple(MIX)[kind], random) for kind in kinds]
        inputs, targets, p, share = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return Windows(inputs.astype(np.float32), targets, p, share.astype(np.float32))

    def _window(self, kind: str, random: np.random.Generator) -> tuple[Float32, Float32, Float32, float]:
        if kind == "course" and not self._onsets_of:
            kind = "change"
        if kind == "course":
            sequence = _choice(self._onsets_of[_choice(sorted(self._onsets_of), random)], random)
        elif kind == "still":
            sequence = self._still(random)
        else:
            sequence = _transition(self._still(random, neutral=0.6), self._still(random, neutral=0.15))
        times_ns, way = _frame_times(sequence.steps, self._spec, random)
        values, p = _observed(sequence, way, random)
        values = values + random.random() * self._noise * random.standard_normal(
            values.shape, dtype=np.float32
        )
        steps, share = resample(times_ns, values, self._spec)
        return steps, _interpolated(sequence.targets, way[-1:])[0], p, share

    def _still(self, random: np.random.Generator, *, neutral: float | None = None) -> EmbeddedSequence:
        """Return a still face of a random class; `neutral` is the probability of that class."""
        if neutral is not None and random.random() < neutral:
            return _choice(self._stills_of[NEUTRAL], random)
        return _choice(self._stills_of[_choice(sorted(self._stills_of), random)], random)


def _frame_times(
    knots: int, spec: VideoSpec, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return times (k,) in ns of a track's frames and their positions in the sequence, 0..knots - 1."""
    before_s, after_s = random.uniform(0, HOLD_S, 2)
    onset_s = float(np.exp(random.uniform(*np.log(ONSET_S))))
    now_s = random.uniform(0, before_s + onset_s + after_s)
    span_s = spec.span_ns / 1e9
    since_s = random.uniform(0, span_s) if random.random() < NEW_TRACK else span_s + 0.5
    step_s = 1 / float(np.exp(random.uniform(*np.log(FPS))))
    count = max(1, int(since_s / step_s))
    uneven = 1 + JITTER * random.uniform(-1, 1, count)
    ages_s = np.concatenate([[0.0], np.cumsum(uneven * step_s)])[::-1]
    kept = random.random(len(ages_s)) >= LOST
    kept[-1] = True
    times_s = now_s - ages_s[kept]
    way = np.clip((times_s - before_s) / onset_s, 0, 1)
    if random.random() < REVERSED:
        way = 1 - way
    return np.round((times_s + 100) * 1e9).astype(np.int64), way * (knots - 1)


def _observed(
    sequence: EmbeddedSequence, way: NDArray[np.float64], random: np.random.Generator
) -> tuple[Float32, Float32]:
    """Return embeddings (k, n) at positions `way` (k,), each from a random view, and p (7,) of the last."""
    views = random.integers(len(sequence.embeddings), size=len(way))
    for i in range(1, len(way)):
        if random.random() < STEADY:
            views[i] = views[i - 1]
    low = np.minimum(way.astype(np.int64), sequence.steps - 1)
    high = np.minimum(low + 1, sequence.steps - 1)
    share = (way - low).astype(np.float32)[:, np.newaxis]
    values = (1 - share) * sequence.embeddings[views, low] + share * sequence.embeddings[views, high]
    p = (1 - share[-1]) * sequence.p[views[-1], low[-1]] + share[-1] * sequence.p[views[-1], high[-1]]
    return values, p


def _interpolated(values: Float32, way: NDArray[np.float64]) -> Float32:
    """Return (n, 7): the rows of `values` (k, 7) interpolated at positions `way` (n,)."""
    places = np.arange(len(values))
    return np.stack([np.interp(way, places, column) for column in values.T], axis=1).astype(np.float32)


def _transition(a: EmbeddedSequence, b: EmbeddedSequence) -> EmbeddedSequence:
    """Return the transition from one still face to another; the two may show different people."""
    low, high = ONSET
    # Four steps, since targets change faster than the face: 2 x (views, 1, n) -> (views, 4, n).
    share = np.array([0, low, high, 1], np.float32)[:, np.newaxis]
    views = min(len(a.embeddings), len(b.embeddings))
    return EmbeddedSequence(
        embeddings=(1 - share) * a.embeddings[:views] + share * b.embeddings[:views],
        p=(1 - share) * a.p[:views] + share * b.p[:views],
        targets=np.concatenate([a.targets, a.targets, b.targets, b.targets]),
        person=b.person,
        kind="change",
    )


def _choice(values: Sequence[T], random: np.random.Generator) -> T:
    return values[int(random.integers(len(values)))]
