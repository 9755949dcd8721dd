"""Finds faces in a frame, places 468 landmarks on each, and cuts the crop that the face model reads.

Training and evaluation use this very crop. The networks are MediaPipe's BlazeFace full range
(Bazarevsky et al. 2019, arXiv:1907.05047) and face mesh (Kartynnik et al. 2019, arXiv:1907.06724);
OpenCV's Haar cascade stands in where their weights were never fetched.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np

from edge.errors import ModelError
from edge.face.crop import cut_grey, level
from edge.inference.backends import load_model
from edge.inference.weights import DETECTOR, LANDMARKS, find_weights
from edge.values import Face, Float32, UInt8

log = logging.getLogger(__name__)

DETECTION_THRESHOLD = 0.5
PRESENCE_THRESHOLD = 0.5
OVERLAP = 0.3
SMALLEST_TILE = 128

# Corners of the eyes and of the mouth among the 468 points; "left" is left in the picture.
LEFT_EYE, RIGHT_EYE, MOUTH = (33, 133), (362, 263), (61, 291)


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """What a crop hangs on: centres of the eyes and of the mouth, (2,) float32 pixels each."""

    left_eye: Float32
    right_eye: Float32
    mouth: Float32 | None = None


class Detector(Protocol):
    """Finds faces; `Face.landmarks` are six points of BlazeFace, or None."""

    name: str

    def detect(self, pixels: UInt8) -> list[Face]: ...


class BlazeFace:
    """MediaPipe's full-range face detector, 192x192."""

    name = "blazeface-full-range"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._model = load_model(path, threads=threads)
        self._side = self._model.inputs[0].shape[1]
        cells = self._side // 4  # one anchor a cell of 4x4 pixels
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
        # From the letterboxed square, 0..1, to the picture's pixels.
        back = self._side / scale
        offset = np.array([left, top], np.float32) / scale
        boxes = np.concatenate([low * back - offset, raw[:, 2:4] * back], axis=1)
        points = points * back - offset
        return _merge(boxes.astype(np.float32), points.astype(np.float32), scores[keep].astype(np.float32))


class HaarCascade:
    """OpenCV's frontal face cascade: no download, boxes only, slower and blind to turned faces."""

    name = "haar"

    def __init__(self) -> None:
        data = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
        self._cascade = cv2.CascadeClassifier(str(data))

    def detect(self, pixels: UInt8) -> list[Face]:
        """Return the faces in `pixels` (h, w, 3); every score is 1, since a cascade has none."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        smallest = max(24, min(grey.shape) // 12)
        boxes = self._cascade.detectMultiScale(grey, 1.2, 4, minSize=(smallest, smallest))
        return [Face((float(x), float(y), float(w), float(h)), 1.0) for x, y, w, h in boxes]


class Landmarker:
    """MediaPipe's face mesh: 468 points, and how sure it is that there is a face at all."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._model = load_model(path, threads=threads)
        self._side = self._model.inputs[0].shape[1]
        self._crop = np.empty((self._side, self._side, 3), np.uint8)
        self._input = np.empty((1, self._side, self._side, 3), np.float32)

    def locate(self, pixels: UInt8, near: Face) -> Face | None:
        """Refine a detected or formerly located face; None where there is none.

        The result has `landmarks` (468, 2) in pixels, their bounding box, and the presence as score.
        """
        forward = _region(near, self._side)
        cv2.warpAffine(pixels, forward, (self._side, self._side), dst=self._crop, flags=cv2.INTER_LINEAR)
        np.multiply(self._crop[None], np.float32(1 / 255), out=self._input, casting="unsafe")
        points, presence = self._model.run(self._input)
        score = float(1 / (1 + np.exp(-np.clip(presence.reshape(()), -80, 80))))
        if score < PRESENCE_THRESHOLD:
            return None
        mesh = points.reshape(468, 3)[:, :2]  # depth is not used
        back = cv2.invertAffineTransform(forward).astype(np.float32)
        mesh = mesh @ back[:, :2].T + back[:, 2]
        low, high = mesh.min(axis=0), mesh.max(axis=0)
        box = (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))
        return replace(near, box_px=box, score=score, landmarks=mesh)


class FaceDetector:
    """Detection and landmarks as one: what the pipeline asks for faces."""

    def __init__(self, detector: Detector, landmarker: Landmarker | None) -> None:
        self.detector = detector
        self.landmarker = landmarker

    def detect(self, pixels: UInt8) -> list[Face]:
        """Return all faces in `pixels` (h, w, 3), each refined; the landmarks also reject false ones."""
        return self.refine(pixels, self.detector.detect(pixels))

    def detect_small(self, pixels: UInt8) -> list[Face]:
        """Like `find`, and look again through ever smaller overlapping tiles: for stills, where time allows.

        The detector sees 192 pixels a side, so a far face in a large photograph is lost to one look.
        """
        found = self.detect(pixels)
        height, width = pixels.shape[:2]
        side = max(height, width) // 2
        while side >= SMALLEST_TILE:
            for top in _tile_starts(height, side):
                for left in _tile_starts(width, side):
                    tile = np.ascontiguousarray(pixels[top : top + side, left : left + side])
                    seen = (_moved(face, left, top) for face in self.detector.detect(tile))
                    new = [face for face in seen if not any(is_same_face(face, other) for other in found)]
                    located = self.refine(pixels, new)
                    found += [f for f in located if not any(is_same_face(f, other) for other in found)]
            side //= 2
        return found

    def refine(self, pixels: UInt8, faces: Sequence[Face]) -> list[Face]:
        """Place landmarks on known faces; faces that are no longer there are left out."""
        if self.landmarker is None:
            return list(faces)
        located = (self.landmarker.locate(pixels, face) for face in faces)
        return [face for face in located if face is not None]


def open_face_detector(*, threads: int = 1) -> FaceDetector:
    """Open BlazeFace and the face mesh, or the Haar cascade where their weights were never fetched.

    Raises `ModelError` when the weights are there but are not the pinned ones.
    """
    detector, landmarks = find_weights(DETECTOR), find_weights(LANDMARKS)
    if detector is None or landmarks is None:
        log.warning("detector weights are not here: using Haar; `emotion-models fetch` gets them")
        return FaceDetector(HaarCascade(), None)
    return FaceDetector(BlazeFace(detector, threads=threads), Landmarker(landmarks, threads=threads))


@dataclass(frozen=True, slots=True)
class CropSpec:
    """The crop that a face model was trained on: its side in pixels, and where eyes and mouth land, 0..1.

    `levelled` crops all have the same mean and contrast, whatever the light and the camera.
    """

    size: int
    eyes: tuple[tuple[float, float], tuple[float, float]]
    mouth_y: float
    levelled: bool = False

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> CropSpec:
        """Read a card's `input.features`; raise `ModelError` for an unknown kind."""
        if features.get("kind") != "face_crop":
            raise ModelError(
                f"input.features.kind {features.get('kind')!r}: unknown face features; "
                "update emotion-edge or choose another models.face"
            )
        (lx, ly), (rx, ry) = features["eyes"]
        return cls(
            int(features["size"]),
            ((lx, ly), (rx, ry)),
            float(features["mouth_y"]),
            bool(features.get("levelled", False)),
        )

    def to_features(self) -> dict[str, Any]:
        """Return what `from_features` reads, for a card."""
        return {
            "kind": "face_crop",
            "size": self.size,
            "eyes": self.eyes,
            "mouth_y": self.mouth_y,
            "levelled": self.levelled,
        }


# Where eyes and mouth lie in fer2013 (median of 1,082 training faces found again by the landmarks; ckplus48
# lies within 0.01 of it): the frame of both sets is OpenCV's Haar box. Train on it, and crop to it.
FER_CROP = CropSpec(48, ((0.3125, 0.395), (0.6875, 0.395)), 0.765)


class FaceCropper:
    """Cuts faces out of frames, upright and scaled as in training, reusing its buffers."""

    def __init__(self, spec: CropSpec) -> None:
        self._spec = spec
        self._crop = np.empty((spec.size, spec.size, 1), np.float32)

    def crop(self, pixels: UInt8, face: Face) -> Float32:
        """Return (size, size, 1) float32 in [0, 1]; valid until the next call."""
        forward, scale = _alignment(face_anchors(face), self._spec)
        cut_grey(pixels, forward, scale, self._crop)
        if self._spec.levelled:
            level(self._crop)
        return self._crop

    def quality(self, face: Face) -> float:
        """How good a crop of this face can be, 0..1: its score, its size, and how frontal it is."""
        anchors = face_anchors(face)
        _, scale = _alignment(anchors, self._spec)
        size = min(1.0, 1 / scale)  # below 1 the crop is blown up from fewer pixels
        return float(np.clip(face.score * size * _frontality(anchors, self._spec), 0, 1))


def face_anchors(face: Face) -> Anchors:
    """Return eyes and mouth of a face: from 468 or 6 landmarks, or from the box where there are none."""
    points = face.landmarks
    if points is not None and len(points) == 468:
        left, right, mouth = (points[list(corners)].mean(0) for corners in (LEFT_EYE, RIGHT_EYE, MOUTH))
        return Anchors(left, right, mouth)
    if points is not None:
        return Anchors(points[0], points[1], points[3])
    x, y, w, h = face.box_px
    # Where the landmarks put the eyes inside Haar's box, median over fer2013's training faces.
    at = [np.array([x + fx * w, y + fy * h], np.float32) for fx, fy in ((0.307, 0.395), (0.683, 0.395))]
    return Anchors(at[0], at[1])


def iou(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Return intersection over union of two boxes x, y, w, h."""
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    shared = wide * high
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def is_same_face(a: Face, b: Face) -> bool:
    """Tell whether two finds overlap, or the centre of one lies in the other."""
    (x, y, w, h), (u, v, _, _) = a.box_px, b.box_px
    dx, dy = u + b.box_px[2] / 2 - x, v + b.box_px[3] / 2 - y
    return iou(a.box_px, b.box_px) > OVERLAP or (0 < dx < w and 0 < dy < h)


def _tile_starts(length: int, side: int) -> list[int]:
    """Return where tiles of `side` begin so that they cover `length` and overlap by half."""
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side / 2))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _moved(face: Face, dx: int, dy: int) -> Face:
    """Return a face found in a tile as one of the whole picture."""
    x, y, w, h = face.box_px
    points = None if face.landmarks is None else face.landmarks + np.array([dx, dy], np.float32)
    return replace(face, box_px=(x + dx, y + dy, w, h), landmarks=points)


def _alignment(anchors: Anchors, spec: CropSpec) -> tuple[Float32, float]:
    """Return the (2, 3) similarity from picture to crop, and its scale in crop pixels a picture pixel.

    The eyes give place and angle. The scale follows whichever of eye distance and eye-to-mouth
    distance looks longer, so that a face turned aside (eyes closer) or bowed is not blown up.
    """
    (lx, ly), (rx, ry) = spec.eyes
    target = np.array([(lx + rx) / 2, (ly + ry) / 2]) * spec.size
    across = anchors.right_eye - anchors.left_eye
    length = max(float(np.hypot(*across)), 1.0)
    cos, sin = float(across[0]) / length, float(across[1]) / length
    centre = (anchors.left_eye + anchors.right_eye) / 2
    scale = (rx - lx) * spec.size / length
    if anchors.mouth is not None:
        down = max(float(np.hypot(*(anchors.mouth - centre))), 1.0)
        scale = min(scale, (spec.mouth_y - (ly + ry) / 2) * spec.size / down)
    a, b = scale * cos, scale * sin
    matrix = np.array([[a, b, 0.0], [-b, a, 0.0]], np.float32)
    matrix[:, 2] = target - matrix[:, :2] @ centre
    return matrix, scale


def _frontality(anchors: Anchors, spec: CropSpec) -> float:
    """Return 1 for a frontal face, towards 0 for a profile: eye distance against eye-to-mouth distance."""
    if anchors.mouth is None:
        return 1.0
    (lx, ly), (rx, ry) = spec.eyes
    expected = (rx - lx) / (spec.mouth_y - (ly + ry) / 2)
    across = float(np.hypot(*(anchors.right_eye - anchors.left_eye)))
    down = float(np.hypot(*(anchors.mouth - (anchors.left_eye + anchors.right_eye) / 2)))
    return min(1.0, across / max(down, 1.0) / expected)


def _region(face: Face, side: int) -> Float32:
    """Return the (2, 3) transform that turns a face upright into the landmark model's square.

    The square is 1.5 times the longer side of the box, as the model was trained.
    """
    x, y, w, h = face.box_px
    anchors = face_anchors(face)
    angle = float(np.degrees(np.arctan2(*(anchors.right_eye - anchors.left_eye)[::-1])))
    scale = side / (1.5 * max(w, h, 1.0))
    matrix = cv2.getRotationMatrix2D((x + w / 2, y + h / 2), angle, scale)
    matrix[:, 2] += np.array([side / 2 - x - w / 2, side / 2 - y - h / 2], np.float64)
    return matrix.astype(np.float32)


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
