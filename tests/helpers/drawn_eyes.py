"""Draws faces of which only the eyes matter: open, shut or behind dark glasses, with their landmarks."""

from __future__ import annotations

import cv2
import numpy as np

from edge.face.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE
from edge.values import Face, Float32, UInt8

SKIN = (205, 165, 140)


def draw_eye(pixels: UInt8, centre: tuple[float, float], width: float, *, is_open: bool) -> None:
    """Draw one eye with lids, lashes and brow into (h, w, 3), `width` pixels from corner to corner."""
    big = 8  # drawn larger and averaged down, as a lens does
    side = round(2.2 * width * big)
    patch = np.full((side, side, 3), SKIN, np.float32)
    c, w = side // 2, width * big
    shade = tuple(0.86 * v for v in SKIN)
    cv2.ellipse(patch, (c, round(c - 0.12 * w)), (round(0.62 * w), round(0.36 * w)), 0, 0, 360, shade, -1)
    cv2.ellipse(
        patch,
        (c, round(c - 0.55 * w)),
        (round(0.6 * w), round(0.2 * w)),
        0,
        200,
        340,
        (70, 50, 40),
        round(0.09 * w),
    )
    if is_open:
        almond = np.zeros((side, side), np.uint8)
        cv2.ellipse(almond, (c, c), (round(0.5 * w), round(0.22 * w)), 0, 0, 360, 255, -1)
        inside = np.full((side, side, 3), (235, 232, 228), np.float32)
        cv2.circle(inside, (c, round(c - 0.03 * w)), round(0.21 * w), (75, 55, 45), -1)
        cv2.circle(inside, (c, round(c - 0.03 * w)), round(0.09 * w), (15, 12, 10), -1)
        cv2.circle(inside, (round(c + 0.06 * w), round(c - 0.09 * w)), round(0.035 * w), (250, 250, 250), -1)
        patch[almond > 0] = inside[almond > 0]
        cv2.ellipse(
            patch, (c, c), (round(0.5 * w), round(0.22 * w)), 0, 185, 355, (50, 35, 30), round(0.06 * w)
        )
        cv2.ellipse(
            patch, (c, c), (round(0.5 * w), round(0.22 * w)), 0, 5, 175, (140, 100, 85), round(0.025 * w)
        )
    else:
        cv2.ellipse(
            patch,
            (c, round(c - 0.06 * w)),
            (round(0.5 * w), round(0.16 * w)),
            0,
            8,
            172,
            (60, 42, 36),
            round(0.05 * w),
        )
        for angle in np.linspace(25, 155, 9):
            x, y = (
                c + 0.5 * w * np.cos(np.radians(angle)),
                c - 0.06 * w + 0.16 * w * np.sin(np.radians(angle)),
            )
            tip = (round(x + 0.06 * w * np.cos(np.radians(angle))), round(y + 0.09 * w))
            cv2.line(patch, (round(x), round(y)), tip, (60, 42, 36), round(0.02 * w))
    small = cv2.resize(patch, (side // big, side // big), interpolation=cv2.INTER_AREA)
    left, top = round(centre[0] - small.shape[1] / 2), round(centre[1] - small.shape[0] / 2)
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(pixels.shape[0], top + small.shape[0]), min(pixels.shape[1], left + small.shape[1])
    if y1 > y0 and x1 > x0:
        pixels[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint8)


def draw_face(
    *,
    left_open: bool = True,
    right_open: bool = True,
    width: float = 36.0,
    at: tuple[float, float] = (160.0, 110.0),
    left_width: float | None = None,
) -> tuple[UInt8, Face]:
    """Return a picture (240, 320, 3) and its face; `at` is between the eyes, `width` that of an eye.

    `left_width` narrows the left eye of the landmarks, as in a turned head.
    """
    pixels = np.full((240, 320, 3), SKIN, np.uint8)
    apart = 1.1 * width
    left, right = (at[0] - apart, at[1]), (at[0] + apart, at[1])
    draw_eye(pixels, left, width, is_open=left_open)
    draw_eye(pixels, right, width, is_open=right_open)
    noise = np.random.default_rng(0).normal(0, 1.5, pixels.shape)
    pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    points = np.zeros((468, 2), np.float32)
    for corners, centre, wide in ((LEFT_EYE, left, left_width or width), (RIGHT_EYE, right, width)):
        points[corners[0]] = (centre[0] - wide / 2, centre[1])
        points[corners[1]] = (centre[0] + wide / 2, centre[1])
    points[MOUTH[0]] = (at[0] - 0.8 * width, at[1] + 2.3 * width)
    points[MOUTH[1]] = (at[0] + 0.8 * width, at[1] + 2.3 * width)
    box = (at[0] - 2.2 * width, at[1] - 1.8 * width, 4.4 * width, 5.5 * width)
    return pixels, Face(box, 1.0, points, track=3)


def put_on_dark_glasses(pixels: UInt8, face: Face) -> UInt8:
    """Return the picture with a dark lens over each eye, a bright streak mirrored in it, and a bridge."""
    worn = pixels.copy()
    points = landmarks(face)
    centres = [points[list(corners)].mean(axis=0) for corners in (LEFT_EYE, RIGHT_EYE)]
    width = float(np.hypot(*(points[RIGHT_EYE[1]] - points[RIGHT_EYE[0]])))
    left, right = ([int(v) for v in centre] for centre in centres)
    cv2.line(worn, left, right, (25, 25, 28), 3)
    for centre in centres:
        x, y = (int(v) for v in centre)
        cv2.ellipse(worn, (x, y), (round(0.85 * width), round(0.62 * width)), 0, 0, 360, (28, 26, 30), -1)
        streak = (x - round(0.3 * width), y - round(0.3 * width))
        cv2.ellipse(worn, streak, (round(0.2 * width), round(0.06 * width)), 30, 0, 360, (70, 75, 80), -1)
    return cv2.GaussianBlur(worn, (3, 3), 0.7).astype(np.uint8)


def landmarks(face: Face) -> Float32:
    """Return the points (468, 2) of a face that has them."""
    assert face.landmarks is not None
    return face.landmarks
