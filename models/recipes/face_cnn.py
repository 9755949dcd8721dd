"""The shipped face model: a small residual CNN for faces in the wild (FER2013) and posed faces (CK+).

Training has stages. The first ones use FER2013 alone and are saved as `face-cnn-base1` and so on. The next
adds CK+, once with all people (`face-cnn`) and once for each fold without a fifth of them. The last prunes
filters and uses the unpruned network as teacher. JAFFE is never used in training: it tests an unseen data
set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge.face.crop import FER_CROP, FaceCropper
from edge.face.detector import open_face_detector
from edge.inference.card import Source
from edge.values import LABELS, Float32, UInt8
from models.cards import draft_card, save_trained
from models.data.datasets import (
    FaceSet,
    find_set,
    load_ckplus48,
    load_ckplus_sequences,
    load_fer2013,
    need_every_class,
)
from models.data.face_crops import CROP, CROP_SHAPE, as_input, crop_largest
from models.data.splits import subject_folds
from models.metrics import fit_temperature, predicted_classes
from models.recipes.report_baselines import FER_SOURCES
from models.run import Run
from models.training.augmentation import augment_face, degrade_face, mixup, move_face, soft_targets
from models.training.engine import Schedule, train
from models.training.pruning import prune_filters
from models.training.teacher import SOURCE as TEACHER
from models.training.teacher import Weights, fetch_teacher, load_teacher, predict_with_teacher
from models.training.torch_network import Network


@dataclass(frozen=True, slots=True)
class Stage:
    """A training stage: schedule, augmentation and composition of the targets of wild faces.

    `phases` are (first epoch, augmentation strength, mixup share), decreasing: with constant strong
    augmentation the model underfits. `shares` of the target are those of FER label, FER+ votes and teacher.
    """

    schedule: Schedule
    phases: tuple[tuple[int, float, float], ...]
    shares: tuple[float, float, float]


# FER labels are noisier than votes. Trained on to the end they reduce the agreement with the majority, so
# their share decreases from stage to stage.
WILD_STAGES = (
    Stage(
        Schedule(epochs=46, batch=96, rate=2e-3, decay=0.02, seed=1),
        ((0, 1.0, 0.5), (20, 0.6, 0.2), (37, 0.5, 0.0)),
        (0.5, 0.35, 0.15),
    ),
    Stage(
        Schedule(epochs=15, batch=96, rate=1e-3, decay=0.02, seed=2),
        ((0, 0.7, 0.3), (12, 0.5, 0.0)),
        (0.35, 0.5, 0.15),
    ),
    Stage(
        Schedule(epochs=12, batch=96, rate=8e-4, decay=0.02, seed=5),
        ((0, 0.5, 0.2), (8, 0.4, 0.0)),
        (0.1, 0.65, 0.25),
    ),
)
POSED_STAGE = Stage(
    Schedule(epochs=6, batch=96, rate=4e-4, decay=0.02, ema=0.995, seed=2),
    ((0, 0.6, 0.2), (4, 0.5, 0.0)),
    (0.1, 0.65, 0.25),
)
# Prunes a quarter to a third of the filters inside the blocks.
PRUNED_STAGE = Stage(
    Schedule(epochs=10, batch=96, rate=6e-4, decay=0.02, ema=0.998, seed=2),
    ((0, 0.5, 0.0),),
    (0.22, 0.55, 0.23),
)
UNPRUNED_SHARE = 0.5  # of a target is the prediction of the unpruned network for the same augmented face
VIEWS, VIEWS_SEED = (
    4,
    11,
)  # of each wild face with their own teacher predictions: unchanged, then slightly moved
POSED_TEACHER_SHARE = 0.3
SMOOTHING = 0.03
# FER2013 has 18 faces of happiness for one of disgust. A part of this class prior is removed.
PRIOR_REMOVED = 0.1
WILD_AN_EPOCH = 10_000  # FER2013 faces, in addition to the posed ones, which are repeated `POSED_TIMES`
POSED_TIMES = 2
FOLDS = 5

SOURCES = (
    *FER_SOURCES,
    Source(
        name="ckplus48 and ckplus_sequences",
        use="trained on, six classes and neutral onsets; the figure is from folds without the people",
        licence="CK+ research agreement",
    ),
    TEACHER,
)

WIDTHS = (48, 96, 192)
PRUNED_WIDTHS = (32, 72, 144)  # inside the blocks, between their two convolutions


def build(*, inside: Sequence[int]) -> Any:
    """Return (48, 48, 1) in [0, 1] -> (7,) that sums to 1; 1.17 M parameters, 95 M multiplications.

    Residual blocks after He et al. 2016 (arXiv:1512.03385): 48 -> 24 -> 12 -> 6, then global average pooling.
    `inside` is the number of filters between the two convolutions of each block; `WIDTHS` is that after them.
    """
    import keras
    from keras import layers

    face = keras.Input(CROP_SHAPE, name="face")
    x = _convolution(face, 32)
    for width, within in zip(WIDTHS, inside, strict=True):
        x = _block(x, width, inside=within, stride=2)
        x = _block(x, width, inside=within, stride=1)
    x = layers.GlobalAveragePooling2D()(x)  # (6, 6, 192) -> (192,)
    x = layers.Dropout(0.3)(x)
    p = layers.Dense(len(LABELS), activation="softmax", name="p")(x)
    return keras.Model(face, p, name="face-cnn")


def _convolution(x: Any, width: int, *, stride: int = 1, side: int = 3) -> Any:
    from keras import layers

    x = layers.Conv2D(width, side, strides=stride, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def _block(x: Any, width: int, *, inside: int, stride: int) -> Any:
    from keras import layers

    y = _convolution(x, inside, stride=stride)
    y = layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization()(y)
    if stride > 1 or x.shape[-1] != width:
        x = layers.Conv2D(width, 1, strides=stride, use_bias=False)(x)
        x = layers.BatchNormalization()(x)
    return layers.ReLU()(layers.Add()([x, y]))


def augmented_input(images: UInt8, random: np.random.Generator, *, strength: float) -> Float32:
    """Return augmented training crops (n, 48, 48) as input of the network."""
    augmented = np.stack(
        [degrade_face(augment_face(image, random, strength=strength), random) for image in images]
    )
    return as_input(augmented)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Training faces: crops (n, 48, 48) uint8 and soft targets (n, 7)."""

    crops: UInt8
    targets: Float32

    def take(self, index: Any) -> Examples:
        """Return the examples at `index`, which may repeat."""
        return Examples(self.crops[index], self.targets[index])


def train_face_cnn(run: Run) -> Path:
    """Train the base, a model a fold without its ckplus people, and the shipped one; return its card."""
    training = _Training(run)
    for k, held_out in enumerate(posed_folds(training.posed)):
        training.finish(f"face-cnn-fold{k}", held_out=held_out)
    return training.finish("face-cnn", held_out=())


def posed_folds(posed: FaceSet) -> list[list[str]]:
    """Return the people of each fold, with classes evenly distributed over the folds."""
    folds = subject_folds(posed.labels, posed.subjects, seed=WILD_STAGES[0].schedule.seed, folds=FOLDS)
    return [sorted({posed.subjects[i] for i in fold.test}) for fold in folds]


class _Training:
    """The data, the teacher's predictions, and the base model of the shipped model and all folds."""

    def __init__(self, run: Run) -> None:
        self.run = run
        directory = find_set(run.data, "fer2013")
        with run.bar("reading fer2013") as progress:
            wild = load_fer2013(directory, "Training", progress=progress)
            self.validation = load_fer2013(directory, "PublicTest", progress=progress)
        with run.bar("reading ckplus48") as progress:
            posed = load_ckplus48(find_set(run.data, "ckplus48"), progress=progress)
        whole = _cropped(load_ckplus_sequences(find_set(run.data, "ckplus_sequences")))
        for faces in (wild, self.validation, posed, whole):
            for note in faces.notes:
                run.report(note)
        need_every_class(wild.name, wild.labels)
        need_every_class(self.validation.name, self.validation.labels)
        self.posed = _joined(posed, whole)
        self._inputs = as_input(self.validation.stacked())
        fetch_teacher(run.out / "teacher", report=run.report)
        teacher = load_teacher(run.out / "teacher")
        self._wild = wild
        self._crops, self._teacher_p = _views(wild.stacked(), teacher, run)
        crops = self.posed.stacked()
        self._posed = Examples(crops, posed_targets(self.posed, predict_with_teacher(teacher, crops)))
        self._base = self._train_base()

    def finish(self, name: str, *, held_out: Sequence[str]) -> Path:
        """Train from the base model with the posed faces of all but `held_out`; write model and card."""
        kept = np.flatnonzero([subject not in held_out for subject in self.posed.subjects])
        posed = self._posed.take(np.repeat(kept, POSED_TIMES))
        count = min(WILD_AN_EPOCH, len(self._wild))

        def examples_of(targets: Float32, random: np.random.Generator) -> Examples:
            wild = self._drawn(targets, random, count=count)
            return Examples(
                np.concatenate([wild.crops, posed.crops]), np.concatenate([wild.targets, posed.targets])
            )

        targets = self._wild_targets(POSED_STAGE)
        wide = self._train(
            f"{name}-wide", lambda: _loaded(self._base), partial(examples_of, targets), POSED_STAGE
        )
        targets = self._wild_targets(PRUNED_STAGE)
        # Under another name, so that the prior is removed only once when the run is resumed.
        model = self._train(
            f"{name}-slim",
            lambda: prune_filters(wide, build(inside=PRUNED_WIDTHS)),
            partial(examples_of, targets),
            PRUNED_STAGE,
            unpruned=Network(wide),
        )
        _remove_prior(model, targets.mean(axis=(0, 1)))
        model.save(self.run.out / f"{name}.keras")
        p = Network(model).predict(self._inputs)
        card = draft_card(
            name,
            task="face",
            shape=(1, *CROP_SHAPE),
            value_range=(0.0, 1.0),
            features=CROP,
            temperature=fit_temperature(p, self.validation.labels),
            data=SOURCES,
            held_out=held_out,
            embedding=WIDTHS[-1],
        )
        return save_trained(self.run.out, card)

    def _train_base(self) -> Path:
        """Train the FER2013 stages, each starting from the result of the previous one."""
        start: Callable[[], Any] = partial(build, inside=WIDTHS)
        for number, stage in enumerate(WILD_STAGES, start=1):
            targets = self._wild_targets(stage)
            name = f"face-cnn-base{number}"
            self._train(name, start, partial(self._drawn, targets, count=len(self._wild)), stage)
            start = partial(_loaded, self.run.out / f"{name}.keras")
        return self.run.out / f"{name}.keras"

    def _wild_targets(self, stage: Stage) -> Float32:
        """Return the targets (VIEWS, n, 7) of each view of each wild face."""
        return np.stack([wild_targets(self._wild, p, shares=stage.shares) for p in self._teacher_p])

    def _drawn(self, targets: Float32, random: np.random.Generator, *, count: int) -> Examples:
        """Return a random view of each of `count` different wild faces."""
        faces = random.permutation(len(self._wild))[:count]
        views = random.integers(len(self._crops), size=count)
        return Examples(self._crops[views, faces], targets[views, faces])

    def _train(
        self,
        name: str,
        build: Callable[[], Any],
        examples_of: Callable[[np.random.Generator], Examples],
        stage: Stage,
        *,
        unpruned: Network | None = None,
    ) -> Any:
        schedule = replace(stage.schedule, epochs=self.run.epochs or stage.schedule.epochs)

        def epoch_of(number: int) -> tuple[Float32, Float32]:
            random = np.random.default_rng([schedule.seed, number])
            examples = examples_of(random)
            examples = examples.take(random.permutation(len(examples.crops)))
            _, strength, share = max(phase for phase in stage.phases if phase[0] <= number)
            inputs = augmented_input(examples.crops, random, strength=strength)
            inputs, targets = mixup(inputs, examples.targets, random, share=share)
            if unpruned is not None:
                targets = UNPRUNED_SHARE * unpruned.predict(inputs) + (1 - UNPRUNED_SHARE) * targets
            return inputs, targets

        def scores(network: Network) -> dict[str, float]:
            predicted = predicted_classes(network.predict(self._inputs))
            fer = float(np.mean(predicted == self.validation.labels))
            majority = self.validation.majority()
            plus = float(np.mean((predicted == majority)[majority >= 0])) if (majority >= 0).any() else fer
            return {"score": (fer + plus) / 2, "fer": fer, "ferplus": plus}

        return train(build, epoch_of, scores, name=name, schedule=schedule, run=self.run)


def _views(crops: UInt8, teacher: Weights, run: Run) -> tuple[UInt8, Float32]:
    """Return views (VIEWS, n, 48, 48), the first unchanged, and the teacher's predictions (VIEWS, n, 7).

    Distillation works better if teacher and student see the same views (Beyer et al. 2022, arXiv:2106.05237).
    """
    views, teacher_p = [crops], []
    for number in range(1, VIEWS):
        random = np.random.default_rng([VIEWS_SEED, number])
        views.append(np.stack([move_face(crop, random, strength=0.5) for crop in crops]))
    for number, view in enumerate(views, start=1):
        with run.bar(f"teacher predictions: view {number} of {VIEWS}") as progress:
            teacher_p.append(predict_with_teacher(teacher, view, progress=progress))
    return np.stack(views), np.stack(teacher_p)


def _loaded(path: Path) -> Any:
    import keras

    return keras.models.load_model(path, compile=False)


def _remove_prior(model: Any, prior: Float32) -> None:
    """Subtract a part of log `prior` (7,) from the last bias (Menon et al. 2021, arXiv:2007.07314)."""
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias - np.float32(PRIOR_REMOVED) * np.log(prior)])


def wild_targets(faces: FaceSet, teacher: Float32, *, shares: tuple[float, float, float]) -> Float32:
    """Return targets (n, 7) of smoothed FER label, FER+ votes (if any) and the teacher's prediction."""
    label_share, vote_share, teacher_share = shares
    smooth = soft_targets(faces.labels, len(LABELS), smoothing=SMOOTHING)
    votes = faces.votes.sum(axis=1, keepdims=True)
    voted = np.divide(faces.votes, votes, out=smooth.copy(), where=votes > 0)
    return np.asarray(label_share * smooth + vote_share * voted + teacher_share * teacher, dtype=np.float32)


def posed_targets(faces: FaceSet, teacher: Float32) -> Float32:
    """Return targets (n, 7) of the smoothed label and the teacher's prediction."""
    smooth = soft_targets(faces.labels, len(LABELS), smoothing=SMOOTHING)
    mixed = (1 - POSED_TEACHER_SHARE) * smooth + POSED_TEACHER_SHARE * teacher
    return np.asarray(mixed, dtype=np.float32)


def _cropped(faces: FaceSet) -> FaceSet:
    """Crop the largest face of each uncropped image as the device does, without levelling."""
    detector, cropper = open_face_detector(), FaceCropper(FER_CROP)
    crops, found = [], np.zeros(len(faces), dtype=np.bool_)
    for i, image in enumerate(faces.images):
        crop = crop_largest(image, detector, cropper)
        if crop is not None:
            crops.append(crop)
            found[i] = True
    return replace(faces.where(found), images=tuple(crops))


def _joined(a: FaceSet, b: FaceSet) -> FaceSet:
    return FaceSet(
        name=a.name,
        images=a.images + b.images,
        labels=np.concatenate([a.labels, b.labels]),
        subjects=tuple(f"ckplus:{subject}" for subject in a.subjects + b.subjects),
        votes=np.concatenate([a.votes, b.votes]),
    )
