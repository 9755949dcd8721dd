"""Sequences of face crops to train the video models: still faces, and onsets of expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.face.crop import FaceCropper
from edge.face.detector import open_face_detector
from edge.values import LABELS, Float32, UInt8
from models.data.datasets import (
    FACE_PX,
    IMAGE_SUFFIXES,
    DataError,
    FaceSet,
    find_set,
    label_of,
    load_ckplus48,
    load_fer2013,
)
from models.data.face_crops import UNLEVELLED, crop_largest
from models.run import Run

NEUTRAL = LABELS.index("neutral")
STILL_VIEWS = 4
WILD_PER_CLASS = 300  # of FER2013 Training, which the face model was trained on
# Parts of FER2013 PublicTest, which the face model was not trained on: two to train the video model, one for
# validation, one to train the visual network.
PARTS = 4
TRAIN, VALIDATE, COMBINE = (0, 1), (2,), (3,)
RAMP_STEPS = 9
# Positions of the onset, 0..1: the target is neutral up to the first, the expression from the second, and
# interpolated between them.
ONSET = (0.1, 0.4)


@dataclass(frozen=True, slots=True, eq=False)
class ExpressionSequence:
    """Crops (views, k, 48, 48) uint8 of one face in k steps, with `targets` (k, 7) and the person."""

    crops: UInt8
    targets: Float32
    person: str
    kind: str  # wild, posed, sequence, ramp


@dataclass(frozen=True, slots=True, eq=False)
class FilmedOnset:
    """A CK+ sequence: crops (k, 48, 48) uint8 of the frames with a face, label, person and sequence name."""

    crops: UInt8
    label: int
    person: str
    name: str


def onset_targets(label: int, way: Float32) -> Float32:
    """Return targets (k, 7) at positions `way` (k,), 0 for the neutral face to 1 for the peak of `label`."""
    low, high = ONSET
    share = np.clip((way - low) / (high - low), 0, 1)
    targets = np.zeros((len(way), len(LABELS)), np.float32)
    targets[:, NEUTRAL] = 1 - share
    targets[:, label] += share
    return targets


def perturb_crop(crop: UInt8, random: np.random.Generator) -> UInt8:
    """Return a crop (48, 48) uint8 as in another frame: slightly moved, with noise, light or blur."""
    scale = 1 + random.uniform(-0.07, 0.07)
    matrix = cv2.getRotationMatrix2D((23.5, 23.5), random.uniform(-5, 5), scale)
    matrix[:, 2] = matrix[:, 2] + random.uniform(-2, 2, 2)
    moved = cv2.warpAffine(
        crop, matrix, (FACE_PX, FACE_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if random.random() < 0.3:
        moved = cv2.GaussianBlur(moved, (3, 3), random.uniform(0.4, 1.0))
    noise = random.uniform(0, 14) * random.standard_normal(moved.shape)
    values = moved * np.exp(random.uniform(-0.15, 0.15)) + noise
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def load_expression_sequences(run: Run, *, seed: int) -> list[ExpressionSequence]:
    """Return all sequences; the same `seed` gives the same ones.

    `person` is `fer2013:N` for part N of PublicTest, `fer2013` for Training, `ckplus:SUBJECT` for CK+.
    """
    random = np.random.default_rng(seed)
    directory = find_set(run.data, "fer2013")
    with run.bar("reading fer2013") as progress:
        training = load_fer2013(directory, "Training", progress=progress)
        public = load_fer2013(directory, "PublicTest", progress=progress)
    kept = np.zeros(len(training), np.bool_)
    for label in range(len(LABELS)):
        kept[random.permutation(np.flatnonzero(training.labels == label))[:WILD_PER_CLASS]] = True
    posed = load_ckplus48(find_set(run.data, "ckplus48"))
    sequences = read_ckplus_onsets(find_set(run.data, "ckplus_sequences"))
    found = list(_stills(training.where(kept), "wild", lambda _: "fer2013", random))
    found += _stills(public, "wild", lambda i: f"fer2013:{i % PARTS}", random)
    found += _stills(posed, "posed", lambda i: f"ckplus:{posed.subjects[i]}", random)
    found += [_filmed(sequence, random) for sequence in sequences]
    found += _blended(posed, sequences, random)
    return found


def read_ckplus_onsets(directory: Path) -> list[FilmedOnset]:
    """Read CK+'s sequences; crop every frame with the detector as the device does, without levelling."""
    detector, cropper = open_face_detector(), FaceCropper(UNLEVELLED)
    found = []
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    for folder in dict.fromkeys(path.parent for path in paths):
        label = label_of(folder.parent.name)
        if label is None:
            continue
        frames = (read_grey(path) for path in paths if path.parent == folder)
        cut = (crop_largest(frame, detector, cropper) for frame in frames)
        crops = [crop for crop in cut if crop is not None]
        if len(crops) >= 2:
            person = f"ckplus:{folder.name.split('_')[0]}"
            found.append(FilmedOnset(np.stack(crops), LABELS.index(label), person, folder.name))
    if not found:
        raise DataError(f"ckplus_sequences: no sequence with faces in {directory}; check the directory")
    return found


def blend(neutral: UInt8, peak: UInt8, way: Float32) -> UInt8:
    """Return crops (k, 48, 48) uint8 interpolated at `way` (k,) 0..1 between two crops of one person."""
    share = way[:, np.newaxis, np.newaxis]
    return np.rint((1 - share) * neutral + share * peak).astype(np.uint8)


def _stills(
    faces: FaceSet, kind: str, person: Callable[[int], str], random: np.random.Generator
) -> Iterator[ExpressionSequence]:
    """Yield a sequence of one step per face: the face or its mirror image, and perturbed views."""
    hard = (0.97 * np.eye(len(LABELS), dtype=np.float32) + 0.03 / len(LABELS))[faces.labels]
    votes = faces.votes.sum(axis=1, keepdims=True)
    voted = np.divide(faces.votes, votes, out=hard.copy(), where=votes > 0)
    targets = np.asarray(0.3 * hard + 0.7 * voted, np.float32)
    for i, crop in enumerate(faces.stacked()):
        first = crop[:, ::-1] if random.random() < 0.5 else crop
        views = [first, *(perturb_crop(first, random) for _ in range(STILL_VIEWS - 1))]
        yield ExpressionSequence(np.stack(views)[:, np.newaxis], targets[i : i + 1], person(i), kind)


def _filmed(sequence: FilmedOnset, random: np.random.Generator) -> ExpressionSequence:
    """Return three views of the frames: unchanged, mirrored, and each perturbed."""
    frames = sequence.crops
    views = [frames, frames[:, :, ::-1], np.stack([perturb_crop(frame, random) for frame in frames])]
    way = np.linspace(0, 1, len(frames), dtype=np.float32)
    return ExpressionSequence(
        np.stack(views), onset_targets(sequence.label, way), sequence.person, "sequence"
    )


def _blended(
    posed: FaceSet, sequences: Sequence[FilmedOnset], random: np.random.Generator
) -> Iterator[ExpressionSequence]:
    """Blend a person's neutral face into every third peak of the same person in ckplus48.

    ckplus48 has three nearly equal images per sequence.
    """
    way = np.linspace(0, 1, RAMP_STEPS, dtype=np.float32)
    neutral = {sequence.person: sequence.crops[0] for sequence in sequences}
    peaks = posed.stacked()
    for i in range(0, len(posed), 3):
        person, peak = f"ckplus:{posed.subjects[i]}", peaks[i]
        if person in neutral:
            crops = blend(neutral[person], peak, way)
            views = [crops, crops[:, :, ::-1], np.stack([perturb_crop(crop, random) for crop in crops])]
            yield ExpressionSequence(
                np.stack(views), onset_targets(int(posed.labels[i]), way), person, "ramp"
            )


def read_grey(path: Path) -> UInt8:
    """Read a grey image (h, w) uint8; raise `DataError` for an unreadable file."""
    image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataError(f"{path}: not a readable image; download the data set again")
    return image.astype(np.uint8, copy=False)
