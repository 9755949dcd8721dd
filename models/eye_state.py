"""The network that tells shut eyes from open ones, and both from what hides an eye.

Photographs (cew) and infrared pictures (mrl) are learnt together. The validation people are learnt by no
model: they chose what was chosen. Everybody else is asked once, by a fold model that never saw that person.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.card import Source
from edge.eyestate import EyeSpec
from edge.faces import level
from edge.values import Float32, UInt8
from models.cards import draft_card, file_entry, save_card
from models.datasets import DataError, find_set, load_fer2013
from models.engine import Network, Schedule, train
from models.epochs import Run
from models.eyesets import CLOSED, OPEN, PatchSet, load_cew, load_mrl
from models.eyeviews import beside_eye, hide_eye, spoil_eye
from models.metrics import fit_temperature
from models.splits import subject_folds

HIDDEN = 2
CLASSES = 3
# The corners of an eye lie 0.65 of the side apart in open eyes of cew and of mrl alike (twelve of each measured by eye).
SPEC = EyeSpec(size=32, width=0.65, hidden=0.6)
SHAPE = (SPEC.size, SPEC.size, 1)
WIDTHS = (16, 24, 32, 48)
SCHEDULE = Schedule(epochs=30, batch=64, rate=3e-3, decay=0.02, ema=0.998, seed=7)
EYES_AN_EPOCH = 6000  # half of each set
HIDDEN_AN_EPOCH = 1800
BESIDE = 0.25  # of the hidden ones: parts of a face that are no eye
SMOOTHING = 0.02
FOLDS = 5
# Of mrl's 16 people three who have both states, two of them with glasses now and then; of cew every tenth.
MRL_VALIDATION = ("mrl:s0019", "mrl:s0034", "mrl:s0037")
CEW_TENTH = 10
CALIBRATION = 400

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
    """Return (32, 32, 1) in [0, 1] -> (3,) closed, open, hidden, that sums to 1; 53,000 parameters."""
    import keras
    from keras import layers

    eye = keras.Input(shape, name="eye")
    x = _convolution(eye, WIDTHS[0])
    for width in WIDTHS[1:]:  # 32 -> 16 -> 8 -> 4
        x = _convolution(x, width, stride=2)
        x = _convolution(x, width)
    x = layers.GlobalAveragePooling2D()(x)  # (4, 4, 48) -> (48,)
    x = layers.Dropout(0.2)(x)
    return keras.Model(eye, layers.Dense(CLASSES, activation="softmax", name="p")(x), name="eye-state")


def _convolution(x: Any, width: int, *, stride: int = 1) -> Any:
    from keras import layers

    x = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


@dataclass(frozen=True, slots=True, eq=False)
class Eyes:
    """All eyes of both sets, whom they belong to, and faces to take parts from that are no eye."""

    eyes: PatchSet
    faces: UInt8

    def without(self, people: Sequence[str]) -> Eyes:
        """Return everything but the eyes of `people`."""
        return replace(self, eyes=self.eyes.of_people(people, inside=False))


def train_eye_state(run: Run) -> Path:
    """Train a model a fold without its people, and the shipped one; return its card."""
    eyes, chosen_on = read_eyes(run)
    for k, held_out in enumerate(folds_of(eyes.eyes)):
        _finish(run, f"eye-state-fold{k}", eyes.without(held_out), chosen_on, held_out=held_out)
    return _finish(run, "eye-state", eyes, chosen_on, held_out=sorted(set(chosen_on.people)))


def read_eyes(run: Run) -> tuple[Eyes, PatchSet]:
    """Return what may be learnt from, and the eyes of the validation people."""
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
    chosen_on = eyes.of_people(validation_people(eyes.people))
    training = eyes.of_people(chosen_on.people, inside=False)
    for part, what in ((training, "to learn from"), (chosen_on, "of the validation people")):
        if missing := {CLOSED, OPEN} - set(part.labels.tolist()):
            words = " and ".join(("closed", "open")[k] for k in sorted(missing))
            raise DataError(f"cew and mrl: no {words} eye {what}; complete the data sets")
    return Eyes(training, faces.stacked()), chosen_on


def joined(a: PatchSet, b: PatchSet) -> PatchSet:
    """Return both sets as one."""
    labels = np.concatenate([a.labels, b.labels])
    name = f"{a.name} and {b.name}"
    return PatchSet(name, a.images + b.images, labels, a.people + b.people, a.traits + b.traits)


def validation_people(people: Sequence[str]) -> list[str]:
    """Return whom the choices are made on: three of mrl by name, of cew a tenth by a hash of the name."""
    return sorted(
        {
            person
            for person in people
            if person in MRL_VALIDATION
            or (person.startswith("cew:") and zlib.crc32(person.encode()) % CEW_TENTH == 0)
        }
    )


def folds_of(eyes: PatchSet) -> list[list[str]]:
    """Return the people of each fold, so that sets and states are spread evenly."""
    is_mrl = np.array([person.startswith("mrl:") for person in eyes.people])
    folds = subject_folds(eyes.labels + 2 * is_mrl, eyes.people, seed=SCHEDULE.seed, folds=FOLDS)
    return [sorted({eyes.people[i] for i in fold.test}) for fold in folds]


def as_input(images: Sequence[UInt8], size: int = SPEC.size) -> Float32:
    """Return eyes (h, w) uint8 as the network reads them: (n, size, size, 1) float32, levelled."""
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


def epoch_of(eyes: Eyes, number: int, *, seed: int, size: int = SPEC.size) -> tuple[Float32, Float32]:
    """Return spoilt eyes and hidden ones (n, size, size, 1) in random order, with targets (n, 3)."""
    random = np.random.default_rng([seed, number])
    count = min(EYES_AN_EPOCH, 4 * len(eyes.eyes))
    hidden = round(count * HIDDEN_AN_EPOCH / EYES_AN_EPOCH)
    drawn = random.choice(len(eyes.eyes), count + hidden, p=weights_of(eyes.eyes))
    images = [spoil_eye(eyes.eyes.images[i], size, random) for i in drawn[:count]]
    for i in drawn[count:]:
        if random.random() < BESIDE:
            images.append(beside_eye(eyes.faces[random.integers(len(eyes.faces))], size, random))
        else:
            images.append(hide_eye(eyes.eyes.images[i], size, random))
    labels = np.concatenate([eyes.eyes.labels[drawn[:count]], np.full(hidden, HIDDEN)])
    targets = np.eye(CLASSES, dtype=np.float32)[labels] * (1 - SMOOTHING) + SMOOTHING / CLASSES
    order = random.permutation(len(images))
    return as_input([images[i] for i in order], size), np.asarray(targets[order], np.float32)


def weights_of(eyes: PatchSet) -> Float32:
    """Return how often each eye (n,) is drawn: each set and state alike, a person by the root of its eyes.

    One person of mrl has a fifth of its pictures, all of them shut.
    """
    cells = list(zip(eyes.people, eyes.labels.tolist(), strict=True))
    count = Counter(cells)
    weight = np.array([count[cell] ** -0.5 for cell in cells])
    parts = np.array([f"{person.partition(':')[0]} {label}" for person, label in cells])
    for part in np.unique(parts):
        weight[parts == part] /= weight[parts == part].sum()
    return np.asarray(weight / weight.sum())


def _finish(run: Run, name: str, eyes: Eyes, chosen_on: PatchSet, *, held_out: Sequence[str]) -> Path:
    """Learn one model to the end of its schedule; write it, inputs to calibrate with, and its card."""
    schedule = replace(SCHEDULE, epochs=run.epochs or SCHEDULE.epochs)
    inputs = as_input(chosen_on.images)

    def scores(network: Network) -> dict[str, float]:
        p = network.predict(inputs)
        said = p[:, OPEN] > p[:, CLOSED]
        is_cew = np.array([person.startswith("cew:") for person in chosen_on.people])
        right = said == chosen_on.labels
        found = {"cew": right[is_cew], "mrl": right[~is_cew], "hidden": p[:, HIDDEN] >= SPEC.hidden}
        # The last epoch is kept, whatever it scores: its number is what the score says.
        return {key: float(np.mean(values)) for key, values in found.items() if values.size}

    def examples_of(number: int) -> tuple[Float32, Float32]:
        return epoch_of(eyes, number, seed=schedule.seed)

    model = train(build, examples_of, None, name=name, schedule=schedule, run=run)
    network = Network(model)
    said = ", ".join(f"{key} {100 * value:.1f} %" for key, value in scores(network).items())
    run.report(f"{name}: validation people: {said}")
    np.save(run.out / f"{name}.calibrate.npy", examples_of(schedule.epochs)[0][:CALIBRATION])
    card = draft_card(
        name,
        task="eyes",
        shape=(1, *SHAPE),
        value_range=(0.0, 1.0),
        features=SPEC.to_features(),
        temperature=fit_temperature(network.predict(inputs), chosen_on.labels),
        data=SOURCES,
        held_out=held_out,
    )
    files = {"keras": file_entry(run.out / f"{name}.keras")}
    return save_card(card.model_copy(update={"files": files}), run.out)
