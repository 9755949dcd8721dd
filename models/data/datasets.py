"""Reads the face data sets in every published layout.

A loader uses the files that it can read and reports the others by name and count in `notes`.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import EdgeError
from edge.values import LABELS, Float32, UInt8
from models.run import Progress

FACE_PX = 48
IMAGE_SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tiff", ".tif", ".bmp")
KAGGLE_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FER_USAGES = ("Training", "PublicTest", "PrivateTest")
ONSET_FRAMES = 3
KINDS = ("faces", "eyes", "mouths", "speech", "media")  # optional folders above the data sets
NOT_A_FACE_VOTES = 5  # of the ten FER+ votes
ALIASES = {
    "angry": "anger", "disgusted": "disgust", "fearful": "fear", "happy": "happiness", "sad": "sadness",
    "surprised": "surprise", "ps": "surprise", "pleasant_surprise": "surprise", "calm": "neutral",
}  # fmt: skip


class DataError(EdgeError, ValueError):
    """A data set is missing, empty or lacks a class."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceSet:
    """Images of faces: `images` are (h, w) uint8 grey, `labels` (n,) index `LABELS`.

    `votes` (n, 7) are the FER+ votes for the seven classes, zero without votes. `notes` are sentences
    about files that could not be used.
    """

    name: str
    images: tuple[UInt8, ...]
    labels: NDArray[np.int64]
    subjects: tuple[str, ...]
    votes: Float32
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def stacked(self) -> UInt8:
        """Return all images as (n, 48, 48) uint8, resized if necessary."""
        return np.stack([_resized(image) for image in self.images])

    def majority(self) -> NDArray[np.int64]:
        """Return the class (n,) with more than half of the FER+ votes, -1 without a majority."""
        has_one = self.votes.max(axis=1) > self.votes.sum(axis=1) / 2
        return np.where(has_one, self.votes.argmax(axis=1), -1)

    def where(self, keep: NDArray[np.bool_]) -> FaceSet:
        """Return the examples for which `keep` (n,) is true."""
        index = np.flatnonzero(keep)
        return replace(
            self,
            images=tuple(self.images[i] for i in index),
            labels=self.labels[index],
            subjects=tuple(self.subjects[i] for i in index),
            votes=self.votes[index],
        )


@dataclass(frozen=True, slots=True, eq=False)
class _FaceFile:
    """One entry of a listing, not read yet; `pixels` if the listing itself holds them."""

    path: Path
    label: str
    subject: str = ""
    usage: str = ""
    votes: tuple[int, ...] = (0,) * len(LABELS)
    not_a_face: int = 0
    md5: str = ""
    pixels: str = ""


def find_set(data: Path, name: str) -> Path:
    """Return the directory of data set `name` in `data` or in one of its folders `KINDS`."""
    for candidate in (*(data / kind / name for kind in KINDS), data / name):
        if candidate.is_dir():
            return candidate
    raise DataError(f"data set {name}: not in {data}; expected {data / name}, or below {'/, '.join(KINDS)}/")


def label_of(word: str) -> str | None:
    """Return the label for a data set's own class name, None for other classes such as contempt."""
    word = word.strip().lower()
    word = ALIASES.get(word, word)
    return word if word in LABELS else None


def load_fer2013(directory: Path, usage: str, *, progress: Progress | None = None) -> FaceSet:
    """Read one official split of FER2013: `labels.csv` and its tree, `fer2013.csv`, or train/ and test/.

    Training leaves out exact copies of test images, and images that at least 5 of the 10 FER+ voters
    called "not a face". The test splits stay complete.
    """
    files, notes = _list_fer2013(directory)
    chosen = [file for file in files if file.usage == usage]
    if usage == "Training":
        tests = {_md5(file) for file in files if file.usage != "Training"}
        clean = [file for file in chosen if file.not_a_face < NOT_A_FACE_VOTES]
        faces, chosen = len(clean), [file for file in clean if _md5(file) not in tests]
        notes.append(f"fer2013: {faces - len(chosen)} exact copies of test images left out of Training")
    return _read(f"fer2013 {usage}", chosen, notes=notes, progress=progress)


def load_ckplus48(directory: Path, *, progress: Progress | None = None) -> FaceSet:
    """Read CK+48, six classes: contempt is left out, and CK+48 has no neutral images."""
    files, strange = _list_tree(directory, subject=lambda path: path.name.split("_")[0])
    strange = [path for path in strange if path.parent.name != "contempt"]
    notes = _notes_on_strange("ckplus48", strange, what="are in folders that are not an emotion")
    return _read("ckplus48", files, notes=notes, progress=progress)


def load_ckplus_sequences(directory: Path, *, progress: Progress | None = None) -> FaceSet:
    """Read CK+'s sequences, uncropped images from a neutral face to the peak of an emotion.

    The first frames get the label neutral, the second half the emotion; the frames between are left out.
    """
    sequences: dict[Path, list[Path]] = {}
    for path in _image_paths(directory):
        sequences.setdefault(path.parent, []).append(path)
    files, strange = [], []
    for folder, paths in sequences.items():
        subject, label = folder.name.split("_")[0], label_of(folder.parent.name)
        files += [_FaceFile(path, "neutral", subject=subject) for path in paths[:ONSET_FRAMES]]
        if label:
            files += [
                _FaceFile(path, label, subject=subject)
                for path in paths[max(ONSET_FRAMES, len(paths) // 2) :]
            ]
        else:
            strange.append(folder)
    notes = _notes_on_strange("ckplus_sequences", strange, what="are in folders that are not an emotion")
    return _read("ckplus_sequences", files, notes=notes, progress=progress)


def load_jaffe(directory: Path, *, progress: Progress | None = None) -> FaceSet:
    """Read JAFFE, uncropped images of 256x256; names such as KA.AN1.39.tiff give subject and label."""
    codes = {"AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness", "NE": "neutral",
             "SA": "sadness", "SU": "surprise"}  # fmt: skip
    files, strange = [], []
    for path in _image_paths(directory):
        subject, _, rest = path.name.partition(".")
        if rest[:2] in codes:
            files.append(_FaceFile(path, codes[rest[:2]], subject=subject))
        else:
            strange.append(path)
    notes = _notes_on_strange("jaffe", strange, what="have names without an emotion")
    return _read("jaffe", files, notes=notes, progress=progress)


def need_every_class(name: str, labels: NDArray[np.int64], wanted: Iterable[str] = LABELS) -> None:
    """Raise `DataError` naming the classes of `wanted` that have no example."""
    missing = [label for label in wanted if LABELS.index(label) not in set(labels.tolist())]
    if missing:
        raise DataError(f"{name}: no example of {', '.join(missing)}; complete the data set")


def _list_fer2013(directory: Path) -> tuple[list[_FaceFile], list[str]]:
    """List all splits; the notes name the rows or files that cannot be used."""
    if (directory / "labels.csv").exists():
        return _list_table(directory / "labels.csv", _rows(directory / "labels.csv"), _labelled_file)
    if (directory / "fer2013.csv").exists():
        return _list_kaggle_csv(directory)
    found, strange = _list_tree(directory)
    files = []
    for file in found:
        usage = file.path.name.split("_")[0]
        if usage not in FER_USAGES:
            usage = "Training" if file.path.parent.parent.name == "train" else "PrivateTest"
        files.append(replace(file, usage=usage))
    return files, _notes_on_strange("fer2013", strange, what="are in folders that are not an emotion")


def _list_table(
    path: Path, rows: list[dict[str, str]], file_of: Callable[[Path, dict[str, str]], _FaceFile]
) -> tuple[list[_FaceFile], list[str]]:
    """Make one entry a row; truncated rows and unknown classes are counted in a note."""
    files, bad = [], []
    for line, row in enumerate(rows, start=2):
        try:
            files.append(file_of(path.with_name(f"{path.name}:{line}"), row))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            bad.append(f"line {line}: {type(error).__name__} {error}")
    if not files:
        why = bad[0] if bad else "the file is empty"
        raise DataError(f"{path.name}: no row can be used ({why}); download the file again")
    if bad:
        return files, [f"{path.name}: {len(bad)} of {len(rows)} rows cannot be used (first {bad[0]})"]
    return files, []


def _labelled_file(at: Path, row: dict[str, str]) -> _FaceFile:
    return _FaceFile(
        at.parent / row["path"],
        LABELS[LABELS.index(row["fer_label"])],
        usage=row["usage"],
        votes=tuple(int(row[f"fp_{label}"]) for label in LABELS),
        not_a_face=int(row["fp_NF"]),
        md5=row["pixel_md5"],
    )


def _list_kaggle_csv(directory: Path) -> tuple[list[_FaceFile], list[str]]:
    """Join Kaggle's fer2013.csv (emotion, pixels, Usage) with FER+'s fer2013new.csv row by row."""
    rows = _rows(directory / "fer2013.csv")
    plus = directory / "fer2013new.csv"
    votes = _rows(plus) if plus.exists() else []
    if votes and len(votes) != len(rows):
        raise DataError(
            f"{plus}: {len(votes)} rows, but fer2013.csv has {len(rows)}; download both files again"
        )

    def file_of(at: Path, row: dict[str, str]) -> _FaceFile:
        vote = votes[int(at.name.partition(":")[2]) - 2] if votes else {}
        return _FaceFile(
            at,
            KAGGLE_LABELS[int(row["emotion"])],
            usage=row["Usage"],
            votes=tuple(int(vote.get(label, 0)) for label in LABELS),
            not_a_face=int(vote.get("NF", 0)),
            pixels=row["pixels"],
        )

    return _list_table(directory / "fer2013.csv", rows, file_of)


def _list_tree(
    directory: Path, *, subject: Callable[[Path], str] = lambda _: ""
) -> tuple[list[_FaceFile], list[Path]]:
    """Return the images in folders named after a class, and the images in other folders."""
    files, strange = [], []
    for path in _image_paths(directory):
        if label := label_of(path.parent.name):
            files.append(_FaceFile(path, label, subject=subject(path)))
        else:
            strange.append(path)
    return files, strange


def _notes_on_strange(name: str, strange: Sequence[Path], *, what: str) -> list[str]:
    return [f"{name}: {len(strange)} images {what} (first {strange[0].name})"] if strange else []


def _image_paths(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not a CSV table ({error}); download the file again") from error


def _pixels(file: _FaceFile) -> UInt8 | None:
    try:
        if file.pixels:
            return np.array(file.pixels.split(), dtype=np.uint8).reshape(FACE_PX, FACE_PX)
        # Not imread, which prints a warning for every missing file.
        image = cv2.imdecode(np.fromfile(file.path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except (OSError, ValueError, cv2.error):
        return None
    return None if image is None else image.astype(np.uint8, copy=False)


def _md5(file: _FaceFile) -> str:
    """Return the hash of the original pixels; for lossy copies the table holds it."""
    if file.md5:
        return file.md5
    image = _pixels(file)
    return "" if image is None else hashlib.md5(image.tobytes(), usedforsecurity=False).hexdigest()


def _read(
    name: str, files: Sequence[_FaceFile], *, notes: Iterable[str] = (), progress: Progress | None = None
) -> FaceSet:
    images: list[UInt8] = []
    good: list[_FaceFile] = []
    bad: list[str] = []
    for done, file in enumerate(files, start=1):
        image = _pixels(file)
        if image is None:
            bad.append(file.path.name)
        else:
            images.append(image)
            good.append(file)
        if progress:
            progress(done, len(files))
    if not images:
        raise DataError(f"{name}: no image can be read, {len(bad)} tried; check the directory")
    all_notes = list(notes)
    if bad:
        all_notes.append(f"{name}: {len(bad)} of {len(files)} images cannot be read (first {bad[0]})")
    return FaceSet(
        name=name,
        images=tuple(images),
        labels=np.array([LABELS.index(file.label) for file in good], dtype=np.int64),
        subjects=tuple(file.subject for file in good),
        votes=np.array([file.votes for file in good], dtype=np.float32),
        notes=tuple(all_notes),
    )


def _resized(image: UInt8) -> UInt8:
    if image.shape == (FACE_PX, FACE_PX):
        return image
    return cv2.resize(image, (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def counts(labels: NDArray[np.int64]) -> dict[str, int]:
    """Return the number of examples per label in the order of `LABELS`."""
    found = Counter(labels.tolist())
    return {label: found[index] for index, label in enumerate(LABELS)}
