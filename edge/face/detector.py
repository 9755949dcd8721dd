"""Detects the faces in an image.

The network is MediaPipe's BlazeFace full range (Bazarevsky et al. 2019, arXiv:1907.05047), refined by the
face mesh. Without their weights OpenCV's Haar cascade replaces both; it misses many faces.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np

from edge.face.mesh import Landmarker
from edge.inference.backends import load_model
from edge.inference.weights import DETECTOR, LANDMARKS, find_weights
from edge.values import Face, Float32, UInt8

log = logging.getLogger(__name__)

DETECTION_THRESHOLD = 0.5
OVERLAP = 0.3
SMALLEST_TILE = 128


class Detector(Protocol):
    """Detects faces; `Face.landmarks` are the six points of BlazeFace, or None."""

    name: str

    def detect(self, pixels: UInt8) -> list[Face]: ...


class BlazeFace:
    """MediaPipe's full-range face detector, 192x192."""

    name = "blazeface-full-range"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._model = load_model(path, threads=threads)
        self._side = self._model.inputs[0].shape[1]
        cells = self._side // 4  # one anchor per cell of 4x4 pixels
        ys, xs = np.mgrid[0:cells, 0:cells]
        # (cells * cells, 2), x then y, centres in 0..1
        self._centres = ((np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) / cells).astype(np.float32)
        self._canvas = np.zeros((self._side, self._side, 3), np.uint8)
        self._input = np.empty((1, self._side, self._side, 3), np.float32)

    def detect(self, pixels: UInt8) -> list[Face]:
        """Return the faces in `pixels` (h, w, 3), best first."""
        height, width = pixels.shape[:2]
        scale = self._side / max(height, width)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        left, top = (self._side - inner[0]) // 2, (self._side - inner[1]) // 2
        self._canvas[:] = 0
        self._canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(
            pixels, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        np.multiply(self._canvas[None], np.float32(1 / 127.5), out=self._input, casting="unsafe")
        self._input -= 1.0
        regressors, logits = self._model.run(self._input)
        scores = 1 / (1 + np.exp(-np.clip(logits[0, :, 0], -80, 80)))
        keep = scores > DETECTION_THRESHOLD
        if not keep.any():
            return []
        raw = regressors[0, keep] / self._side  # (n, 16): centre, size, six points
        centres = self._centres[keep]
        points = raw[:, 4:].reshape(-1, 6, 2) + centres[:, None]
        low = raw[:, :2] + centres - raw[:, 2:4] / 2
        # From the letterboxed square, 0..1, to pixels of the image.
        back = self._side / scale
        offset = np.array([left, top], np.float32) / scale
        boxes = np.concatenate([low * back - offset, raw[:, 2:4] * back], axis=1)
        points = points * back - offset
        return _merge(boxes.astype(np.float32), points.astype(np.float32), scores[keep].astype(np.float32))


class HaarCascade:
    """OpenCV's frontal face cascade: no download, but boxes only, slower, and it misses turned faces."""

    name = "haar"

    def __init__(self) -> None:
        data = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        self._cascade = cv2.CascadeClassifier(str(data))

    def detect(self, pixels: UInt8) -> list[Face]:
        """Return the faces in `pixels` (h, w, 3), each with the score 1: a cascade has no scores."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        smallest = max(24, min(grey.shape) // 12)
        boxes = self._cascade.detectMultiScale(grey, 1.2, 4, minSize=(smallest, smallest))
        return [Face((float(x), float(y), float(w), float(h)), 1.0) for x, y, w, h in boxes]


class FaceDetector:
    """Detects faces and places their landmarks."""

    def __init__(self, detector: Detector, landmarker: Landmarker | None) -> None:
        self.detector = detector
        self.landmarker = landmarker

    def detect(self, pixels: UInt8) -> list[Face]:
        """Return the faces in `pixels` (h, w, 3) with landmarks, which also reject false detections."""
        return self.refine(pixels, self.detector.detect(pixels))

    def detect_small(self, pixels: UInt8) -> list[Face]:
        """Return the faces of `detect`, and small ones found in ever smaller overlapping tiles: for stills.

        The detector reads 192 x 192 pixels, too few for a distant face in a large photograph.
        """
        found = self.detect(pixels)
        height, width = pixels.shape[:2]
        side = max(height, width) // 2
        while side >= SMALLEST_TILE:
            for top in _tile_starts(height, side):
                for left in _tile_starts(width, side):
                    tile = np.ascontiguousarray(pixels[top : top + side, left : left + side])
                    faces = (_moved(face, left, top) for face in self.detector.detect(tile))
                    new = [face for face in faces if not any(is_same_face(face, other) for other in found)]
                    located = self.refine(pixels, new)
                    found += [f for f in located if not any(is_same_face(f, other) for other in found)]
            side //= 2
        return found

    def refine(self, pixels: UInt8, faces: Sequence[Face]) -> list[Face]:
        """Place landmarks on detected or tracked faces; leave out those that are no longer there."""
        if self.landmarker is None:
            return list(faces)
        located = (self.landmarker.locate(pixels, face) for face in faces)
        return [face for face in located if face is not None]


def open_face_detector(*, threads: int = 1) -> FaceDetector:
    """Open BlazeFace and the face mesh, or the Haar cascade where their weights are missing.

    Raises `ModelError` when the files of the weights are not the pinned ones.
    """
    detector, landmarks = find_weights(DETECTOR), find_weights(LANDMARKS)
    if detector is None or landmarks is None:
        log.warning(
            "detector weights missing: using the Haar cascade, which misses many faces; "
            "`emotion-models fetch` downloads them"
        )
        return FaceDetector(HaarCascade(), None)
    return FaceDetector(BlazeFace(detector, threads=threads), Landmarker(landmarks, threads=threads))


def iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Return intersection over union of two boxes x, y, w, h."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    shared = wide * high
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def is_same_face(a: Face, b: Face) -> bool:
    """Return whether two boxes overlap, or the centre of the second lies in the first."""
    (x, y, w, h), (u, v, _, _) = a.box_px, b.box_px
    dx, dy = u + b.box_px[2] / 2 - x, v + b.box_px[3] / 2 - y
    return iou(a.box_px, b.box_px) > OVERLAP or (0 < dx < w and 0 < dy < h)


def _tile_starts(length: int, side: int) -> list[int]:
    """Return the offsets of tiles of `side` that cover `length` and overlap by half."""
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _moved(face: Face, dx: int, dy: int) -> Face:
    """Return a face of a tile in the coordinates of the whole image."""
    x, y, w, h = face.box_px
    points = None if face.landmarks is None else face.landmarks + np.array([dx, dy], np.float32)
    return replace(face, box_px=(x + dx, y + dy, w, h), landmarks=points)


def _merge(boxes: Float32, points: Float32, scores: Float32) -> list[Face]:
    """Average overlapping detections by score, as BlazeFace does instead of non-maximum suppression."""
    order = np.argsort(-scores)
    left = list(order)
    faces = []
    while left:
        best = left[0]
        near = [i for i in left if iou(tuple(boxes[best]), tuple(boxes[i])) > OVERLAP or i == best]
        left = [i for i in left if i not in near]
        weights = scores[near] / scores[near].sum()
        box = tuple(float(v) for v in weights @ boxes[near])
        faces.append(
            Face(
                cast(tuple[float, float, float, float], box),
                float(scores[best]),
                np.tensordot(weights, points[near], axes=1).astype(np.float32),
            )
        )
    return faces
