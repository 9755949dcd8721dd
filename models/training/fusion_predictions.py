"""Predictions of the shipped models for held-out people, clean and degraded: training data for fusion.

No person is in two parts. Faces: FER2013's PublicTest is for training and validation, its PrivateTest for
testing; the people of CK+48 are split, and a person is predicted by the fold model that holds it out.
Voices: speakers are split as for report-voice, and predicted in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.face.crop import FaceCropper
from edge.face.detector import open_face_detector
from edge.face.mesh import Landmarker
from edge.inference.card import Task
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.inference.features import CropSpec
from edge.sources.media_files import read_audio
from edge.values import LABELS, SAMPLE_RATE_HZ, Face, Float32, UInt8
from edge.voice.model_input import window_input
from edge.voice.windows import clip_window
from models.data.corruption import CLEAN, add_noise, find_babble
from models.data.datasets import DataError, FaceSet, find_set, load_ckplus48, load_fer2013
from models.data.speech import CORPORA, HELD_OUT, VALIDATION, Clip, list_clips
from models.family import Family, load_family
from models.metrics import Labels
from models.run import Bar

Part = Literal["train", "validation", "test"]
COVERED_MOUTH, COVERED_EYES, TURNED, BABBLE = "mouth covered", "eyes covered", "turned away", "babble"
CLIPS_PER_CELL = {"train": 5, "validation": 12, "test": 12}  # maximum per speaker and label
BABBLE_DB = 0.0
TALKERS, BABBLE_S = 24, 20  # of the training babble; testing uses the recording in noise/
SEED = 1998


@dataclass(frozen=True, slots=True, eq=False)
class PredictionSet:
    """Predictions of a model for n examples in each condition: `p` (n, 7) and `quality` (n,).

    A row of zeros is no prediction: the landmarks found no face, or the clip has no speech. Bootstrap
    intervals resample `people` (n,).
    """

    name: str
    labels: Labels
    people: NDArray[np.str_]
    p: dict[str, Float32]
    quality: dict[str, Float32]

    def __len__(self) -> int:
        return int(self.labels.size)

    @property
    def has_clean_prediction(self) -> NDArray[np.bool_]:
        """Whether there is a prediction in the clean condition, (n,)."""
        return np.asarray(self.p[CLEAN].max(axis=1) > 0)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> PredictionSet:
        """Return the examples at `index`: numbers, or a mask (n,)."""
        return replace(
            self,
            labels=self.labels[index],
            people=self.people[index],
            p={kind: p[index] for kind, p in self.p.items()},
            quality={kind: quality[index] for kind, quality in self.quality.items()},
        )


def predict_faces(
    data: Path, directory: Path, part: Part, *, notes: list[str], bar: Bar
) -> list[PredictionSet]:
    """Predict the faces of `part`; raise `DataError` if data sets or detector weights are missing.

    Returns three sets: FER2013 labelled by the majority of the FER+ votes, FER2013 with its own labels,
    CK+48. Images without landmarks in the clean condition are left out, as the device would not detect them.
    """
    detector = open_face_detector()
    if detector.landmarker is None:
        raise DataError("fusion: the landmark weights are missing; run `emotion-models fetch`")
    family = load_family("face-cnn", directory)
    fer = _fer2013(data, part, notes)
    wild = _predict_faces(fer, family, np.zeros(len(fer), np.int64), directory, detector.landmarker, bar=bar)
    found = wild.has_clean_prediction
    majority = fer.majority()
    by_votes = replace(wild, name=f"{wild.name}-ferplus", labels=majority)
    ck = people_of(load_ckplus48(find_set(data, "ckplus48")), part)
    notes.append(f"ckplus48: {len(set(ck.subjects))} people for {part}")
    owner = family.fold_of_people("ckplus", [])
    ck = ck.where(np.array([f"ckplus:{subject}" in owner for subject in ck.subjects]))
    model_numbers = np.array([owner[f"ckplus:{subject}"] for subject in ck.subjects], np.int64)
    posed = _predict_faces(ck, family, model_numbers, directory, detector.landmarker, bar=bar)
    notes.append(
        f"{wild.name}: a face is found in {np.count_nonzero(found)} of {found.size} clean images, "
        f"in {posed.name} in {np.count_nonzero(posed.has_clean_prediction)} of {len(posed)}; "
        "the others are left out"
    )
    return [
        by_votes.select(found & (majority >= 0)),
        wild.select(found),
        posed.select(posed.has_clean_prediction),
    ]


def predict_voices(data: Path, directory: Path, part: Part, *, notes: list[str], bar: Bar) -> PredictionSet:
    """Predict the speakers of `part` with the fold models, clean and in babble at 0 dB.

    Testing uses the babble recording in `noise/`; other parts use babble mixed from clips of the same part.
    """
    family = load_family("voice-lstm", directory)
    classifiers = [
        _open(card.name, "voice", directory, fold=number > 0) for number, card in enumerate(family.cards)
    ]
    features = [window_input(card.input.features) for card in family.cards]
    clips, owner = _clips(data, family, part, notes)
    babble = find_babble(data, []) if part == "test" else None
    if part == "test" and babble is None:
        raise DataError("data set noise: no babble recording; complete the data set")
    noise = _mix_babble(clips) if babble is None else babble
    count = len(clips)
    p = {kind: np.zeros((count, len(LABELS)), np.float32) for kind in (CLEAN, BABBLE)}
    quality = {kind: np.zeros(count, np.float32) for kind in p}
    with bar(f"voices, {part}") as progress:
        for i, clip in enumerate(clips):
            try:
                samples = read_audio(clip.path)
            except MediaError:
                continue
            noisy = add_noise(samples, noise, i, snr_db=BABBLE_DB)
            for kind, audio in ((CLEAN, samples), (BABBLE, noisy)):
                window = clip_window(audio)
                if window.has_speech:
                    fold = owner[clip.speaker]
                    p[kind][i] = classifiers[fold].classify(features[fold](window))
                    quality[kind][i] = window.quality
            progress(i + 1, count)
    labels = np.array([LABELS.index(clip.label) for clip in clips], np.int64)
    people = np.array([clip.speaker for clip in clips])
    predictions = PredictionSet("voices", labels, people, p, quality)
    return predictions.select(predictions.has_clean_prediction)


def median_quality(predictions: PredictionSet) -> dict[str, dict[str, float]]:
    """Return for each condition the share of examples with a prediction and their median quality."""
    return {
        kind: {
            "share": round(float(np.mean(p.max(axis=1) > 0)), 4),
            "quality": round(float(np.median(predictions.quality[kind][p.max(axis=1) > 0])), 4),
        }
        for kind, p in predictions.p.items()
    }


def people_of(faces: FaceSet, part: Part) -> FaceSet:
    """Return every second person for the test; the others alternate between training and validation."""
    names = sorted(set(faces.subjects))
    chosen = {"test": names[::2], "train": names[1::4], "validation": names[3::4]}[part]
    return faces.where(np.isin(np.array(faces.subjects), chosen))


def cover_mouth(image: UInt8) -> UInt8:
    """Return a face (h, w) with its lower 40 % in uniform grey, as covered by a mask or a scarf."""
    covered = image.copy()
    covered[round(0.6 * len(image)) :] = int(np.median(image))
    return covered


def cover_eyes(image: UInt8) -> UInt8:
    """Return a face (h, w) with a dark bar over its eyes, as with sunglasses."""
    covered = image.copy()
    covered[round(0.27 * len(image)) : round(0.5 * len(image))] = 30
    return covered


def turn_away(image: UInt8) -> UInt8:
    """Return a face (h, w) small and narrow, to simulate a turned head from a still image."""
    side = 20  # pixels
    small = cv2.resize(image, (round(0.65 * side), side), interpolation=cv2.INTER_AREA)
    left = (side - small.shape[1]) // 2
    padded = cv2.copyMakeBorder(small, 0, 0, left, side - small.shape[1] - left, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


FACE_CONDITIONS: dict[str, Callable[[UInt8], UInt8]] = {
    CLEAN: lambda image: image,
    COVERED_MOUTH: cover_mouth,
    COVERED_EYES: cover_eyes,
    TURNED: turn_away,
}


def _predict_faces(
    faces: FaceSet,
    family: Family,
    model_numbers: Labels,
    directory: Path,
    landmarker: Landmarker,
    *,
    bar: Bar,
) -> PredictionSet:
    """Locate each face as the tracker does, crop and rate it as the device does, and predict it."""
    classifiers = {
        k: _open(family.cards[k].name, "face", directory, fold=k > 0)
        for k in np.unique(model_numbers).tolist()
    }
    croppers = {k: FaceCropper(family.cards[k].spec(CropSpec)) for k in classifiers}
    p = {kind: np.zeros((len(faces), len(LABELS)), np.float32) for kind in FACE_CONDITIONS}
    quality = {kind: np.zeros(len(faces), np.float32) for kind in p}
    with bar(f"{faces.name}, degraded") as progress:
        for i, image in enumerate(faces.images):
            k = int(model_numbers[i])
            for kind, change in FACE_CONDITIONS.items():
                pixels, near = _picture(change(image))
                face = landmarker.locate(pixels, near)
                if face is not None:
                    p[kind][i] = classifiers[k].classify(croppers[k].crop(pixels, face))
                    quality[kind][i] = croppers[k].quality(face)
            progress(i + 1, len(faces))
    people = np.array([subject or str(i) for i, subject in enumerate(faces.subjects)])
    return PredictionSet(faces.name, faces.labels, people, p, quality)


def _picture(image: UInt8) -> tuple[UInt8, Face]:
    """Return a crop as RGB image with its border extended, and the box of the face in it."""
    side = len(image)
    wide = cv2.copyMakeBorder(image, *(side // 4,) * 4, cv2.BORDER_REPLICATE)
    pixels = np.ascontiguousarray(np.repeat(wide[..., np.newaxis], 3, axis=2))  # (h, w) -> (h, w, 3)
    start = side // 4 + 0.1 * side
    return pixels.astype(np.uint8), Face((start, start, 0.8 * side, 0.8 * side), 1.0)


def _fer2013(data: Path, part: Part, notes: list[str]) -> FaceSet:
    """Return half of PrivateTest (test), or two thirds (train) or one third (validation) of PublicTest.

    Copies of images of the other parts are left out. Half of PrivateTest limits the time: every image needs
    landmarks and a prediction in four conditions.
    """
    directory = find_set(data, "fer2013")
    private = load_fer2013(directory, "PrivateTest")
    if part == "test":
        return private.where(np.arange(len(private)) % 2 == 0)
    public = load_fer2013(directory, "PublicTest")
    test = {image.tobytes() for image in private.images}
    validation = {image.tobytes() for image in public.images[::3]}
    keep = np.arange(len(public)) % 3 == 0 if part == "validation" else np.arange(len(public)) % 3 > 0
    used = test if part == "validation" else test | validation
    keep &= np.array([image.tobytes() not in used for image in public.images])
    notes.append(f"fer2013 PublicTest: {np.count_nonzero(keep)} images for {part}")
    return public.where(keep)


def _clips(data: Path, family: Family, part: Part, notes: list[str]) -> tuple[list[Clip], dict[str, int]]:
    """Return some clips per speaker and label of `part`, and for each speaker the number of its model."""
    random = np.random.default_rng(SEED)
    owner: dict[str, int] = {}
    cells: dict[tuple[str, str], list[Clip]] = {}
    for corpus in CORPORA:
        clips, _ = list_clips(data, corpus)
        owner |= family.fold_of_people(corpus, [])
        for clip in clips:
            if clip.speaker in owner and _part_of(clip.speaker) == part:
                cells.setdefault((clip.speaker, clip.label), []).append(clip)
    chosen = [
        clips[i]
        for clips in cells.values()
        for i in sorted(random.permutation(len(clips))[: CLIPS_PER_CELL[part]])
    ]
    if not chosen:
        raise DataError(
            f"speech: no clip for {part} of a speaker that a fold model holds out; complete the data sets"
        )
    speakers = sorted({clip.speaker for clip in chosen})
    notes.append(f"voices for {part}: {len(chosen)} clips of {', '.join(speakers)}")
    return chosen, owner


def _part_of(speaker: str) -> Part:
    if speaker in HELD_OUT:
        return "test"
    return "validation" if speaker in VALIDATION else "train"


def _mix_babble(clips: Sequence[Clip]) -> Float32:
    """Return `BABBLE_S` of `TALKERS` simultaneous, equally loud clips: with that many there are no pauses."""
    random = np.random.default_rng(SEED)
    total = np.zeros(BABBLE_S * SAMPLE_RATE_HZ, np.float32)
    for j in random.permutation(len(clips))[:TALKERS]:
        try:
            voice = read_audio(clips[j].path)
        except MediaError:
            continue
        level = float(np.sqrt(np.mean(np.square(voice)))) or 1.0
        total += np.resize(np.roll(voice, -int(random.integers(voice.size))), total.size) / level
    return total


def _open(name: str, task: Task, directory: Path, *, fold: bool) -> TfliteClassifier:
    return open_classifier(name, task=task, directory=directory / "folds" if fold else directory)
