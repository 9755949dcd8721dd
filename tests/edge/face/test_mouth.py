"""The mouth's opening is a ratio that the lips alone decide."""

from __future__ import annotations

import numpy as np
import pytest

from edge.face.landmarks import MOUTH
from edge.face.mouth import LOWER_LIP, UPPER_LIP, mouth_opening
from edge.values import Face, Float32


def mesh(gap_px: float, *, width_px: float = 40.0) -> Float32:
    """Return 468 points with only those of the mouth set."""
    points = np.zeros((468, 2), np.float32)
    points[list(MOUTH)] = [[100 - width_px / 2, 200], [100 + width_px / 2, 200]]
    points[UPPER_LIP], points[LOWER_LIP] = (100, 200 - gap_px / 2), (100, 200 + gap_px / 2)
    return points


def opening(points: Float32 | None) -> float | None:
    """Return the opening of a face with these landmarks."""
    return mouth_opening(Face((0.0, 0.0, 200.0, 260.0), 1.0, points))


@pytest.mark.parametrize(("gap_px", "ratio"), [(0.0, 0.0), (10.0, 0.25), (40.0, 1.0)])
def test_opening_is_gap_over_width(gap_px: float, ratio: float) -> None:
    """A shut mouth is 0, one as high as wide is 1."""
    assert opening(mesh(gap_px)) == pytest.approx(ratio, abs=1e-6)


@pytest.mark.parametrize("degrees", [-90, -30, 15, 180])
@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_size_place_and_angle_do_not_count(degrees: int, scale: float) -> None:
    """The same mouth rotated, moved or scaled has the same opening."""
    turn = np.radians(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = (mesh(12.0) @ matrix + [31, -7]).astype(np.float32)
    assert opening(moved) == pytest.approx(0.3, abs=1e-4)


@pytest.mark.parametrize("points", [None, np.zeros((6, 2), np.float32), mesh(10.0, width_px=0.5)])
def test_no_mesh_or_no_width_is_no_opening(points: Float32 | None) -> None:
    """A box, BlazeFace's six points and a mouth of no width have no opening."""
    assert opening(points) is None
