"""Held-out faces: FER2013's PrivateTest, CK+48, and JAFFE through the detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.face.crop import FaceCropper, level
from edge.face.detector import open_face_detector
from edge.inference.features import CropSpec
from edge.inference.weights import DETECTOR, LANDMARKS, find_weights
from edge.values import Face, Float32, UInt8
from models.data.corruption import CLEAN, JITTER, bad_webcam, jitter_crop, jitter_spec
from models.data.datasets import (
    DataError,
    FaceSet,
    find_set,
    load_ckplus48,
    load_fer2013,
    load_jaffe,
    need_every_class,
)
from models.data.face_crops import grey_to_rgb, largest_face
from models.evaluation.held_out_sets import HeldOutSet, View, fold_of_each, skip_unreadable
from models.family import Family
from models.metrics import Labels
from models.run import Bar

SIX = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
BAD_WEBCAM = "bad-webcam"


def face_sets(family: Family, data: Path, notes: list[str], bar: Bar) -> Iterator[HeldOutSet]:
    """Yield the sets in `data` with people that `family` was not trained on; the rest are notes."""
    for sets in (_fer2013, _ckplus48, _jaffe):
        yield from skip_unreadable(notes, sets(family, data, notes, bar))


def _fer2013(family: Family, data: Path, notes: list[str], bar: Bar) -> Iterator[HeldOutSet]:
    with bar("reading fer2013") as progress:
        fer = load_fer2013(find_set(data, "fer2013"), "PrivateTest", progress=progress)
    need_every_class(fer.name, fer.labels)
    notes += fer.notes
    majority = fer.majority()
    relabelled = {"fer2013-private-ferplus": majority}
    if not (majority >= 0).any():
        notes.append("fer2013: no FER+ votes; the majority is not measured")
        relabelled = {}
    crops = _Crops(family, fer, np.zeros(len(fer), dtype=np.int64))
    views = crops.views() | {BAD_WEBCAM: crops.view(bad_webcam)}
    yield HeldOutSet("fer2013-private", fer.labels, ("",) * len(fer), crops.model_numbers, views, relabelled)


def _ckplus48(family: Family, data: Path, notes: list[str], bar: Bar) -> Iterator[HeldOutSet]:
    knows_all = family.was_trained_on("ckplus", "ck+") and not family.held_out_of("ckplus")
    if knows_all and not family.fold_of_people("ckplus", []):
        raise DataError(
            f"ckplus48: {family.card.name} was trained on it and has no fold models; not measured"
        )
    with bar("reading ckplus48") as progress:
        faces = load_ckplus48(find_set(data, "ckplus48"), progress=progress)
    notes += faces.notes
    people = [f"ckplus:{subject}" for subject in faces.subjects]
    if knows_all:
        model_numbers = fold_of_each(family, "ckplus", people, faces.labels, notes=notes)
    else:
        model_numbers = _own(family, "ckplus", people, trained_on=family.was_trained_on("ckplus", "ck+"))
    chosen = faces.where(model_numbers >= 0)
    need_every_class("ckplus48", chosen.labels, SIX)
    crops = _Crops(family, chosen, model_numbers[model_numbers >= 0])
    names = tuple(f"ckplus:{subject}" for subject in chosen.subjects)
    yield HeldOutSet("ckplus48-six", chosen.labels, names, crops.model_numbers, crops.views(), {})


def _jaffe(family: Family, data: Path, notes: list[str], bar: Bar) -> Iterator[HeldOutSet]:
    if family.was_trained_on("jaffe") and not family.held_out_of("jaffe"):
        raise DataError(f"jaffe: {family.card.name} was trained on it; not measured")
    if find_weights(DETECTOR) is None or find_weights(LANDMARKS) is None:
        raise DataError("jaffe: not measured without the detector weights; run `emotion-models fetch`")
    with bar("reading jaffe") as progress:
        jaffe = load_jaffe(find_set(data, "jaffe"), progress=progress)
    notes += jaffe.notes
    people = [f"jaffe:{subject}" for subject in jaffe.subjects]
    jaffe = jaffe.where(_own(family, "jaffe", people, trained_on=family.was_trained_on("jaffe")) == 0)
    need_every_class(jaffe.name, jaffe.labels)
    detector = open_face_detector()
    pictures: list[UInt8] = []
    largest: list[Face | None] = []
    with bar("finding faces in jaffe") as progress:
        for done, image in enumerate(jaffe.images, start=1):
            pixels = grey_to_rgb(image)
            pictures.append(pixels)
            largest.append(largest_face(detector.detect(pixels)))
            progress(done, len(jaffe))
    located = sum(face is not None for face in largest)
    notes.append(f"jaffe: a face found in {located} of {len(jaffe)} images; the rest count as wrong")
    spec = family.card.spec(CropSpec)

    def view(spec: CropSpec) -> View:
        cropper = FaceCropper(spec)

        def crop(i: int) -> Float32 | None:
            face = largest[i]
            return None if face is None else cropper.crop(pictures[i], face)

        return crop

    views = {CLEAN: view(spec)} | {kind: view(jitter_spec(spec, kind)) for kind in JITTER}
    names = tuple(f"jaffe:{subject}" for subject in jaffe.subjects)
    yield HeldOutSet("jaffe-detected", jaffe.labels, names, np.zeros(len(jaffe), dtype=np.int64), views, {})


def _own(family: Family, corpus: str, people: Sequence[str], *, trained_on: bool) -> Labels:
    """Return 0 for examples (n,) of people that the model itself was not trained on, -1 for the others."""
    held_out = family.held_out_of(corpus)
    return np.array([0 if person in held_out or not trained_on else -1 for person in people], dtype=np.int64)


class _Crops:
    """Images that are already crops, resized to the input size of the model."""

    def __init__(self, family: Family, faces: FaceSet, model_numbers: Labels) -> None:
        self.model_numbers = model_numbers
        self._images = faces.images
        self._specs = [card.spec(CropSpec) for card in family.cards]

    def view(self, change: Callable[[UInt8, int], UInt8] | None = None) -> View:
        """Return a view of the images, changed by `change` if given."""

        def crop(i: int) -> Float32:
            spec = self._specs[int(self.model_numbers[i])]
            side = spec.size
            image: NDArray[np.uint8] = self._images[i]
            if change is not None:
                image = change(image, i)
            if image.shape != (side, side):
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
            values = (image[..., np.newaxis] / np.float32(255)).astype(np.float32)  # (h, w) -> (h, w, 1)
            if spec.levelled:
                level(values)
            return values

        return crop

    def views(self) -> dict[str, View]:
        """Return the clean view and one for each box error."""
        jittered = {kind: self.view(partial(_jittered, kind)) for kind in JITTER}
        return {CLEAN: self.view()} | jittered


def _jittered(kind: str, image: UInt8, _index: int) -> UInt8:
    return jitter_crop(image, kind)
