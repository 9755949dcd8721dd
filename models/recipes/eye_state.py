"""The network that classifies an eye as closed, open or hidden.

It is trained on photographs (cew) and infrared images (mrl) together. No model is trained on the validation
people. Every other person is predicted once, by the fold model that holds the person out.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.crop import level
from edge.inference.card import Source
from edge.inference.features import EyeSpec
from edge.values import Float32, UInt8
from models.data.datasets import DataError, find_set, load_fer2013
from models.data.eye_sets import CLOSED, OPEN, PatchSet, joined, load_cew, load_mrl
from models.data.splits import subject_folds
from models.run import Progress, Run
from models.training.augmentation import soft_targets
from models.training.engine import Schedule
from models.training.eye_augmentation import augment_eye, crop_beside_eye, occlude_eye
from models.training.patch_models import PatchModel

HIDDEN = 2
CLASSES = 3
# The corners of open eyes are 0.65 of the side apart in cew and in mrl (measured in twelve images of each).
SPEC = EyeSpec(size=24, width=0.65, hidden=0.2)
SHAPE = (SPEC.size, SPEC.size, 1)
WIDTHS = (16, 24, 32, 48)
SCHEDULE = Schedule(epochs=16, batch=96, rate=4e-3, decay=0.02, ema=0.99, seed=7)
EYES_PER_EPOCH = 4800  # half of each set
HIDDEN_PER_EPOCH = 1400
VIEWS = 4  # augmented views of each eye, made once for all models; every second eye also has a hidden view
BESIDE = 0.25  # of the hidden views: parts of a face without an eye
SMOOTHING = 0.02
FOLDS = 5
# Three of mrl's 16 people, with both states, two of them partly with glasses; every tenth person of cew.
MRL_VALIDATION = ("mrl:s0019", "mrl:s0034", "mrl:s0037")
CEW_TENTH = 10

SOURCES = (
    Source(
        name="cew",
        use="trained on, except every tenth person (choices); the figure is from folds without the people",
        licence="research use",
    ),
    Source(
        name="mrl",
        use="trained on, except s0019, s0034, s0037 (choices); the figure is from folds without the people",
        licence="research use",
    ),
    Source(
        name="fer2013",
        use="parts of training faces without eyes and mouth, as what is no eye",
        licence="web photographs of the Kaggle 2013 challenge, research use",
    ),
)


def build(shape: tuple[int, int, int] = SHAPE) -> Any:
    """Return (24, 24, 1) in [0, 1] -> (3,) closed, open, hidden, that sums to 1; 60,000 parameters."""
    import keras
    from keras import layers

    eye = keras.Input(shape, name="eye")
    x = _convolution(eye, WIDTHS[0])
    for width in WIDTHS[1:]:  # 24 -> 12 -> 6 -> 3
        x = _convolution(x, width, stride=2)
        x = _convolution(x, width)
    x = layers.GlobalAveragePooling2D()(x)  # (3, 3, 48) -> (48,)
    x = layers.Dropout(0.2)(x)
    return keras.Model(eye, layers.Dense(CLASSES, activation="softmax", name="p")(x), name="eye-state")


def _convolution(x: Any, width: int, *, stride: int = 1) -> Any:
    from keras import layers

    x = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


MODEL = PatchModel(task="eyes", build=build, shape=SHAPE, features=SPEC, schedule=SCHEDULE, sources=SOURCES)


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Augmented and hidden eyes: inputs (n, size, size, 1), labels, people and sampling weights (n,).

    `weights` sum to 1 over the visible eyes and to 1 over the hidden ones.
    """

    inputs: Float32
    labels: NDArray[np.int64]
    people: NDArray[np.str_]
    weights: NDArray[np.float64]

    def without(self, people: Sequence[str]) -> Views:
        """Return the views without those of `people`."""
        keep = ~np.isin(self.people, list(people))
        return Views(self.inputs[keep], self.labels[keep], self.people[keep], self.weights[keep])


def train_eye_state(run: Run) -> Path:
    """Train one model for each fold without its people, and the shipped one; return its card."""
    eyes, faces, validation = read_eyes(run)
    with run.bar("augmenting eyes") as progress:
        views = make_views(eyes, faces, progress=progress)
    for k, held_out in enumerate(folds_of(eyes)):
        _train_one(run, f"eye-state-fold{k}", views.without(held_out), validation, held_out=held_out)
    return _train_one(run, "eye-state", views, validation, held_out=sorted(set(validation.people)))


def read_eyes(run: Run) -> tuple[PatchSet, UInt8, PatchSet]:
    """Return training eyes, faces (n, 48, 48) to crop non-eyes from, and validation eyes."""
    with run.bar("reading cew") as progress:
        cew = load_cew(find_set(run.data, "cew"), progress=progress)
    with run.bar("reading mrl") as progress:
        mrl = load_mrl(find_set(run.data, "mrl"), progress=progress)
    with run.bar("reading fer2013") as progress:
        faces = load_fer2013(find_set(run.data, "fer2013"), "Training", progress=progress)
    for part in (cew, mrl, faces):
        for note in part.notes:
            run.report(note)
    eyes = joined(cew, mrl)
    validation = eyes.of_people(validation_people(eyes.people))
    training = eyes.of_people(validation.people, inside=False)
    for part, what in ((training, "to train on"), (validation, "of the validation people")):
        if missing := {CLOSED, OPEN} - set(part.labels.tolist()):
            words = " and ".join(("closed", "open")[k] for k in sorted(missing))
            raise DataError(f"cew and mrl: no {words} eye {what}; complete the data sets")
    return training, faces.stacked(), validation


def validation_people(people: Sequence[str]) -> list[str]:
    """Return the validation people: three of mrl by name, a tenth of cew by a hash of the name."""
    return sorted(
        {
            person
            for person in people
            if person in MRL_VALIDATION
            or (person.startswith("cew:") and zlib.crc32(person.encode()) % CEW_TENTH == 0)
        }
    )


def folds_of(eyes: PatchSet) -> list[list[str]]:
    """Return the people of each fold, with data sets and states evenly distributed."""
    is_mrl = np.array([person.startswith("mrl:") for person in eyes.people])
    folds = subject_folds(eyes.labels + 2 * is_mrl, eyes.people, seed=SCHEDULE.seed, folds=FOLDS)
    return [sorted({eyes.people[i] for i in fold.test}) for fold in folds]


def as_input(images: Sequence[UInt8], size: int = SPEC.size) -> Float32:
    """Return eyes (h, w) uint8 as input of the network: (n, size, size, 1) float32, levelled."""
    sized = [
        cv2.resize(
            image, (size, size), interpolation=cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
        )
        for image in images
    ]
    values = np.stack(sized)[..., np.newaxis].astype(np.float32) / np.float32(255)
    for crop in values:
        level(crop)
    return values


def make_views(
    eyes: PatchSet, faces: UInt8, *, size: int = SPEC.size, progress: Progress = lambda _done, _total: None
) -> Views:
    """Return `VIEWS` augmented views of every eye, and one hidden view of every second eye."""
    random = np.random.default_rng(SCHEDULE.seed)
    images: list[UInt8] = []
    labels: list[int] = []
    owners: list[int] = []
    for i, image in enumerate(eyes.images):
        images += [augment_eye(image, size, random) for _ in range(VIEWS)]
        labels += [int(eyes.labels[i])] * VIEWS
        owners += [i] * VIEWS
        if i % 2:
            if random.random() < BESIDE:
                images.append(crop_beside_eye(faces[random.integers(len(faces))], size, random))
            else:
                images.append(occlude_eye(image, size, random))
            labels.append(HIDDEN)
            owners.append(i)
        progress(i + 1, len(eyes))
    weights, is_hidden = weights_of(eyes)[owners], np.array(labels) == HIDDEN
    for part in (is_hidden, ~is_hidden):
        weights[part] /= weights[part].sum()
    people = np.array(eyes.people)[owners]
    return Views(as_input(images, size), np.array(labels, np.int64), people, weights)


def weights_of(eyes: PatchSet) -> NDArray[np.float64]:
    """Return the sampling weight of each eye (n,): equal per data set and state, per person by square root.

    One person of mrl has a fifth of its images, all closed.
    """
    cells = list(zip(eyes.people, eyes.labels.tolist(), strict=True))
    count = Counter(cells)
    weight = np.array([count[cell] ** -0.5 for cell in cells])
    parts = np.array([f"{person.partition(':')[0]} {label}" for person, label in cells])
    for part in np.unique(parts):
        weight[parts == part] /= weight[parts == part].sum()
    return weight


def epoch_of(views: Views, number: int, *, seed: int) -> tuple[Float32, Float32]:
    """Return inputs (n, size, size, 1) in random order, mirrored at random, with targets (n, 3)."""
    random = np.random.default_rng([seed, number])
    is_hidden = views.labels == HIDDEN
    drawn = []
    for chosen, most in ((~is_hidden, EYES_PER_EPOCH), (is_hidden, HIDDEN_PER_EPOCH)):
        part = np.flatnonzero(chosen)
        weights = views.weights[part] / views.weights[part].sum()
        drawn.append(random.choice(part, min(most, len(part)), p=weights))
    index = random.permutation(np.concatenate(drawn))
    inputs = views.inputs[index]
    mirrored = random.random(len(index)) < 0.5
    inputs[mirrored] = inputs[mirrored, :, ::-1]
    return inputs, soft_targets(views.labels[index], CLASSES, smoothing=SMOOTHING)


def _train_one(run: Run, name: str, views: Views, validation: PatchSet, *, held_out: Sequence[str]) -> Path:
    """Train one model on the views; return the path of its card."""

    def epoch(number: int) -> tuple[Float32, Float32]:
        return epoch_of(views, number, seed=SCHEDULE.seed)

    def figures(p: Float32) -> dict[str, float]:
        return figures_of(p, validation)

    validated = (as_input(validation.images), validation.labels)
    return MODEL.train(run, name, epoch, validation=validated, figures_of=figures, held_out=held_out)


def figures_of(p: Float32, eyes: PatchSet) -> dict[str, float]:
    """Return the accuracy of closed or open in each data set, and the share classified as hidden."""
    right = (p[:, OPEN] > p[:, CLOSED]) == eyes.labels
    sets = np.array([person.partition(":")[0] for person in eyes.people])
    figures = {str(name): float(np.mean(right[sets == name])) for name in np.unique(sets)}
    return figures | {"called hidden": float(np.mean(p[:, HIDDEN] >= SPEC.hidden))}
