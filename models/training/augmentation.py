"""Augments training faces, voice features and targets: geometry, light, noise, vocal tract, pitch, mixup."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import python_speech_features
from numpy.typing import NDArray
from scipy import fftpack

from edge.values import Float32, UInt8

SCALE = 0.15  # of the crop: typical error of a face detector
SHIFT = 0.10
STRETCH = 0.08  # proportions of faces
ROTATE_DEG = 15.0
GAIN_DB = 2.0
VOICE_NOISE = 0.2  # standard deviations of each coefficient over the training clips
WARP = 0.1  # of the frequency axis, up and down
HEIGHT_OCTAVES = 0.3  # standard deviation of the pitch shift
MELODY_SPREAD = 0.3  # standard deviation of the log of the pitch range factor
BANDS = 40
# From 40 log mel bands to MFCC as in python_speech_features: an orthonormal DCT, then a lifter.
_TO_MFCC = np.asarray(
    python_speech_features.lifter(fftpack.dct(np.eye(BANDS), type=2, axis=1, norm="ortho"), 22),
    dtype=np.float32,
)
_FROM_MFCC = np.linalg.inv(_TO_MFCC).astype(np.float32)


def augment_faces(images: UInt8, random: np.random.Generator, *, strength: float = 1.0) -> UInt8:
    """Return `images` (n, h, w) uint8 with every face augmented at random."""
    return np.stack([augment_face(image, random, strength=strength) for image in images])


def augment_face(image: UInt8, random: np.random.Generator, *, strength: float = 1.0) -> UInt8:
    """Return one face (h, w) uint8 moved, with other light, resolution, blur, noise or occlusion.

    `strength` in (0, 1] scales amount and probability.
    """
    image = move_face(image, random, strength=strength)
    chance = random.random(4) / strength
    if chance[0] < 0.15:
        image = _low_resolution(image, random)
    if chance[1] < 0.15:
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), random.uniform(0.4, 1.1)), dtype=np.uint8)
    values = _relit(image, random, strength)
    if chance[2] < 0.2:
        values = values + np.float32(random.uniform(1, 8)) * random.standard_normal(
            values.shape, dtype=np.float32
        )
    if chance[3] < 0.15:
        _cover(values, random)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def move_face(image: UInt8, random: np.random.Generator, *, strength: float) -> UInt8:
    """Return one face (h, w) uint8 flipped, scaled, stretched, rotated and shifted in one interpolation."""
    height, width = image.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    degrees = strength * random.uniform(-ROTATE_DEG, ROTATE_DEG)
    matrix = cv2.getRotationMatrix2D(centre, degrees, float(np.exp(strength * random.uniform(-SCALE, SCALE))))
    wider = float(np.exp(strength * random.uniform(-STRETCH, STRETCH)))
    stretch = np.array(
        [[wider, 0, centre[0] * (1 - wider)], [0, 1 / wider, centre[1] * (1 - 1 / wider)], [0, 0, 1]]
    )
    matrix = matrix @ stretch
    if random.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
    matrix[:, 2] = matrix[:, 2] + strength * random.uniform(-SHIFT, SHIFT, 2) * (width, height)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved.astype(np.uint8, copy=False)


def degrade_face(image: UInt8, random: np.random.Generator) -> UInt8:
    """Return one face (h, w) uint8 as from a cheap camera: side light, motion blur, compression."""
    chance = random.random(3)
    if chance[0] < 0.3:
        image = _side_light(image, random)
    if chance[1] < 0.1:
        image = _motion_blur(image, random)
    if chance[2] < 0.2:
        quality = int(random.integers(20, 70))
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    return image


def augment_voices(
    clips: Sequence[Float32], *, mean: Float32, std: Float32, random: np.random.Generator
) -> Float32:
    """Return standardised mean MFCCs (n, 40) of a random part of each clip (T, 40), with gain and noise.

    Coefficient 0 is the log energy: a gain of g dB adds g ln(10) / 10 to it.
    """
    pooled = np.stack([_part(clip, random).mean(axis=0) for clip in clips])
    gain_db = GAIN_DB * random.standard_normal(len(pooled), dtype=np.float32)
    pooled[:, 0] += gain_db * np.float32(np.log(10) / 10)
    noise = random.standard_normal(pooled.shape, dtype=np.float32) * np.float32(VOICE_NOISE)
    return np.asarray((pooled - mean) / std + noise, dtype=np.float32)


def augment_frames(frames: Float32, random: np.random.Generator) -> Float32:
    """Return frames (T, 42) with another vocal tract and channel; energy and pitch stay unchanged.

    The mel bands are reconstructed, warped (vocal tract length perturbation, Jaitly and Hinton 2013), tilted
    as by a channel, and partly masked (SpecAugment, Park et al. 2019, arXiv:1904.08779).
    """
    bands = frames[:, :BANDS].copy()
    bands[:, 0] = 0  # holds the log energy, not the DC coefficient
    bands = np.asarray(
        bands @ _FROM_MFCC @ _warp_matrix(float(np.exp(random.uniform(-WARP, WARP)))), np.float32
    )
    if random.random() < 0.5:
        bands += (random.normal() * np.linspace(-1, 1, BANDS)).astype(np.float32)
    if random.random() < 0.5:
        width = int(random.integers(2, 9))
        start = int(random.integers(0, BANDS - width))
        bands[:, start : start + width] = bands.mean()
    augmented = frames.copy()
    augmented[:, 1:BANDS] = (bands @ _TO_MFCC)[:, 1:]
    return augmented


def shift_pitch(melody: Float32, height: Float32, random: np.random.Generator) -> None:
    """Shift the pitch and scale the pitch range, in place.

    `melody` and `height` (T,) are octaves above the median and above a fixed pitch, 0 in unvoiced frames.
    """
    height[height != 0] += np.float32(HEIGHT_OCTAVES * random.standard_normal())
    melody *= np.float32(np.exp(MELODY_SPREAD * random.standard_normal()))


def mask_frames(frames: Float32, random: np.random.Generator) -> None:
    """Set up to two spans of up to 40 standardised frames (T, 40) to zero, in place."""
    for _ in range(2):
        if random.random() < 0.5:
            width = int(random.integers(5, 40))
            start = int(random.integers(0, max(1, len(frames) - width)))
            frames[start : start + width] = 0


def change_tempo(rows: Float32, speed: float) -> Float32:
    """Return rows (T, k) or (T,) at `speed`, interpolated: (about T / speed, ...) float32."""
    at = np.arange(0, len(rows) - 1, speed)
    low = at.astype(np.int64)
    share = (at - low).astype(np.float32).reshape(-1, *(1,) * (rows.ndim - 1))
    return np.asarray((1 - share) * rows[low] + share * rows[low + 1], dtype=np.float32)


def soft_targets(labels: NDArray[np.int64], classes: int, *, smoothing: float) -> Float32:
    """Return targets (n, classes): `smoothing` of 1 goes to all classes equally (Szegedy et al. 2016)."""
    hard = np.eye(classes, dtype=np.float32)[labels]
    return np.asarray((1 - smoothing) * hard + smoothing / classes, dtype=np.float32)


def mixup(
    inputs: Float32, targets: Float32, random: np.random.Generator, *, share: float, alpha: float = 0.3
) -> tuple[Float32, Float32]:
    """Mix a `share` of the examples with others (mixup, Zhang et al. 2018, arXiv:1710.09412), in place."""
    chosen = np.flatnonzero(random.random(len(inputs)) < share)
    partner = random.permutation(chosen)
    keep = random.beta(alpha, alpha, len(chosen)).astype(np.float32)
    keep = np.maximum(keep, 1 - keep)
    wide = keep.reshape(-1, *(1,) * (inputs.ndim - 1))
    inputs[chosen] = wide * inputs[chosen] + (1 - wide) * inputs[partner]
    targets = targets.copy()
    targets[chosen] = keep[:, None] * targets[chosen] + (1 - keep[:, None]) * targets[partner]
    return inputs, targets


def _warp_matrix(factor: float) -> Float32:
    """Return the (40, 40) matrix that reads every band at `factor` times its index."""
    at = np.clip(np.arange(BANDS) * factor, 0, BANDS - 1.001)
    low = at.astype(np.int64)
    matrix = np.zeros((BANDS, BANDS), np.float32)
    matrix[low, np.arange(BANDS)] = 1 - (at - low)
    matrix[low + 1, np.arange(BANDS)] += (at - low).astype(np.float32)
    return matrix


def _part(frames: Float32, random: np.random.Generator) -> Float32:
    """Return at least half of the frames (T, 40), consecutive."""
    count = max(1, int(len(frames) * random.uniform(0.5, 1)))
    start = int(random.integers(0, len(frames) - count + 1))
    return frames[start : start + count]


def _low_resolution(image: UInt8, random: np.random.Generator) -> UInt8:
    """Reduce the resolution to that of a face of 20 to 36 pixels."""
    height, width = image.shape
    small = int(random.integers(20, 37))
    less = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(less, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def _relit(image: UInt8, random: np.random.Generator, strength: float) -> Float32:
    """Change gamma, contrast and brightness."""
    table = 255 * np.linspace(0, 1, 256) ** np.exp(strength * random.uniform(-0.4, 0.4))
    values: Float32 = table[image].astype(np.float32)
    mean = values.mean()
    contrast = np.float32(1 + strength * random.uniform(-0.3, 0.3))
    brightness = np.float32(strength * random.uniform(-30, 30))
    return np.asarray((values - mean) * contrast + mean + brightness, dtype=np.float32)


def _side_light(image: UInt8, random: np.random.Generator) -> UInt8:
    """Multiply by a brightness plane that is 1 in the centre, as with a window at one side."""
    height, width = image.shape
    slope_x, slope_y = random.uniform(-0.7, 0.7, 2)
    plane = (
        1 + np.add.outer(np.linspace(-slope_y, slope_y, height), np.linspace(-slope_x, slope_x, width)) / 2
    )
    return np.clip(np.rint(image * np.maximum(plane, 0.1)), 0, 255).astype(np.uint8)


def _motion_blur(image: UInt8, random: np.random.Generator) -> UInt8:
    """Blur along a line of 3 to 5 pixels."""
    side = int(random.choice([3, 5]))
    line = np.zeros((side, side), np.float32)
    line[side // 2] = 1 / side
    turn = cv2.getRotationMatrix2D((side // 2, side // 2), random.uniform(0, 180), 1)
    kernel = cv2.warpAffine(line, turn, (side, side))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.uint8)


def _cover(values: Float32, random: np.random.Generator) -> None:
    """Cover a rectangle of up to a third of each side, as a hand or a cup does."""
    height, width = values.shape
    h, w = random.integers(height // 8, height // 3, 2)
    top, left = random.integers(0, height - h), random.integers(0, width - w)
    values[top : top + h, left : left + w] = random.uniform(0, 255)
