"""Tells how far a head is bowed, from where its landmarks lie in the picture.

Under weak perspective a rigid head is one affine map away from its picture; its two rows, made orthonormal,
are the rotation (POS, the first step of DeMenthon and Davis 1995, "Model-based object pose in 25 lines of
code"). No focal length is needed, and nothing is iterated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.values import Face, Float32

MESH_POINTS = 468
# Points that neither speech nor an expression moves, x right, y down, z away from the camera, in distances
# between the outer corners of the eyes; the bridge of the nose is 0. The mean of what the face mesh itself
# puts there, depth too, on 30 frontal neutral faces (jaffe), left and right made alike.
HEAD: dict[int, tuple[float, float, float]] = {
    168: (0.00, 0.00, 0.00),  # bridge
    6: (0.00, 0.11, -0.05),
    4: (0.00, 0.43, -0.24),  # tip of the nose
    2: (0.00, 0.57, -0.05),  # below it
    9: (0.00, -0.21, -0.02),  # forehead
    10: (0.00, -0.54, 0.04),
    33: (-0.50, 0.06, 0.23),  # outer corners of the eyes
    263: (0.50, 0.06, 0.23),
    133: (-0.19, 0.09, 0.17),  # inner corners
    362: (0.19, 0.09, 0.17),
    129: (-0.22, 0.47, 0.06),  # wings of the nose
    358: (0.22, 0.47, 0.06),
    127: (-0.74, 0.08, 0.77),  # temples
    356: (0.74, 0.08, 0.77),
    234: (-0.73, 0.23, 0.82),  # before the ears
    454: (0.73, 0.23, 0.82),
}
_POINTS = list(HEAD)
_CENTRED = np.array(list(HEAD.values()), np.float64) - np.mean(list(HEAD.values()), axis=0)  # (16, 3)
_SOLVER = np.linalg.pinv(_CENTRED)  # (3, 16)


def head_pitch_deg(face: Face) -> float | None:
    """Return by how many degrees the face looks down (below 0: up), -90..90; None without the 468 points.

    It is the angle between where the nose points and the horizontal plane through the camera's axis, so that
    turning or tilting the head does not change it. A camera that stands lower or higher shifts it: compare
    with the same person's usual pitch.
    """
    points = face.landmarks
    if points is None or len(points) != MESH_POINTS:
        return None
    rows = _affine(points)
    sizes = np.linalg.norm(rows, axis=1)
    if not np.all(np.isfinite(sizes)) or sizes.min() < 1e-6:
        return None  # all points in one line: no face
    # The nearest two orthonormal rows: where right and down of the picture lie in the head.
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    _, down = u @ vt
    # The nose points to -z of the head: what of that goes down in the picture.
    return float(np.degrees(np.arcsin(np.clip(-down[2], -1, 1))))


def _affine(points: Float32) -> NDArray[np.float64]:
    """Return the (2, 3) map from the head, centred, to the picture that fits the points best."""
    seen = points[_POINTS].astype(np.float64)  # (16, 2)
    return np.asarray((_SOLVER @ (seen - seen.mean(axis=0))).T)  # (2, 3)
