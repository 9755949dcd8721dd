"""Augments eye crops: geometry, light, resolution, glasses, and occlusion for the class hidden."""

from __future__ import annotations

import cv2
import numpy as np

from edge.face.crop import FER_CROP
from edge.values import Float32, UInt8

SCALE = 0.28  # the eye fills 0.49 to 0.86 of the side: landmarks and the data sets' crops differ this much
SHIFT = 0.10
STRETCH = 0.15  # head yaw makes the eye narrower, pitch makes it flatter
ROTATE_DEG = 15.0
FEWEST_PX = 12  # side of the smallest crop; an eye of 10 px has a crop of 15 px


def augment_eye(image: UInt8, size: int, random: np.random.Generator) -> UInt8:
    """Return one eye (h, w) uint8 as (size, size), moved, relit, blurred, with clear glasses at random."""
    values = _moved(image, size, random).astype(np.float32)
    chance = random.random(7)
    if chance[0] < 0.35:
        values = _low_resolution(values, int(random.integers(FEWEST_PX, size + 1)))
    if chance[1] < 0.2:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), random.uniform(0.4, size / 20)), np.float32)
    if chance[2] < 0.12:
        _tint(values, random, opacity=float(random.uniform(0.1, 0.6)))
    if chance[3] < 0.2:
        _draw_frame(values, random)
    if chance[4] < 0.2:
        _draw_glints(values, random)
    values = _relit(values, random)
    if chance[5] < 0.5:
        noise = random.uniform(0.5, 6) if chance[6] < 0.85 else random.uniform(6, 14)
        values += np.float32(noise) * random.standard_normal(values.shape, dtype=np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def degrade_crop(values: Float32, random: np.random.Generator) -> UInt8:
    """Return a crop (h, w) of values 0..255 with other resolution, blur, light and noise, uint8."""
    chance = random.random(2)
    if chance[0] < 0.3:
        values = _low_resolution(values, int(random.integers(FEWEST_PX, 25)))
    if chance[1] < 0.2:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), random.uniform(0.4, 1.2)), np.float32)
    values = _relit(values, random)
    values += np.float32(random.uniform(0.5, 6)) * random.standard_normal(values.shape, dtype=np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def occlude_eye(image: UInt8, size: int, random: np.random.Generator) -> UInt8:
    """Return one eye (h, w) uint8 as (size, size) behind dark glasses or a hand, or strongly blurred."""
    values = _moved(image, size, random).astype(np.float32)
    kind = random.choice(3, p=[0.6, 0.25, 0.15])
    if kind == 0:
        add_dark_glasses(values, random)
    elif kind == 1:
        _cover(values, random)
    else:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), random.uniform(size / 5, size / 2)), np.float32)
    values = _relit(values, random)
    values += np.float32(random.uniform(0.3, 6)) * random.standard_normal(values.shape, dtype=np.float32)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def crop_beside_eye(face: UInt8, size: int, random: np.random.Generator) -> UInt8:
    """Return a patch of a FER2013 face (48, 48) uint8 without eyes and mouth, as (size, size).

    At low resolution eyes and mouth look like a closed eye.
    """
    side = face.shape[0]
    known = np.array([*FER_CROP.eyes, (0.5, FER_CROP.mouth_y)]) * side
    while True:
        reach = random.uniform(0.13, 0.22) * side
        centre = random.uniform(reach, side - reach, 2)
        # Eyes are wider than high.
        if np.all(np.hypot((known[:, 0] - centre[0]) / 1.4, known[:, 1] - centre[1]) > reach * 0.9):
            break
    scale = size / (2 * reach)
    matrix = np.array([[scale, 0, size / 2 - scale * centre[0]], [0, scale, size / 2 - scale * centre[1]]])
    patch = cv2.warpAffine(face, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    patch = _relit(patch, random)
    patch += np.float32(random.uniform(0.5, 6)) * random.standard_normal(patch.shape, dtype=np.float32)
    return np.clip(np.rint(patch), 0, 255).astype(np.uint8)


def add_dark_glasses(values: Float32, random: np.random.Generator) -> None:
    """Draw a dark lens (at most 6 % transmission) with reflections over an eye (size, size), in place."""
    size = values.shape[0]
    lens = _lens(size, random)
    shade = np.float32(random.uniform(3, 70))
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = random.uniform(-25, 25, 2).astype(np.float32)
    dark = shade + np.abs(slope[0]) + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    for _ in range(int(random.integers(0, 4))):  # reflections
        _draw_blot(dark, random, brightness=float(random.uniform(15, 130)), largest=0.3)
    opacity = lens * np.float32(random.uniform(0.94, 1.0))
    values *= 1 - opacity
    values += opacity * np.maximum(dark, 0)
    if random.random() < 0.5:
        _draw_frame(values, random)


def _moved(image: UInt8, size: int, random: np.random.Generator) -> UInt8:
    """Flip, scale, stretch, rotate and shift in one interpolation, from (h, w) to (size, size)."""
    height, width = image.shape
    zoom = size / height * float(np.exp(random.uniform(-SCALE, SCALE)))
    wider = float(np.exp(random.uniform(-STRETCH, STRETCH)))
    turn = np.radians(random.normal(0, ROTATE_DEG / 2))
    cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
    matrix = np.array([[cos * wider, sin / wider, 0.0], [-sin * wider, cos / wider, 0.0]])
    if random.random() < 0.5:
        matrix[:, 0] *= -1
    shift = np.clip(random.normal(0, SHIFT / 1.5, 2), -2 * SHIFT, 2 * SHIFT) * size
    matrix[:, 2] = size / 2 + shift - matrix[:, :2] @ (width / 2, height / 2)
    moved = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return moved.astype(np.uint8, copy=False)


def _low_resolution(values: Float32, side: int) -> Float32:
    """Reduce the resolution to `side` pixels a side."""
    small = cv2.resize(values, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, values.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _relit(values: Float32, random: np.random.Generator) -> Float32:
    """Change gamma, add side light, and sometimes darken to few grey levels."""
    curve = np.float32(np.exp(random.uniform(-0.5, 0.5)))
    values = np.float32(255) * (np.clip(values, 0, 255) / np.float32(255)) ** curve
    height, width = values.shape
    slope = random.normal(0, 0.25, 2)
    ys, xs = (np.linspace(-tilt, tilt, side) for tilt, side in zip(slope, (height, width), strict=True))
    plane = 1 + np.add.outer(ys, xs)
    values = values * np.maximum(plane, 0.15).astype(np.float32)
    if random.random() < 0.15:
        values = np.rint(values * np.float32(random.uniform(0.1, 0.4)))
    return np.asarray(values, np.float32)


def _tint(values: Float32, random: np.random.Generator, *, opacity: float) -> None:
    """Draw a transparent tinted lens, in place."""
    values += _lens(values.shape[0], random) * np.float32(opacity) * (random.uniform(10, 80) - values)


def _lens(size: int, random: np.random.Generator) -> Float32:
    """Return the mask of a lens (size, size): 1 inside, with a soft rim."""
    mask = np.zeros((size, size), np.float32)
    x, y = size * random.normal(0.5, 0.06, 2)
    wide, high = size * random.uniform(0.42, 0.75), size * random.uniform(0.28, 0.6)
    if random.random() < 0.6:
        axes = (round(wide), round(high))
        cv2.ellipse(mask, (round(x), round(y)), axes, random.uniform(-12, 12), 0, 360, 1.0, -1)
    else:
        corner, other = (round(x - wide), round(y - high)), (round(x + wide), round(y + high))
        cv2.rectangle(mask, corner, other, 1.0, -1)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size / 40), np.float32)


def _draw_frame(values: Float32, random: np.random.Generator) -> None:
    """Draw a part of a glasses frame, dark or bright, in place."""
    size = values.shape[0]
    axes = (round(size * random.uniform(0.42, 0.65)), round(size * random.uniform(0.3, 0.5)))
    centre = tuple(round(size * v) for v in random.normal(0.5, 0.08, 2))
    start = random.uniform(0, 360)
    colour = float(random.uniform(0, 60) if random.random() < 0.7 else random.uniform(150, 255))
    thick = max(1, round(size * random.uniform(0.02, 0.08)))
    cv2.ellipse(values, centre, axes, 0, start, start + random.uniform(90, 360), colour, thick, cv2.LINE_AA)


def _draw_glints(values: Float32, random: np.random.Generator) -> None:
    """Draw one or two small reflections that leave the lids visible, in place."""
    for _ in range(int(random.integers(1, 3))):
        _draw_blot(values, random, brightness=float(random.uniform(120, 255)), largest=0.1)


def _draw_blot(values: Float32, random: np.random.Generator, *, brightness: float, largest: float) -> None:
    size = values.shape[0]
    mask = np.zeros_like(values)
    centre = tuple(round(size * v) for v in random.uniform(0.1, 0.9, 2))
    axes = tuple(max(1, round(size * v)) for v in random.uniform(0.02, largest, 2))
    cv2.ellipse(mask, centre, axes, random.uniform(0, 180), 0, 360, 1.0, -1)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.6), np.float32)
    values += mask * (np.maximum(values, np.float32(brightness)) - values)


def _cover(values: Float32, random: np.random.Generator) -> None:
    """Draw one to four bars (fingers, a cup, hair) with soft edges over the eye, in place."""
    size = values.shape[0]
    skin = float(np.median(values)) * random.uniform(0.6, 1.4)
    angle, count = random.uniform(0, np.pi), int(random.integers(1, 5))
    along = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-along[1], along[0]])
    wide = 1.5 * size / count
    for number in range(count):
        middle = size / 2 + aside * (number - (count - 1) / 2) * wide * 0.92
        ends = [tuple(int(v) for v in np.rint(middle + sign * along * 1.2 * size)) for sign in (-1, 1)]
        shade = np.clip(skin + random.normal(0, 8), 5, 245)
        cv2.line(values, ends[0], ends[1], float(shade * 0.8), round(wide), cv2.LINE_AA)
        cv2.line(values, ends[0], ends[1], float(shade), max(1, round(wide * 0.86)), cv2.LINE_AA)
    values[:] = cv2.GaussianBlur(values, (0, 0), random.uniform(0.4, 1.5))
