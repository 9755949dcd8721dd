"""Reads the data of the report's systems; notes name missing sets and leaks of the random split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.values import LABELS, Float32, UInt8
from models.data.datasets import DataError, find_set
from models.data.report_pictures import LICENCES, list_pictures, read_pictures
from models.data.speech import SPEECH_LICENCES, list_clips, load_speech
from models.metrics import Labels
from models.run import Run

RANDOM = "random-80-20"
VGG16_FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
MIXED = ("jaffe", "ckplus48", "cfe")
TITLES = {"jaffe": "JAFFE", "ckplus48": "CK+48", "cfe": "CFE", "tess": "TESS"}
# Why the random split overestimates the accuracy on unseen people.
LEAKS = {
    "jaffe": f"jaffe: about 3 images per person and expression, so {RANDOM} trains on nearly the same image",
    "ckplus48": f"ckplus48: three frames of each sequence, so a random split leaks: {RANDOM} "
    "trains on nearly the same image",
    "cfe": f"cfe: several images per person, so {RANDOM} trains and tests on the same people",
    "tess": f"tess: two voices, and {RANDOM} trains and tests on both: it measures memorisation",
}


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Images (n, h, w, c) uint8 or MFCC means (n, 40), with label, subject and data set of each."""

    inputs: UInt8 | Float32
    labels: Labels
    subjects: tuple[str, ...]
    sources: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Options:
    """Options that only some recipes take: the side of an image, and VGG16's weights."""

    side_px: int
    weights: Path | None = None


def read_faces(
    run: Run, sources: tuple[str, ...], labels: tuple[str, ...], *, side_px: int, colour: bool
) -> Examples:
    """Read several image sets as one; raise `DataError` if one is missing."""
    pictures, notes = [], []
    for source in sources:
        found, strange = list_pictures(run.data, source, labels)
        pictures += found
        notes += strange
    with run.bar(f"reading {' + '.join(sources)}") as progress:
        good, pixels, bad = read_pictures(pictures, side_px=side_px, colour=colour, progress=progress)
    return Examples(
        pixels,
        np.array([labels.index(picture.label) for picture in good], dtype=np.int64),
        tuple(picture.subject for picture in good),
        tuple(picture.source for picture in good),
        (*notes, *bad),
    )


def read_cfe(run: Run, options: Options) -> Examples:
    """Read CFE; raise `DataError` that names everything that is missing."""
    weights = f"--weights FILE, VGG16's ImageNet weights without top ({VGG16_FILE})"
    try:
        find_set(run.data, "cfe")
    except DataError as error:
        and_weights = "" if options.weights else f", and {weights}"
        raise DataError(
            f"missing: CFE, which is not public; ask its owners and copy it to {run.data / 'cfe'} as "
            f"CLASS/subject*.jpg{and_weights}"
        ) from error
    examples = read_faces(run, ("cfe",), LABELS, side_px=options.side_px, colour=True)
    if options.weights:
        return examples
    return replace(examples, notes=(*examples.notes, f"vgg16 not measured; missing: {weights}"))


def read_mixed(run: Run, options: Options) -> Examples:
    """Read JAFFE, CK+48 and, if available, CFE."""
    sources: tuple[str, ...] = MIXED
    absent: list[str] = []
    try:
        find_set(run.data, "cfe")
    except DataError:
        sources = tuple(source for source in MIXED if source != "cfe")
        absent = ["the report mixed JAFFE + CK+48 + CFE; CFE is not public and missing here"]
    examples = read_faces(run, sources, LABELS, side_px=options.side_px, colour=True)
    neutral = {examples.sources[i] for i in np.flatnonzero(examples.labels == LABELS.index("neutral"))}
    if neutral == {"jaffe"}:
        absent.append("all neutral images are from JAFFE: recognising the data set reveals that class")
    return replace(examples, notes=(*absent, *examples.notes))


def read_tess(run: Run, _options: Options) -> Examples:
    """Read TESS; average the 40 MFCCs over all frames of a clip, silence included, as the report did."""
    clips, strange = list_clips(run.data, "tess")
    with run.bar("reading tess") as progress:
        speech = load_speech("tess", clips, notes=strange, progress=progress)
    return Examples(
        np.stack([window.mfcc.mean(axis=0) for window in speech.windows]),
        speech.labels,
        tuple(clip.speaker for clip in speech.clips),
        speech.corpora,
        speech.notes,
    )


def mix_of(examples: Examples) -> str:
    """Return the titles of the data sets, joined by +."""
    return " + ".join(TITLES[source] for source in dict.fromkeys(examples.sources))


def describe(examples: Examples, names: tuple[str, ...]) -> dict[str, Any]:
    """Return counts and licence of each data set."""
    where, people = np.array(examples.sources), np.array(examples.subjects)
    sets = {}
    for source in dict.fromkeys(examples.sources):
        found = np.bincount(examples.labels[where == source], minlength=len(names))
        sets[source] = {
            "n": int(found.sum()),
            "people": len(set(people[where == source])),
            "classes": dict(zip(names, found.tolist(), strict=True)),
            "licence": {**LICENCES, **SPEECH_LICENCES}[source],
        }
    return {"mix": mix_of(examples), "n": len(examples.labels), "sets": sets}
