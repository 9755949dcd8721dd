"""Reads the image sets as the project report used them: uncropped, in colour, with contempt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.values import LABELS, UInt8
from models.data.datasets import ALIASES, IMAGE_SUFFIXES, DataError, find_set
from models.run import Progress

CKPLUS_LABELS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
JAFFE_CODES = {
    "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness", "NE": "neutral", "SA": "sadness",
    "SU": "surprise",
}  # fmt: skip
LICENCES = {
    "jaffe": "JAFFE, non-commercial research",
    "ckplus48": "CK+ research agreement",
    "cfe": "not public; the terms of its owners",
}
ROTATE_DEG = 20.0
ZOOM = 0.2
SHIFT = 0.1


@dataclass(frozen=True, slots=True)
class Picture:
    """One file with its label and the person in it (`jaffe:KA`: unique over all sets)."""

    path: Path
    source: str
    subject: str
    label: str


def list_pictures(data: Path, source: str, labels: Sequence[str] = LABELS) -> tuple[list[Picture], list[str]]:
    """Return the images of `labels` in jaffe, ckplus48 or cfe below `data`, and notes about other files."""
    directory = find_set(data, source)
    parse = _PARSERS[source]
    pictures, strange, others = [], [], []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        subject, word = parse(path)
        label = ALIASES.get(word, word)
        if not subject or label not in (*LABELS, "contempt"):
            strange.append(path.relative_to(directory))
        elif label in labels:
            pictures.append(Picture(path, source, f"{source}:{subject}", label))
        else:
            others.append(label)
    if not pictures:
        raise DataError(
            f"data set {source}: no image with a name of its pattern ({_PATTERNS[source]}) in {directory}; "
            "check the directory"
        )
    notes = []
    if strange:
        first = f"first {strange[0]}, expected {_PATTERNS[source]}"
        notes.append(f"{source}: {len(strange)} files with names without a person or emotion ({first})")
    for label in dict.fromkeys(others):
        notes.append(
            f"{source}: {others.count(label)} images of {label} left out, which is not one of the classes"
        )
    return pictures, notes


def read_pictures(
    pictures: Sequence[Picture], *, side_px: int, colour: bool, progress: Progress | None = None
) -> tuple[list[Picture], UInt8, list[str]]:
    """Return the readable pictures, their resized pixels (n, side, side, 3 or 1) uint8, and notes.

    Colour is RGB. The images are not cropped to the face, as in the report.
    """
    good, pixels, bad = [], [], []
    for done, picture in enumerate(pictures, start=1):
        image = _decoded(picture.path, colour=colour)
        if image is None:
            bad.append(picture)
        else:
            good.append(picture)
            pixels.append(_resized(image, side_px))
        if progress:
            progress(done, len(pictures))
    if not good:
        sources = " + ".join(dict.fromkeys(picture.source for picture in pictures))
        raise DataError(f"{sources}: no image can be read, {len(bad)} tried; check the directory")
    notes = [
        f"{source}: {len(lost)} of {sum(picture.source == source for picture in pictures)} images "
        f"cannot be read (first {lost[0].path.name})"
        for source in dict.fromkeys(picture.source for picture in bad)
        if (lost := [picture for picture in bad if picture.source == source])
    ]
    return good, np.stack(pixels), notes


def move_pictures(images: UInt8, random: np.random.Generator) -> UInt8:
    """Return `images` (n, h, w, c) rotated, zoomed, shifted and flipped along both axes at random.

    The report lists these augmentations without ranges; the ranges are chosen here.
    """
    return np.stack([_moved(image, random) for image in images])


def _moved(image: UInt8, random: np.random.Generator) -> UInt8:
    height, width, channels = image.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    degrees, zoom = random.uniform(-ROTATE_DEG, ROTATE_DEG), random.uniform(1 - ZOOM, 1 + ZOOM)
    matrix = cv2.getRotationMatrix2D(centre, degrees, zoom)
    matrix[:, 2] = matrix[:, 2] + random.uniform(-SHIFT, SHIFT, 2) * (width, height)
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    moved = moved.reshape(height, width, channels)  # OpenCV drops a single channel
    across, down = random.random(2) < 0.5
    return moved[:: -1 if down else 1, :: -1 if across else 1].astype(np.uint8, copy=False)


def _decoded(path: Path, *, colour: bool) -> UInt8 | None:
    """Return (h, w, 3 or 1), None if unreadable. Not imread, which prints a warning for such files."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    except (OSError, cv2.error):
        return None
    if image is None:
        return None
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if colour else image[..., np.newaxis]
    return image.astype(np.uint8, copy=False)


def _resized(image: UInt8, side_px: int) -> UInt8:
    """Resize (h, w, c) to (side, side, c)."""
    if image.shape[:2] == (side_px, side_px):
        return image
    shrinks = min(image.shape[:2]) >= side_px
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(image, (side_px, side_px), interpolation=method)
    return resized.reshape(side_px, side_px, image.shape[2]).astype(np.uint8, copy=False)


def _folder(path: Path) -> str:
    return path.parent.name.strip().lower()


def _parse_jaffe(path: Path) -> tuple[str, str]:
    """Parse KA.AN1.39.tiff into subject and emotion; the folder does not matter."""
    match = re.match(r"([A-Z]{2})\.([A-Z]{2})\d", path.name)
    return (match[1], JAFFE_CODES.get(match[2], "")) if match else ("", "")


def _parse_ckplus48(path: Path) -> tuple[str, str]:
    """Parse anger/S010_004_00000017.png."""
    match = re.match(r"(S\d{3})_", path.name)
    return (match[1] if match else "", _folder(path))


def _parse_cfe(path: Path) -> tuple[str, str]:
    """Parse anger/subject12_3.jpg: the subject ends after its number or before a separator."""
    match = re.match(r"[A-Za-z]*\d+|[A-Za-z]+(?=[_\-. ])", path.name)
    return (match[0] if match else "", _folder(path))


_PARSERS: dict[str, Callable[[Path], tuple[str, str]]] = {
    "jaffe": _parse_jaffe,
    "ckplus48": _parse_ckplus48,
    "cfe": _parse_cfe,
}
_PATTERNS = {
    "jaffe": "KA.AN1.39.tiff",
    "ckplus48": "anger/S010_004_00000017.png",
    "cfe": "anger/subject1.jpg",
}
