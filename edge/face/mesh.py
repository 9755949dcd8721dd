"""Face mesh: places 468 landmarks on a face.

The network is MediaPipe's face mesh (Kartynnik et al. 2019, arXiv:1907.06724).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge.face.landmarks import MESH_POINTS, face_anchors
from edge.inference.backends import load_model
from edge.values import Face, Float32, UInt8

PRESENCE_THRESHOLD = 0.5


class Landmarker:
    """MediaPipe's face mesh: 468 points and the probability that there is a face; one thread at a time."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._model = load_model(path, threads=threads)
        self._side = self._model.inputs[0].shape[1]
        self._crop = np.empty((self._side, self._side, 3), np.uint8)
        self._input = np.empty((1, self._side, self._side, 3), np.float32)

    def locate(self, pixels: UInt8, near: Face) -> Face | None:
        """Place the landmarks of a detected or tracked face; None where there is no face.

        The result has `landmarks` (468, 2) in pixels, their bounding box, and the probability as its score.
        """
        forward = _region(near, self._side)
        cv2.warpAffine(pixels, forward, (self._side, self._side), dst=self._crop, flags=cv2.INTER_LINEAR)
        np.multiply(self._crop[None], np.float32(1 / 255), out=self._input, casting="unsafe")
        points, presence = self._model.run(self._input)
        score = float(1 / (1 + np.exp(-np.clip(presence.reshape(()), -80, 80))))
        if score < PRESENCE_THRESHOLD:
            return None
        mesh = points.reshape(MESH_POINTS, 3)[:, :2]  # depth is not used
        back = cv2.invertAffineTransform(forward).astype(np.float32)
        mesh = mesh @ back[:, :2].T + back[:, 2]
        low, high = mesh.min(axis=0), mesh.max(axis=0)
        box = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
        return replace(near, box_px=box, score=score, landmarks=mesh)


def _region(face: Face, side: int) -> Float32:
    """Return the (2, 3) transform that maps a face, upright, to the square input of the network.

    The side of the square is 1.5 times the longer side of the box, as in the network's training.
    """
    x, y, w, h = face.box_px
    anchors = face_anchors(face)
    angle = float(np.degrees(np.arctan2(*(anchors.right_eye - anchors.left_eye)[::-1])))
    scale = side / (1.5 * max(w, h, 1.0))
    matrix = cv2.getRotationMatrix2D((x + w / 2, y + h / 2), angle, scale)
    matrix[:, 2] += np.array([side / 2 - x - w / 2, side / 2 - y - h / 2], np.float64)
    return matrix.astype(np.float32)
