"""Renders eye crops with synthetic blinks from real images of a person's open and closed eyes.

The ground truth is exact: number of blinks, PERCLOS (share of time with at least 80 % covered), and start of
each closure. Only the lid moves: its edge sweeps down, closed eye above it and open eye below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.crop import level
from edge.values import Float32, UInt8
from models.data.datasets import DataError
from models.data.eye_sets import CLOSED, OPEN, PatchSet

# Blinks of awake people: 8 to 30 per minute, 0.1 to 0.4 s each; closing takes a third and opening half of
# this time (VanderWerf et al. 2003, "Eyelid movements").
BLINKS_PER_MIN = (8.0, 30.0)
BLINK_S = (0.1, 0.4)
CLOSING, SHUT = 0.3, 0.2  # shares of a blink; the rest is opening
LONG_CLOSING_S, LONG_OPENING_S = 0.15, 0.25
MICROSLEEP_S = (0.6, 2.5)  # time with at least 80 % covered
APART_S = 0.35  # minimum between two closures
P80 = 0.8
FINE_HZ = 2000
LID_FROM, LID_TO, LID_SOFT = 0.25, 0.78, 0.06  # where the lid's edge moves in a crop, and how soft it is
NOISE = (1.0, 5.0)  # grey levels
JITTER = 0.025  # of the side: landmarks vary from frame to frame
LIGHT = 0.03


@dataclass(frozen=True, slots=True)
class Closure:
    """Lids close from `start_s` to `down_s`, stay closed until `up_s` and are open again at `end_s`."""

    start_s: float
    down_s: float
    up_s: float
    end_s: float

    @property
    def is_blink(self) -> bool:
        return self.end_s - self.start_s <= BLINK_S[1] + 1e-9

    @property
    def covered_s(self) -> float:
        """Time at which 80 % of the eye are covered for the first time."""
        return self.start_s + P80 * (self.down_s - self.start_s)


@dataclass(frozen=True, slots=True)
class LidMotion:
    """Closures of the lids within `seconds`."""

    seconds: float
    closures: tuple[Closure, ...]

    @property
    def blinks(self) -> int:
        """Number of blinks."""
        return sum(closure.is_blink for closure in self.closures)

    @property
    def perclos(self) -> float:
        """Share of the time, 0..1, with at least 80 % covered."""
        t_s = np.arange(0, self.seconds, 1 / FINE_HZ)
        return float(np.mean(self.covered(t_s) >= P80))

    def covered(self, t_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the covered share of the eye, 0..1, at each time (n,)."""
        covered = np.zeros(t_s.shape)
        for c in self.closures:
            near = (t_s >= c.start_s) & (t_s <= c.end_s)
            times = [c.start_s, c.down_s, c.up_s, c.end_s]
            covered[near] = np.interp(t_s[near], times, [0.0, 1.0, 1.0, 0.0])
        return covered


@dataclass(frozen=True, slots=True, eq=False)
class EyePair:
    """One or two eyes of a person, each with an open and a closed image (h, w) uint8 of equal size."""

    person: str
    opened: tuple[UInt8, ...]
    shut: tuple[UInt8, ...]


def draw_lid_motion(random: np.random.Generator, *, seconds: float = 60.0, microsleeps: int = 0) -> LidMotion:
    """Draw blinks with rate and lengths of awake people, and `microsleeps` longer closures."""
    rate = random.uniform(*BLINKS_PER_MIN) / 60
    closures: list[Closure] = []
    when_asleep = np.sort(random.uniform(0.1 * seconds, 0.9 * seconds, microsleeps))
    t_s = 0.0
    waiting = list(when_asleep)
    while True:
        t_s += APART_S + random.exponential(max(1 / rate - APART_S - sum(BLINK_S) / 2, 0.1))
        is_long = bool(waiting) and t_s >= waiting[0]
        closure = _long(t_s, random.uniform(*MICROSLEEP_S)) if is_long else _blink(t_s, random)
        if closure.end_s > seconds - APART_S:
            return LidMotion(seconds, tuple(closures))
        if is_long:
            waiting.pop(0)
        closures.append(closure)
        t_s = closure.end_s


def draw_alarm_motion(random: np.random.Generator, *, at_s: float = 20.0, closed_s: float = 5.0) -> LidMotion:
    """Draw blinks up to `at_s`, then a closure of `closed_s`."""
    awake = draw_lid_motion(random, seconds=at_s - APART_S)
    return LidMotion(at_s + closed_s, (*awake.closures, _long(at_s, closed_s)))


def pair_eyes(eyes: PatchSet, *, most: int, seed: int) -> list[EyePair]:
    """Return at most `most` pairs of open and closed eyes; raise `DataError` if none can be formed.

    In mrl people have single-eye images of both states: two of each become the two eyes. In cew both eyes
    of a photograph have the same state: open eyes are paired with the closed eyes of the other person whose
    brightness and contrast are most similar; each is used once.
    """
    random = np.random.default_rng(seed)
    cells: dict[tuple[str, int], list[int]] = {}
    for i, cell in enumerate(zip(eyes.people, eyes.labels.tolist(), strict=True)):
        cells.setdefault(cell, []).append(i)
    both = sorted({person for person, _ in cells if {(person, OPEN), (person, CLOSED)} <= cells.keys()})
    pairs = []
    if both:
        for k in range(most):
            person = both[k % len(both)]
            chosen = {
                state: random.choice(cells[person, state], 2, replace=len(cells[person, state]) < 2).tolist()
                for state in (OPEN, CLOSED)
            }
            pairs.append(_pair(eyes, person, chosen[OPEN], chosen[CLOSED]))
        return pairs
    two = {cell: index for cell, index in cells.items() if len(index) == 2}
    opened = [cell for cell in two if cell[1] == OPEN]
    shut = [cell for cell in two if cell[1] == CLOSED]
    if not opened or not shut:
        raise DataError(f"{eyes.name}: no open and closed eyes to pair; complete the data set")
    appearance = {
        cell: _brightness_and_contrast([eyes.images[i] for i in two[cell]]) for cell in (*opened, *shut)
    }
    for k in random.permutation(len(opened))[:most]:
        cell = opened[k]
        near = min(shut, key=lambda other: float(np.hypot(*(appearance[other] - appearance[cell]))))
        shut.remove(near)
        pairs.append(_pair(eyes, cell[0], two[cell], two[near]))
        if not shut:
            break
    return pairs


def render(
    pair: EyePair, course: LidMotion, t_s: NDArray[np.float64], *, size: int, random: np.random.Generator
) -> Iterator[Sequence[Float32]]:
    """Yield for each time the crop of each eye, (size, size, 1) float32, levelled as on the device.

    Both lids move together; position, light and noise vary from frame to frame.
    """
    noise = random.uniform(*NOISE)
    for covered in course.covered(t_s):
        light = 1 + random.normal(0, LIGHT)
        shift = random.normal(0, JITTER, 2)
        yield [
            _crop(_blend(opened, shut, float(covered)), size, shift, light, noise, random)
            for opened, shut in zip(pair.opened, pair.shut, strict=True)
        ]


def _blink(start_s: float, random: np.random.Generator) -> Closure:
    length_s = random.uniform(*BLINK_S)
    down_s = start_s + CLOSING * length_s
    return Closure(start_s, down_s, down_s + SHUT * length_s, start_s + length_s)


def _long(start_s: float, covered_s: float) -> Closure:
    """Return a closure with at least 80 % covered for `covered_s`."""
    down_s = start_s + LONG_CLOSING_S
    up_s = down_s + covered_s - (1 - P80) * (LONG_CLOSING_S + LONG_OPENING_S)
    return Closure(start_s, down_s, up_s, up_s + LONG_OPENING_S)


def _pair(eyes: PatchSet, person: str, opened: Sequence[int], shut: Sequence[int]) -> EyePair:
    first = [eyes.images[i] for i in opened]
    second = []
    for image, i in zip(first, shut, strict=True):
        size = (image.shape[1], image.shape[0])
        other = cv2.resize(eyes.images[i], size, interpolation=cv2.INTER_AREA).astype(np.float32)
        # Equal brightness and contrast: only the lid may differ.
        deviation = max(float(other.std()), 1.0)
        other = (other - other.mean()) / deviation * max(float(image.std()), 1.0) + image.mean()
        second.append(np.clip(np.rint(other), 0, 255).astype(np.uint8))
    return EyePair(person, tuple(first), tuple(second))


def _brightness_and_contrast(images: Sequence[UInt8]) -> NDArray[np.float64]:
    return np.array([np.mean([image.mean() for image in images]), np.mean([image.std() for image in images])])


def _blend(opened: UInt8, shut: UInt8, covered: float) -> Float32:
    """Return the closed eye above the edge of the lid and the open eye below it; (h, w) float32."""
    if covered <= 0:
        return opened.astype(np.float32)
    if covered >= 1:
        return shut.astype(np.float32)
    rows = (np.arange(opened.shape[0], dtype=np.float32) + 0.5) / opened.shape[0]
    edge = LID_FROM + covered * (LID_TO - LID_FROM)
    share = np.clip((edge - rows) / LID_SOFT + 0.5, 0, 1)[:, np.newaxis]  # (h, 1)
    # Skin below the eye opening moves too: it is cross-faded.
    share = np.maximum(share, np.float32(covered) * (rows[:, np.newaxis] > LID_TO))
    return np.asarray(share * shut + (1 - share) * opened, np.float32)


def _crop(
    image: Float32,
    size: int,
    shift: NDArray[np.float64],
    light: float,
    noise: float,
    random: np.random.Generator,
) -> Float32:
    height, width = image.shape
    matrix = np.array([[size / width, 0, shift[0] * size], [0, size / height, shift[1] * size]])
    crop = cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    crop = crop * np.float32(light) + np.float32(noise) * random.standard_normal(crop.shape, dtype=np.float32)
    values = np.rint(np.clip(crop, 0, 255))[..., np.newaxis] / np.float32(255)  # (size, size, 1)
    level(values)
    return np.asarray(values, np.float32)
