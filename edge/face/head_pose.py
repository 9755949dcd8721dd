"""The pitch of a head (how far it is bowed), from its landmarks.

Under weak perspective, an affine map takes the points of a rigid head to the image. Its two rows, made
orthonormal, are the rotation (POS, the first step of DeMenthon and Davis 1995, "Model-based object pose in 25
lines of code"). It needs no focal length and no iteration.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.face.landmarks import MESH_POINTS
from edge.values import Face, Float32

# Points that neither speech nor expressions move: x right, y down, z away from the camera. The origin is the
# bridge of the nose, the unit is the distance between the outer corners of the eyes. They are the mean of the
# face mesh, depth included, on 30 frontal neutral faces (JAFFE), made symmetric.
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
    234: (-0.73, 0.23, 0.82),  # in front of the ears
    454: (0.73, 0.23, 0.82),
}
_POINTS = list(HEAD)
_CENTRED = np.array(list(HEAD.values()), np.float64) - np.mean(list(HEAD.values()), axis=0)  # (16, 3)
_SOLVER = np.linalg.pinv(_CENTRED)  # (3, 16)


def head_pitch_deg(face: Face) -> float | None:
    """Return the pitch in degrees, -90..90, positive for a bowed head; None without the 468 points.

    It is the angle between the direction of the nose and the horizontal plane through the camera's axis, so
    that turning or tilting the head does not change it. The height of the camera shifts it: compare it with
    the usual pitch of the same person.
    """
    points = face.landmarks
    if points is None or len(points) != MESH_POINTS:
        return None
    rows = _affine(points)
    sizes = np.linalg.norm(rows, axis=1)
    if not np.all(np.isfinite(sizes)) or sizes.min() < 1e-6:
        return None  # all points are on one line
    # The nearest two orthonormal rows: the directions right and down of the image, in head coordinates.
    u, _, vt = np.linalg.svd(rows, full_matrices=False)
    _, down = u @ vt
    # The nose points to -z of the head; this is its component down the image.
    return float(np.degrees(np.arcsin(np.clip(-down[2], -1, 1))))


def _affine(points: Float32) -> NDArray[np.float64]:
    """Return the (2, 3) least-squares map from the centred head points to the image."""
    image = points[_POINTS].astype(np.float64)  # (16, 2)
    return np.asarray((_SOLVER @ (image - image.mean(axis=0))).T)  # (2, 3)
