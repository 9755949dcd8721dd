"""Measures shipped TFLite files on held-out people, through the code that runs on the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.card import Card, artifacts_directory, load_card, open_classifier
from edge.faces import CropSpec, FaceCropper, open_face_finder
from edge.values import Float32
from edge.voice import window_input
from edge.weights import DETECTOR, LANDMARKS, find_weights
from models.cards import save_card
from models.datasets import (
    DataError,
    FaceSet,
    Progress,
    find_set,
    load_ckplus48,
    load_fer2013,
    load_jaffe,
    need_every_class,
)
from models.epochs import Bar
from models.metrics import Labels, measure
from models.speech import CORPORA, HELD_OUT, list_clips, load_speech

VARIANTS = ("int8", "float16")
SIX = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")


@dataclass(frozen=True, slots=True, eq=False)
class TestSet:
    """Held-out examples as the model reads them; None where the detector found no face."""

    __test__ = False  # not a class of tests, whatever its name says

    name: str
    inputs: tuple[Float32 | None, ...]
    labels: Labels

    def where(self, name: str, keep: NDArray[np.bool_], labels: Labels) -> TestSet:
        """Return a part of the set under other labels (n,)."""
        index = np.flatnonzero(keep)
        return TestSet(name, tuple(self.inputs[i] for i in index), labels[index])


def list_models(directory: Path | None = None) -> list[Card]:
    """Return the cards in `directory`, or those that came with the package."""
    directory = directory or artifacts_directory()
    return [load_card(path.stem, directory=directory) for path in sorted(directory.glob("*.json"))]


def evaluate_model(
    name: str, data: Path, *, directory: Path | None = None, bar: Bar, write_card: bool = False
) -> dict[str, Any]:
    """Measure every variant of `name` that the card lists on every held-out set found in `data`.

    Returns `{"model", "version", "task", "sets": {set: {variant: figures}}, "notes": [...]}`. A set that
    is missing or damaged is a note; raises `DataError` when none can be used. `write_card` puts the
    figures, without confusions, into the card.
    """
    directory = directory or artifacts_directory()
    card = load_card(name, directory=directory)
    notes: list[str] = []
    tests = list((_face_tests if card.task == "face" else _voice_tests)(card, data, notes, bar))
    if not tests:
        raise DataError(f"{name}: nothing to measure it on in {data}: {'; '.join(notes)}")
    sets: dict[str, dict[str, Any]] = {test.name: {} for test in tests}
    for variant in (variant for variant in VARIANTS if variant in card.files):
        classifier = open_classifier(name, task=card.task, directory=directory, variant=variant)
        for test in tests:
            p = np.zeros((len(test.inputs), len(card.labels)), dtype=np.float32)
            with bar(f"{name} {variant} on {test.name}") as progress:
                for i, features in enumerate(test.inputs):
                    if features is not None:
                        p[i] = classifier.classify(features)
                    progress(i + 1, len(test.inputs))
            sets[test.name][variant] = measure(p, test.labels)
    if write_card:
        metrics = dict(card.metrics)
        for set_name, figures in sets.items():
            metrics[set_name] = {
                variant: {key: value for key, value in figure.items() if key != "confusion"}
                for variant, figure in figures.items()
            }
        save_card(card.model_copy(update={"metrics": metrics}), directory)
    return {"model": name, "version": card.version, "task": card.task, "sets": sets, "notes": notes}


def _face_tests(card: Card, data: Path, notes: list[str], bar: Bar) -> Iterator[TestSet]:
    spec = CropSpec.from_features(card.input.features)
    try:
        with bar("reading fer2013") as progress:
            fer = load_fer2013(find_set(data, "fer2013"), "PrivateTest", progress=progress)
        need_every_class(fer.name, fer.labels)
        notes += fer.notes
        test = _given_crops("fer2013-private", fer, spec)
        yield test
        total = fer.votes.sum(axis=1)
        majority = fer.votes.max(axis=1) > total / 2
        if majority.any():
            yield test.where("fer2013-private-ferplus", majority, fer.votes.argmax(axis=1))
        else:
            notes.append("fer2013: no FER+ votes beside it; its majority is not measured")
    except DataError as error:
        notes.append(str(error))
    try:
        with bar("reading ckplus48") as progress:
            ckplus = load_ckplus48(find_set(data, "ckplus48"), progress=progress)
        need_every_class(ckplus.name, ckplus.labels, SIX)
        notes += ckplus.notes
        yield _given_crops("ckplus48-six", ckplus, spec)
    except DataError as error:
        notes.append(str(error))
    if find_weights(DETECTOR) is None or find_weights(LANDMARKS) is None:
        notes.append("jaffe: not measured without the detector weights; `emotion-models fetch` gets them")
        return
    try:
        with bar("reading jaffe") as progress:
            jaffe = load_jaffe(find_set(data, "jaffe"), progress=progress)
        need_every_class(jaffe.name, jaffe.labels)
        notes += jaffe.notes
        with bar("finding faces in jaffe") as progress:
            test = _detected_crops("jaffe-detected", jaffe, spec, progress)
        missed = sum(crop is None for crop in test.inputs)
        found = f"{len(jaffe) - missed} of {len(jaffe)}"
        notes.append(f"jaffe: a face found in {found} pictures; the rest count as wrong")
        yield test
    except DataError as error:
        notes.append(str(error))


def _given_crops(name: str, faces: FaceSet, spec: CropSpec) -> TestSet:
    """Take pictures that are crops already, resized to the model's side where they differ."""
    size = (spec.size, spec.size)
    scaled = (
        image if image.shape == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        for image in faces.images
    )
    inputs = tuple((image[..., np.newaxis] / np.float32(255)).astype(np.float32) for image in scaled)
    return TestSet(name, inputs, faces.labels)


def _detected_crops(name: str, faces: FaceSet, spec: CropSpec, progress: Progress) -> TestSet:
    """Find the largest face of each whole picture as the daemon does, and crop it as the daemon does."""
    finder, cropper = open_face_finder(), FaceCropper(spec)
    crops: list[Float32 | None] = []
    for done, image in enumerate(faces.images, start=1):
        pixels = np.ascontiguousarray(np.repeat(image[..., np.newaxis], 3, axis=2))  # (h, w) -> (h, w, 3)
        found = finder.find(pixels)
        largest = max(found, key=lambda face: face.box_px[2] * face.box_px[3], default=None)
        crops.append(None if largest is None else cropper.crop(pixels, largest).copy())
        progress(done, len(faces))
    return TestSet(name, tuple(crops), faces.labels)


def _voice_tests(card: Card, data: Path, notes: list[str], bar: Bar) -> Iterator[TestSet]:
    """Give the clips of the speakers that no training has heard, whole clips, a set a corpus."""
    features_of = window_input(card.input.features)
    for corpus in CORPORA:
        try:
            clips, strange = list_clips(data, corpus)
            chosen = [clip for clip in clips if clip.speaker in HELD_OUT]
            if not chosen:
                raise DataError(f"data set {corpus}: no clip of its held-out speakers; complete the data set")
            with bar(f"hearing {corpus}") as progress:
                speech = load_speech(corpus, chosen, notes=strange, progress=progress)
            notes += speech.notes
            inputs = tuple(features_of(window) for window in speech.windows)
            yield TestSet(f"{corpus}-unseen", inputs, speech.labels)
        except DataError as error:
            notes.append(str(error))
