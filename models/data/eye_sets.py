"""Reads images of single eyes and mouths in every published layout."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.values import UInt8
from models.data.datasets import IMAGE_SUFFIXES, DataError
from models.run import Progress

CLOSED, OPEN = 0, 1
STILL, YAWNING = 0, 1
# Mouths that correlate more than this (24x12 pixels) may be frames of one recording: 30 % of the crops of
# mouths/yawn have such a neighbour.
ALIKE = 0.95

# MRL's file names: person, picture, gender, glasses, eye, reflections, lighting, sensor
# (Fusek 2018, "Pupil localization using geodesic distance").
MRL_NAME = re.compile(r"(s\d{4})_(\d+)_([01])_([01])_([01])_([012])_([01])_(\d\d)")
CEW_EYE = re.compile(r"(.+?)(?:\.jpg_face_\d+)?_[LR]$")


@dataclass(frozen=True, slots=True, eq=False)
class PatchSet:
    """Small grey images (h, w) uint8 with `labels` (n,), the person in each, and other attributes.

    `people` are ids such as `mrl:s0001`. The people of the mouths are unknown: there the id is a cluster of
    similar images. `traits` are attributes such as glasses. `notes` name files that could not be used.
    """

    name: str
    images: tuple[UInt8, ...]
    labels: NDArray[np.int64]
    people: tuple[str, ...]
    traits: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Sequence[int] | NDArray[np.int64]) -> PatchSet:
        """Return the examples at `index`, in that order."""
        return replace(
            self,
            images=tuple(self.images[i] for i in index),
            labels=self.labels[np.asarray(index, np.int64)],
            people=tuple(self.people[i] for i in index),
            traits=tuple(self.traits[i] for i in index),
        )

    def of_people(self, people: Sequence[str], *, inside: bool = True) -> PatchSet:
        """Return the images of `people`, or with `inside=False` those of all others."""
        chosen = set(people)
        return self.take([i for i, person in enumerate(self.people) if (person in chosen) == inside])


@dataclass(frozen=True, slots=True)
class _Patch:
    path: Path
    label: int
    person: str
    traits: Mapping[str, str] = field(default_factory=dict)


def load_cew(directory: Path, *, progress: Progress | None = None) -> PatchSet:
    """Read Closed Eyes in the Wild (Song et al. 2014): 24x24 patches below folders closed... and open...

    The file name gives the person (`Abdullah_0001_L.jpg`); both eyes of a photograph are of one person.
    """
    return _read("cew", directory, _cew_patch, progress)


def load_mrl(directory: Path, *, progress: Progress | None = None) -> PatchSet:
    """Read MRL's infrared eyes: file names as `s0001_00003_0_0_0_0_0_01.png`, or `labels.csv` with them."""
    table = directory / "labels.csv"
    names: dict[str, str] = {}
    if table.exists():
        try:
            with table.open(newline="", encoding="utf-8") as file:
                names = {row["path"]: row["source_image"] for row in csv.DictReader(file)}
        except (KeyError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}: not a table of eyes ({error}); download the file again") from error

    def patch_of(path: Path) -> _Patch | None:
        known = MRL_NAME.match(names.get(path.relative_to(directory).as_posix(), path.name))
        if known is None:
            return None
        person, _, gender, glasses, state, reflections, lighting, sensor = known.groups()
        traits = {
            "gender": ("man", "woman")[int(gender)],
            "glasses": ("without glasses", "glasses")[int(glasses)],
            "reflections": ("no reflections", "small reflections", "large reflections")[int(reflections)],
            "light": ("bad light", "good light")[int(lighting)],
            "sensor": f"sensor {sensor}",
        }
        return _Patch(path, OPEN if state == "1" else CLOSED, f"mrl:{person}", traits)

    return _read("mrl", directory, patch_of, progress)


def load_yawns(directory: Path, *, progress: Progress | None = None) -> PatchSet:
    """Read mouths below folders `yawn` and `no_yawn`; similar images count as one person.

    The set names no people and has several frames of a recording. Images that correlate by `ALIKE` or more
    are linked, and linked images stay on one side of a split. A person may still be on both sides.
    """
    mouths = _read("yawn", directory, _yawn_patch, progress)
    people = tuple(f"yawn:{cluster}" for cluster in clusters_of(mouths.images))
    note = (
        f"yawn: people are not named; {len(set(people))} clusters of similar images are never split, "
        "but one person may be in several"
    )
    return replace(mouths, people=people, notes=(*mouths.notes, note))


def joined(a: PatchSet, b: PatchSet) -> PatchSet:
    """Return both sets as one."""
    labels = np.concatenate([a.labels, b.labels])
    name = f"{a.name} and {b.name}"
    people, traits = a.people + b.people, a.traits + b.traits
    return PatchSet(name, a.images + b.images, labels, people, traits, a.notes + b.notes)


def clusters_of(images: Sequence[UInt8], *, alike: float = ALIKE) -> list[int]:
    """Return the cluster number (n,) of each image; a correlation of `alike` or more links two images."""
    small = np.stack([cv2.resize(image, (24, 12), interpolation=cv2.INTER_AREA) for image in images])
    rows = small.reshape(len(images), -1).astype(np.float32)  # (n, 12, 24) -> (n, 288)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    linked = rows @ rows.T >= alike
    cluster = [-1] * len(images)
    for first in range(len(images)):
        if cluster[first] >= 0:
            continue
        waiting = [first]
        while waiting:
            i = waiting.pop()
            if cluster[i] < 0:
                cluster[i] = first
                waiting += np.flatnonzero(linked[i]).tolist()
    return cluster


def _cew_patch(path: Path) -> _Patch | None:
    folder, known = path.parent.name.lower(), CEW_EYE.match(path.stem)
    if known is None or not folder.startswith(("closed", "open")):
        return None
    label = CLOSED if folder.startswith("closed") else OPEN
    return _Patch(path, label, f"cew:{known.group(1)}")


def _yawn_patch(path: Path) -> _Patch | None:
    words = {"yawn": YAWNING, "no_yawn": STILL}
    label = words.get(path.parent.name.lower().replace(" ", "_"))
    return None if label is None else _Patch(path, label, "")


def _read(
    name: str, directory: Path, patch_of: Callable[[Path], _Patch | None], progress: Progress | None
) -> PatchSet:
    """Read every image with a known name; unknown names and unreadable files are counted in notes."""
    paths = sorted(path for path in directory.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    images: list[UInt8] = []
    good: list[_Patch] = []
    strange: list[str] = []
    broken: list[str] = []
    for done, path in enumerate(paths, start=1):
        if progress:
            progress(done, len(paths))
        patch = patch_of(path)
        if patch is None:
            strange.append(path.name)
            continue
        image = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None:
            broken.append(path.name)
        else:
            images.append(image.astype(np.uint8, copy=False))
            good.append(patch)
    if not images:
        raise DataError(f"{name}: no image in {directory} can be used; check the directory")
    notes = [
        f"{name}: {len(names)} images {what} (first {names[0]})"
        for names, what in ((strange, "have unknown names"), (broken, "cannot be read"))
        if names
    ]
    return PatchSet(
        name,
        tuple(images),
        np.array([patch.label for patch in good], dtype=np.int64),
        tuple(patch.person for patch in good),
        tuple(patch.traits for patch in good),
        tuple(notes),
    )
