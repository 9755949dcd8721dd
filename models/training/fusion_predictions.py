"""What the shipped models say of people whom they never met, clean and hampered: what fusion is learnt from.

Nobody is in two of the parts. Faces: FER2013's PublicTest is learnt from and chosen on, its PrivateTest
measured; CK+48's people are split, each answered by the fold model that never saw them. Voices: speakers
are split as report-voice has them, each answered by the fold model that never heard them.
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
CLIPS_A_CELL = {"train": 5, "validation": 12, "test": 12}  # of a speaker and a label, at most
BABBLE_DB = 0.0
TALKERS, BABBLE_S = 24, 20  # of what fusion learns from; the babble of the figures is another
SEED = 1998


@dataclass(frozen=True, slots=True, eq=False)
class PredictionSet:
    """What a model says of n examples in every condition: `p` (n, 7) each, `quality` (n,) each.

    A row of zeros is a face that the landmarks lose or a sound without speech: no opinion. `people` (n,)
    are drawn together for an interval.
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
        """Where there is an opinion when nothing hampers it, (n,)."""
        return np.asarray(self.p[CLEAN].max(axis=1) > 0)

    def at(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> PredictionSet:
        """Return the examples that `index` takes: numbers, or (n,) what to keep."""
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
    """Ask the face model about the pictures of `part`; raise `DataError` where they or the weights are not.

    Three sets: FER2013 by the majority of the FER+ votes, by FER2013's own labels, and CK+48. A picture in
    which the landmarks find no face even when it is clean is left out, since the device would not see it.
    """
    detector = open_face_detector()
    if detector.landmarker is None:
        raise DataError("fusion: faces need the landmark weights; `emotion-models fetch` gets them")
    family = load_family("face-cnn", directory)
    fer = _fer2013(data, part, notes)
    answers = _ask_faces(fer, family, np.zeros(len(fer), np.int64), directory, detector.landmarker, bar=bar)
    seen = answers.has_clean_prediction
    majority = fer.majority()
    by_votes = replace(answers, name=f"{answers.name}-ferplus", labels=majority)
    ck = people_of(load_ckplus48(find_set(data, "ckplus48")), part)
    notes.append(f"ckplus48: {len(set(ck.subjects))} people for {part}")
    owner = family.fold_of_people("ckplus", [])
    ck = ck.where(np.array([f"ckplus:{subject}" in owner for subject in ck.subjects]))
    model_numbers = np.array([owner[f"ckplus:{subject}"] for subject in ck.subjects], np.int64)
    posed = _ask_faces(ck, family, model_numbers, directory, detector.landmarker, bar=bar)
    notes.append(
        f"{answers.name}: a face is found in {np.count_nonzero(seen)} of {seen.size} clean pictures, "
        f"in {posed.name} in {np.count_nonzero(posed.has_clean_prediction)} of {len(posed)}; "
        "the others are left out"
    )
    return [
        by_votes.at(seen & (majority >= 0)),
        answers.at(seen),
        posed.at(posed.has_clean_prediction),
    ]


def predict_voices(data: Path, directory: Path, part: Part, *, notes: list[str], bar: Bar) -> PredictionSet:
    """Ask the fold models of the voice about the speakers of `part`, clean and in 0 dB of babble.

    The babble of the figures is the recording in `noise/`; what is learnt from is in one made of clips of
    the same part.
    """
    family = load_family("voice-lstm", directory)
    asked = [
        _open(card.name, "voice", directory, fold=number > 0) for number, card in enumerate(family.cards)
    ]
    readers = [window_input(card.input.features) for card in family.cards]
    clips, owner = _clips(data, family, part, notes)
    babble = find_babble(data, []) if part == "test" else None
    if part == "test" and babble is None:
        raise DataError("data set noise: no babble; complete it")
    noise = _talk(clips) if babble is None else babble
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
            for kind, sound in ((CLEAN, samples), (BABBLE, noisy)):
                window = clip_window(sound)
                if window.has_speech:
                    fold = owner[clip.speaker]
                    p[kind][i] = asked[fold].classify(readers[fold](window))
                    quality[kind][i] = window.quality
            progress(i + 1, count)
    labels = np.array([LABELS.index(clip.label) for clip in clips], np.int64)
    people = np.array([clip.speaker for clip in clips])
    answers = PredictionSet("voices", labels, people, p, quality)
    return answers.at(answers.has_clean_prediction)


def median_quality(answers: PredictionSet) -> dict[str, dict[str, float]]:
    """Return of each kind how many opinions there are (share), and the median of their quality."""
    return {
        kind: {
            "share": round(float(np.mean(p.max(axis=1) > 0)), 4),
            "quality": round(float(np.median(answers.quality[kind][p.max(axis=1) > 0])), 4),
        }
        for kind, p in answers.p.items()
    }


def people_of(faces: FaceSet, part: Part) -> FaceSet:
    """Return every second person for the test, and of the others every second one for each other part."""
    names = sorted(set(faces.subjects))
    chosen = {"test": names[::2], "train": names[1::4], "validation": names[3::4]}[part]
    return faces.where(np.isin(np.array(faces.subjects), chosen))


def cover_mouth(image: UInt8) -> UInt8:
    """Return a face (h, w) with its lower two fifths under one grey, as a mask or a scarf covers it."""
    covered = image.copy()
    covered[round(0.6 * len(image)) :] = int(np.median(image))
    return covered


def cover_eyes(image: UInt8) -> UInt8:
    """Return a face (h, w) with a dark bar over its eyes, as sunglasses or a cap's shadow cover them."""
    covered = image.copy()
    covered[round(0.27 * len(image)) : round(0.5 * len(image))] = 30
    return covered


def turn_away(image: UInt8) -> UInt8:
    """Return a face (h, w) far away and narrow: all that a still can tell of a head that turns."""
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


def _ask_faces(
    faces: FaceSet,
    family: Family,
    model_numbers: Labels,
    directory: Path,
    landmarker: Landmarker,
    *,
    bar: Bar,
) -> PredictionSet:
    """Find each face as the tracker does, crop and rate it as the device does, and ask its model."""
    asked = {
        k: _open(family.cards[k].name, "face", directory, fold=k > 0)
        for k in np.unique(model_numbers).tolist()
    }
    croppers = {k: FaceCropper(family.cards[k].spec(CropSpec)) for k in asked}
    p = {kind: np.zeros((len(faces), len(LABELS)), np.float32) for kind in FACE_CONDITIONS}
    quality = {kind: np.zeros(len(faces), np.float32) for kind in p}
    with bar(f"{faces.name}, hampered") as progress:
        for i, image in enumerate(faces.images):
            k = int(model_numbers[i])
            for kind, change in FACE_CONDITIONS.items():
                pixels, near = _picture(change(image))
                face = landmarker.locate(pixels, near)
                if face is not None:
                    p[kind][i] = asked[k].classify(croppers[k].crop(pixels, face))
                    quality[kind][i] = croppers[k].quality(face)
            progress(i + 1, len(faces))
    people = np.array([subject or str(i) for i, subject in enumerate(faces.subjects)])
    return PredictionSet(faces.name, faces.labels, people, p, quality)


def _picture(image: UInt8) -> tuple[UInt8, Face]:
    """Return a crop as a colour picture with its border drawn out, and the box where its face was before."""
    side = len(image)
    wide = cv2.copyMakeBorder(image, *(side // 4,) * 4, cv2.BORDER_REPLICATE)
    pixels = np.ascontiguousarray(np.repeat(wide[..., np.newaxis], 3, axis=2))  # (h, w) -> (h, w, 3)
    start = side // 4 + 0.1 * side
    return pixels.astype(np.uint8), Face((start, start, 0.8 * side, 0.8 * side), 1.0)


def _fer2013(data: Path, part: Part, notes: list[str]) -> FaceSet:
    """Return half of PrivateTest, or two thirds or one third of PublicTest without copies of later ones.

    Half, because each picture is looked at in four conditions and one look takes landmarks and a model.
    """
    directory = find_set(data, "fer2013")
    private = load_fer2013(directory, "PrivateTest")
    if part == "test":
        return private.where(np.arange(len(private)) % 2 == 0)
    public = load_fer2013(directory, "PublicTest")
    measured = {image.tobytes() for image in private.images}
    chosen_on = {image.tobytes() for image in public.images[::3]}
    keep = np.arange(len(public)) % 3 == 0 if part == "validation" else np.arange(len(public)) % 3 > 0
    taken = measured if part == "validation" else measured | chosen_on
    keep &= np.array([image.tobytes() not in taken for image in public.images])
    notes.append(f"fer2013 PublicTest: {np.count_nonzero(keep)} pictures for {part}")
    return public.where(keep)


def _clips(data: Path, family: Family, part: Part, notes: list[str]) -> tuple[list[Clip], dict[str, int]]:
    """Return some clips a speaker and label of `part`, and the fold model to ask of each."""
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
        for i in sorted(random.permutation(len(clips))[: CLIPS_A_CELL[part]])
    ]
    if not chosen:
        raise DataError(f"speech: no clip of a speaker for {part} whom a fold model holds out")
    speakers = sorted({clip.speaker for clip in chosen})
    notes.append(f"voices for {part}: {len(chosen)} clips of {', '.join(speakers)}")
    return chosen, owner


def _part_of(speaker: str) -> Part:
    if speaker in HELD_OUT:
        return "test"
    return "validation" if speaker in VALIDATION else "train"


def _talk(clips: Sequence[Clip]) -> Float32:
    """Return `BABBLE_S` of `TALKERS` clips at once, equally loud: as many leave no pauses."""
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
