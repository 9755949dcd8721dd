"""The network that classifies a mouth as still or yawning.

It is trained on mouths/yawn, which names no people, and on mouths of CK+'s sequences as non-yawning examples,
cropped by the device's own landmarks. Surprise, with its open mouth, is left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.crop import level
from edge.face.detector import open_face_detector
from edge.face.yawning import cut_mouth
from edge.inference.card import Source
from edge.inference.features import MouthSpec
from edge.values import LABELS, Float32, UInt8
from models.data.datasets import DataError, find_set, load_ckplus_sequences
from models.data.eye_sets import STILL, YAWNING, PatchSet, joined, load_yawns
from models.data.face_crops import grey_to_rgb
from models.data.splits import subject_folds
from models.run import Run
from models.training.augmentation import soft_targets
from models.training.engine import Schedule
from models.training.eye_augmentation import degrade_crop
from models.training.patch_models import PatchModel

SPEC = MouthSpec(height=24, width=32)
SHAPE = (SPEC.height, SPEC.width, 1)
WIDTHS = (12, 16, 24)
SCHEDULE = Schedule(epochs=16, batch=64, rate=4e-3, decay=0.02, ema=0.99, seed=9)
VIEWS = 8
MOUTHS_PER_EPOCH = 2400
SMOOTHING = 0.04
FOLDS = 5
VALIDATION_TENTH = 10
MOVE = 0.12  # of the lips' box: landmarks and the data set's boxes differ this much

SOURCES = (
    Source(
        name="yawn",
        use="trained on, except every tenth cluster of alike pictures (choices); nobody is named there, so "
        "the figure from folds may know a person",
        licence="not stated",
    ),
    Source(
        name="ckplus_sequences",
        use="mouths of all but surprise, as still ones; the figure is from folds without the people",
        licence="CK+ research agreement",
    ),
)


def build() -> Any:
    """Return (24, 32, 1) in [0, 1] -> (2,) still, yawning, that sums to 1; 16,000 parameters."""
    import keras
    from keras import layers

    mouth = keras.Input(SHAPE, name="mouth")
    x = mouth
    for width in WIDTHS:  # 24x32 -> 12x16 -> 6x8 -> 3x4
        for stride in (2, 1):
            x = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)  # (3, 4, 24) -> (24,)
    x = layers.Dropout(0.2)(x)
    return keras.Model(mouth, layers.Dense(2, activation="softmax", name="p")(x), name="mouth-state")


MODEL = PatchModel(task="mouth", build=build, shape=SHAPE, features=SPEC, schedule=SCHEDULE, sources=SOURCES)


def train_mouth_state(run: Run) -> Path:
    """Train one model for each fold without its clusters and people, and the shipped one; return its card."""
    mouths, validation = read_mouths(run)
    random = np.random.default_rng(SCHEDULE.seed)
    views = np.stack([as_input([_augmented(image, random) for image in mouths.images]) for _ in range(VIEWS)])
    for k, held_out in enumerate(folds_of(mouths)):
        keep = np.flatnonzero(~np.isin(mouths.people, held_out))
        part = mouths.take(keep)
        _train_one(run, f"mouth-state-fold{k}", views[:, keep], part.labels, validation, held_out=held_out)
    held_out = sorted(set(validation.people))
    return _train_one(run, "mouth-state", views, mouths.labels, validation, held_out=held_out)


def read_mouths(run: Run) -> tuple[PatchSet, PatchSet]:
    """Return the training mouths and the validation mouths."""
    with run.bar("reading mouths") as progress:
        yawns = load_yawns(find_set(run.data, "yawn"), progress=progress)
    mouths = joined(yawns, ckplus_mouths(run.data))
    for note in mouths.notes:
        run.report(note)
    chosen = [p for p in sorted(set(mouths.people)) if zlib.crc32(p.encode()) % VALIDATION_TENTH == 0]
    training, validation = mouths.of_people(chosen, inside=False), mouths.of_people(chosen)
    for part in (training, validation):
        if set(part.labels.tolist()) != {STILL, YAWNING}:
            raise DataError("yawn: a part of the set lacks still or yawning mouths; complete the data set")
    return training, validation


def ckplus_mouths(data: Path) -> PatchSet:
    """Crop the lips in CK+'s sequences as the device does, without surprise."""
    faces = load_ckplus_sequences(find_set(data, "ckplus_sequences"))
    detector, crop = open_face_detector(), np.empty(SHAPE, np.float32)
    images, people = [], []
    for image, label, subject in zip(faces.images, faces.labels, faces.subjects, strict=True):
        if label == LABELS.index("surprise"):
            continue
        pixels = grey_to_rgb(image)
        for face in detector.detect(pixels)[:1]:
            if cut_mouth(pixels, face, crop):
                images.append(np.rint(255 * crop[..., 0]).astype(np.uint8))
                people.append(f"ckplus:{subject}")
    labels = np.full(len(images), STILL, np.int64)
    return PatchSet("ckplus", tuple(images), labels, tuple(people), ({},) * len(images), faces.notes)


def folds_of(mouths: PatchSet) -> list[list[str]]:
    """Return the clusters and people of each fold, with data sets and classes evenly distributed."""
    is_ckplus = np.array([person.startswith("ckplus:") for person in mouths.people])
    folds = subject_folds(mouths.labels + 2 * is_ckplus, mouths.people, seed=SCHEDULE.seed, folds=FOLDS)
    return [sorted({mouths.people[i] for i in fold.test}) for fold in folds]


def as_input(images: Sequence[UInt8]) -> Float32:
    """Return mouths (h, w) uint8 as input of the network: (n, 24, 32, 1) float32, levelled."""
    size = (SPEC.width, SPEC.height)
    sized = [cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images]
    values = np.stack(sized)[..., np.newaxis].astype(np.float32) / np.float32(255)
    for crop in values:
        level(crop)
    return values


def _augmented(image: UInt8, random: np.random.Generator) -> UInt8:
    """Return one mouth (h, w) uint8 augmented in position, size and image quality, as (24, 32)."""
    height, width = image.shape
    wide, high = np.exp(random.uniform(-MOVE, MOVE, 2))
    sx, sy = SPEC.width / width * wide, SPEC.height / height * high
    turn = np.radians(random.normal(0, 5))
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[sx * cos, sx * sin, 0.0], [-sy * sin, sy * cos, 0.0]])
    if random.random() < 0.5:
        matrix[:, 0] *= -1
    shift = random.uniform(-MOVE, MOVE, 2) * (SPEC.width, SPEC.height)
    matrix[:, 2] = np.array([SPEC.width, SPEC.height]) / 2 + shift - matrix[:, :2] @ (width / 2, height / 2)
    size = (SPEC.width, SPEC.height)
    moved = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    return degrade_crop(moved, random)


def _train_one(
    run: Run,
    name: str,
    views: Float32,
    labels: NDArray[np.int64],
    validation: PatchSet,
    *,
    held_out: Sequence[str],
) -> Path:
    """Train one model on views (VIEWS, n, 24, 32, 1) with labels (n,); return the path of its card."""
    weights = 1 / np.bincount(labels)[labels] / 2  # both classes equally often

    def epoch_of(number: int) -> tuple[Float32, Float32]:
        random = np.random.default_rng([SCHEDULE.seed, number])
        index = random.choice(len(labels), min(MOUTHS_PER_EPOCH, 4 * len(labels)), p=weights)
        inputs = views[random.integers(VIEWS, size=len(index)), index]
        return inputs, soft_targets(labels[index], 2, smoothing=SMOOTHING)

    def figures_of(p: Float32) -> dict[str, float]:
        return {"accuracy": float(np.mean(p.argmax(axis=1) == validation.labels))}

    validated = (as_input(validation.images), validation.labels)
    return MODEL.train(run, name, epoch_of, validation=validated, figures_of=figures_of, held_out=held_out)
