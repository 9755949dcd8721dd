"""Draws what a camera may have seen of a course: pictures at uneven times, resampled as the device does."""

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

FPS = (3.0, 30.0)  # a hot or a slow device, and a fast one
JITTER, LOST = 0.25, 0.05  # of the time between two pictures, and of the pictures
ONSET_S = (0.3, 1.5)  # from neutral to the peak; of CK+'s onsets the middle half lasts 0.4 to 0.7 s
HOLD_S = 1.5  # before and after, at most
STEADY = 0.3  # how often the next picture is shaken as the one before
# What a window shows: a course as it was filmed or blended, one face held, one face becoming another.
MIX = {"course": 0.35, "still": 0.35, "change": 0.30}
# Of the deviation of each number of an embedding, new in every picture: without it the last picture is
# believed as it is, and what a camera's noise does to it flickers through.
NOISE = 0.5
NEWCOMER, RETURN = 0.3, 0.2  # how often a track begins within the window, and a course runs backwards

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Inputs (n, steps, 192) with soft targets (n, 7); the newest picture's own `p` (n, 7); `share` (n,)."""

    inputs: Float32
    targets: Float32
    p: Float32
    share: Float32


class WindowSampler:
    """Draws windows of `spec` from courses; the same windows for the same `random`.

    `noise` is the most that is added to each picture, in deviations of each number of the embeddings.
    """

    def __init__(self, courses: Sequence[EmbeddedSequence], spec: VideoSpec, *, noise: float = 0.0) -> None:
        self._spec = spec
        deviation = np.concatenate([course.seen[0] for course in courses]).std(axis=0)
        self._noise = np.asarray(noise * deviation, np.float32)
        self._moving = [course for course in courses if course.seen.shape[1] > 1]
        stills = [course for course in courses if course.seen.shape[1] == 1]
        self._of_class: dict[int, list[EmbeddedSequence]] = {}
        for course in stills:
            self._of_class.setdefault(int(course.targets[0].argmax()), []).append(course)
        self._moving_of: dict[int, list[EmbeddedSequence]] = {}
        for course in self._moving:
            self._moving_of.setdefault(int(course.targets[-1].argmax()), []).append(course)

    def draw(self, random: np.random.Generator, *, count: int) -> Windows:
        """Return `count` windows, classes and kinds mixed evenly."""
        kinds = random.choice(len(MIX), count, p=list(MIX.values()))
        drawn = [self._window(tuple(MIX)[kind], random) for kind in kinds]
        inputs, targets, p, share = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return Windows(inputs.astype(np.float32), targets, p, share.astype(np.float32))

    def _window(self, kind: str, random: np.random.Generator) -> tuple[Float32, Float32, Float32, float]:
        if kind == "course" and not self._moving_of:
            kind = "change"
        if kind == "course":
            course = _any(self._moving_of[_any(sorted(self._moving_of), random)], random)
        elif kind == "still":
            course = self._still(random)
        else:
            course = _becoming(self._still(random, neutral=0.6), self._still(random, neutral=0.15))
        times_ns, way = _times(course.seen.shape[1], self._spec, random)
        values, p = _shown(course, way, random)
        values = values + random.random() * self._noise * random.standard_normal(
            values.shape, dtype=np.float32
        )
        steps, share = resample(times_ns, values, self._spec)
        return steps, _at(course.targets, way[-1:])[0], p, share

    def _still(self, random: np.random.Generator, *, neutral: float | None = None) -> EmbeddedSequence:
        """Return a still of a random class; `neutral` is how often of that one."""
        if neutral is not None and random.random() < neutral:
            return _any(self._of_class[NEUTRAL], random)
        return _any(self._of_class[_any(sorted(self._of_class), random)], random)


def _times(
    knots: int, spec: VideoSpec, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return times (k,) in ns of one track's pictures, and where in its course each was, 0..knots - 1."""
    before_s, after_s = random.uniform(0, HOLD_S, 2)
    onset_s = float(np.exp(random.uniform(*np.log(ONSET_S))))
    now_s = random.uniform(0, before_s + onset_s + after_s)
    span_s = spec.span_ns / 1e9
    since_s = random.uniform(0, span_s) if random.random() < NEWCOMER else span_s + 0.5
    step_s = 1 / float(np.exp(random.uniform(*np.log(FPS))))
    count = max(1, int(since_s / step_s))
    uneven = 1 + JITTER * random.uniform(-1, 1, count)
    ages_s = np.concatenate([[0.0], np.cumsum(uneven * step_s)])[::-1]
    kept = random.random(len(ages_s)) >= LOST
    kept[-1] = True
    times_s = now_s - ages_s[kept]
    way = np.clip((times_s - before_s) / onset_s, 0, 1)
    if random.random() < RETURN:
        way = 1 - way
    return np.round((times_s + 100) * 1e9).astype(np.int64), way * (knots - 1)


def _shown(
    course: EmbeddedSequence, way: NDArray[np.float64], random: np.random.Generator
) -> tuple[Float32, Float32]:
    """Return embeddings (k, n) of a course at `way` (k,), each of some view, and p (7,) of the last."""
    views = random.integers(len(course.seen), size=len(way))
    for i in range(1, len(way)):
        if random.random() < STEADY:
            views[i] = views[i - 1]
    low = np.minimum(way.astype(np.int64), course.seen.shape[1] - 1)
    high = np.minimum(low + 1, course.seen.shape[1] - 1)
    share = (way - low).astype(np.float32)[:, np.newaxis]
    values = (1 - share) * course.seen[views, low] + share * course.seen[views, high]
    p = (1 - share[-1]) * course.p[views[-1], low[-1]] + share[-1] * course.p[views[-1], high[-1]]
    return values, p


def _at(values: Float32, way: NDArray[np.float64]) -> Float32:
    """Return `values` (k, 7) between its rows, at `way` (n,)."""
    places = np.arange(len(values))
    return np.stack([np.interp(way, places, column) for column in values.T], axis=1).astype(np.float32)


def _becoming(a: EmbeddedSequence, b: EmbeddedSequence) -> EmbeddedSequence:
    """Return the course from one still to another, whoever they are: embeddings have no identity to keep."""
    low, high = ONSET
    # Four places, since targets turn faster than the face: (views, 1, n) twice -> (views, 4, n).
    share = np.array([0, low, high, 1], np.float32)[:, np.newaxis]
    views = min(len(a.seen), len(b.seen))
    return EmbeddedSequence(
        seen=(1 - share) * a.seen[:views] + share * b.seen[:views],
        p=(1 - share) * a.p[:views] + share * b.p[:views],
        targets=np.concatenate([a.targets, a.targets, b.targets, b.targets]),
        person=b.person,
        kind="change",
    )


def _any(values: Sequence[T], random: np.random.Generator) -> T:
    return values[int(random.integers(len(values)))]
