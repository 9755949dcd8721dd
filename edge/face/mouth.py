"""How far a mouth is open, from the landmarks of the face mesh."""

from __future__ import annotations

import numpy as np

from edge.face.landmarks import MESH_POINTS, MOUTH
from edge.values import Face

UPPER_LIP, LOWER_LIP = 13, 14  # inner edges of the lips, in the middle


def mouth_opening(face: Face) -> float | None:
    """Return the gap between the lips over the width of the mouth: 0 shut, about 1 in a wide yawn.

    This ratio of two distances does not depend on size, position, or the roll of the head. None where
    the face has no mesh of 468 points. It is the mouth aspect ratio of the drowsiness literature (e.g. Abtahi
    et al. 2014, "YawDD: a yawning detection dataset"), computed from the points of the face mesh.
    """
    points = face.landmarks
    if points is None or len(points) != MESH_POINTS:
        return None
    left, right = points[list(MOUTH)]
    width = float(np.hypot(*(right - left)))
    if width < 1.0:  # pixel: a mouth in profile has no usable width
        return None
    return float(np.hypot(*(points[LOWER_LIP] - points[UPPER_LIP]))) / width
