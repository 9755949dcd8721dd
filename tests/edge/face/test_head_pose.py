"""The pitch of a head is read from its landmarks, whatever else the head does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.face.head_pose import HEAD, head_pitch_deg
from edge.values import Face, Float32


def rotation(pitch_deg: float, yaw_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """Return (3, 3): first roll, then pitch, then yaw about an upright axis, x right, y down, z away."""
    p, y, r = np.radians([pitch_deg, yaw_deg, roll_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z)


def head(
    pitch_deg: float = 0,
    yaw_deg: float = 0,
    roll_deg: float = 0,
    *,
    distance: float = 1e6,
    noise_px: float = 0,
) -> Face:
    """Return the mesh of a turned head, 100 px from eye to eye, at `distance` times that from the camera."""
    solid = np.array(list(HEAD.values())) @ rotation(pitch_deg, yaw_deg, roll_deg).T
    flat = 100 * solid[:, :2] / (1 + solid[:, 2:] / distance) + (320, 240)
    flat += np.random.default_rng(7).normal(0, noise_px, flat.shape) if noise_px else 0
    mesh = np.zeros((468, 2), np.float32)
    mesh[list(HEAD)] = flat
    return Face((250.0, 150.0, 150.0, 200.0), 0.9, mesh.astype(np.float32))


@pytest.mark.parametrize("pitch_deg", [-60, -30, -5, 0, 5, 15, 30, 60])
@pytest.mark.parametrize(("yaw_deg", "roll_deg"), [(0, 0), (35, 0), (-35, 0), (0, 25), (30, 20)])
def test_pitch_is_that_of_the_turned_mesh(pitch_deg: float, yaw_deg: float, roll_deg: float) -> None:
    """The pitch of a head is measured correctly, also with yaw and roll."""
    assert head_pitch_deg(head(pitch_deg, yaw_deg, roll_deg)) == pytest.approx(pitch_deg, abs=0.1)


def test_bowed_is_positive_and_raised_is_negative() -> None:
    """The tip of the nose is lower in the image when the head is bowed."""
    bowed, raised = head(20), head(-20)
    assert bowed.landmarks is not None
    assert raised.landmarks is not None
    assert bowed.landmarks[4, 1] > raised.landmarks[4, 1]
    assert (head_pitch_deg(bowed) or 0) > 0 > (head_pitch_deg(raised) or 0)


@pytest.mark.parametrize("pitch_deg", [-20, 0, 20])
def test_a_near_camera_and_noisy_landmarks_cost_a_few_degrees(pitch_deg: float) -> None:
    """Perspective at arm's length and landmark noise of 1 to 2 pixels change the pitch by a few degrees."""
    near = head_pitch_deg(head(pitch_deg, distance=7, noise_px=1.5))
    assert near == pytest.approx(pitch_deg, abs=7)


def mesh_without(points: int) -> Float32:
    """Return this many distinct landmarks."""
    return np.random.default_rng(1).normal(100, 10, (points, 2)).astype(np.float32)


@pytest.mark.parametrize("landmarks", [None, mesh_without(6), np.zeros((468, 2), np.float32)])
def test_no_mesh_no_pitch(landmarks: Float32 | None) -> None:
    """A box alone, six points, or identical points have no pitch."""
    assert head_pitch_deg(Face((0.0, 0.0, 10.0, 10.0), 0.9, landmarks)) is None
