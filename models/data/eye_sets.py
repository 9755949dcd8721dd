"""Reads pictures of single eyes and mouths, as they are here and as their owners publish them."""

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
# Mouths that look more alike than this (correlation of 24x12 pixels) may be frames of one shot: three of ten
# crops of mouths/yawn have such a neighbour.
ALIKE = 0.95

# The names of MRL's files: person, picture, gender, glasses, eye, reflections, lighting, sensor
# (Fusek 2018, "Pupil localization using geodesic distance").
MRL_NAME = re.compile(r"(s\d{4})_(\d+)_([01])_([01])_([01])_([012])_([01])_(\d\d)")
CEW_EYE = re.compile(r"(.+?)(?:\.jpg_face_\d+)?_[LR]$")


@dataclass(frozen=True, slots=True, eq=False)
class PatchSet:
    """Small grey pictures `images` (h, w) uint8 with `labels` (n,), whose each is, and what else is known.

    `people` are such as `mrl:s0001`; for mouths, whose people are unknown, a cluster of pictures that look
    alike. `traits` are words such as `glasses` for each. `notes` tell what could not be used.
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
        """Return the part of the set at `index`, in that order."""
        return replace(
            self,
            images=tuple(self.images[i] for i in index),
            labels=self.labels[np.asarray(index, np.int64)],
            people=tuple(self.people[i] for i in index),
            traits=tuple(self.traits[i] for i in index),
        )

    def of_people(self, people: Sequence[str], *, inside: bool = True) -> PatchSet:
        """Return the pictures of `people`, or of everybody else."""
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

    The person is in the name, such as `Abdullah_0001_L.jpg`; both eyes of a picture are one person's.
    """
    return _read("cew", directory, _cew_patch, progress)


def load_mrl(directory: Path, *, progress: Progress | None = None) -> PatchSet:
    """Read MRL's infrared eyes: names such as `s0001_00003_0_0_0_0_0_01.png`, or `labels.csv` with them."""
    table = directory / "labels.csv"
    names: dict[str, str] = {}
    if table.exists():
        try:
            with table.open(newline="", encoding="utf-8") as file:
                names = {row["path"]: row["source_image"] for row in csv.DictReader(file)}
        except (KeyError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}: not a table of eyes ({error}); take the whole file again") from error

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
    """Read mouths below folders `yawn` and `no_yawn`; those that look alike count as one person.

    Nobody is named there and frames of one shot stand side by side, so pictures are linked where they
    correlate by `ALIKE`, and what is linked stays on one side of a split. People may still be on both.
    """
    mouths = _read("yawn", directory, _yawn_patch, progress)
    people = tuple(f"yawn:{cluster}" for cluster in clusters_of(mouths.images))
    note = (
        f"yawn: nobody is named; {len(set(people))} clusters of alike pictures are kept whole, "
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
    """Number the groups (n,) of pictures that are linked by a correlation of `alike` or more."""
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
    """Read every picture that says what it is; what says nothing or is broken is counted in a note."""
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
        raise DataError(f"{name}: no picture in {directory} can be used; check the directory")
    notes = [
        f"{name}: {len(names)} pictures {what} (first {names[0]})"
        for names, what in ((strange, "have names that say nothing"), (broken, "cannot be read"))
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
