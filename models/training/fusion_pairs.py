"""Puts held-out faces and held-out voices together by label, since no set here has both of one act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.people.pooling import (
    CLASSES,
    RULES,
    TEMPERATURES,
    UNIFORM,
    network_features,
    relative_weights,
    soften_joint,
)
from edge.settings import FusionSettings
from edge.values import Float32
from models.data.corruption import CLEAN
from models.metrics import Labels
from models.training.fusion_predictions import (
    BABBLE,
    COVERED_EYES,
    COVERED_MOUTH,
    TURNED,
    PredictionSet,
)

FACE_KINDS = ((CLEAN, 0.49), (COVERED_MOUTH, 0.17), (COVERED_EYES, 0.17), (TURNED, 0.17))
VOICE_KINDS = ((CLEAN, 0.6), (BABBLE, 0.4))
MISSING, WORSE, OLD = 0.2, 0.15, 0.25  # shares of the pairs that are learnt from
OLDEST_HALF_LIVES = 1.7  # what `max_skew_s` is in `half_life_s`


@dataclass(frozen=True, slots=True)
class Condition:
    """How face and voice are met: the kind of answers of each, None where it is not there."""

    name: str
    face: str | None
    voice: str | None
    agree: bool = True


CONDITIONS = (
    Condition("both clean", CLEAN, CLEAN),
    Condition(COVERED_MOUTH, COVERED_MOUTH, CLEAN),
    Condition(COVERED_EYES, COVERED_EYES, CLEAN),
    Condition(TURNED, TURNED, CLEAN),
    Condition("babble 0 dB", CLEAN, BABBLE),
    Condition("no face", None, CLEAN),
    Condition("no voice", CLEAN, None),
    Condition("disagreeing", CLEAN, CLEAN, agree=False),
)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A face and a voice each, n of them: `p` (n, 2, 7), zeros where one is not there.

    `quality` and `freshness` (n, 2) are 0..1; `labels` (n, 2) are the face's and the voice's; `people`
    (n, 2) are who is seen and who is heard.
    """

    p: Float32
    quality: Float32
    freshness: Float32
    labels: Labels
    people: NDArray[np.str_]

    def features(self) -> Float32:
        """Return what the network reads, (n, 20)."""
        return network_features(self.p, self.quality, self.freshness)

    @property
    def is_present(self) -> NDArray[np.bool_]:
        """Which opinions there are, (n, 2)."""
        return np.asarray(self.p.max(axis=2) > 0)

    @property
    def both(self) -> NDArray[np.bool_]:
        """Where there are two opinions, (n,)."""
        return np.asarray(self.is_present.min(axis=1) > 0)


def find_partners(
    labels: Labels, voices: PredictionSet, random: np.random.Generator, *, agree: bool = True
) -> Labels:
    """Return the index of a voice for each of `labels` (n,), of the same label or of any other.

    First the speaker is drawn, then one of their clips, so that nobody is heard more for having more.
    """
    wanted = labels
    if not agree:
        there = np.unique(voices.labels)
        others = np.array([there[there != k][random.integers(len(there) - 1)] for k in labels])
        wanted = others.astype(np.int64)
    partners = np.zeros(len(labels), np.int64)
    for k in np.unique(wanted):
        asking = np.flatnonzero(wanted == k)
        with_label = voices.labels == k
        speakers = np.unique(voices.people[with_label])
        drawn = speakers[random.integers(len(speakers), size=len(asking))]
        for speaker in speakers:
            clips = np.flatnonzero(with_label & (voices.people == speaker))
            here = asking[drawn == speaker]
            partners[here] = clips[random.integers(len(clips), size=len(here))]
    return partners


def make_pairs(faces: PredictionSet, voices: PredictionSet, partners: Labels, condition: Condition) -> Pairs:
    """Return every face with the voice that `partners` (n,) index, under one condition, both just now."""
    count = len(faces)
    p, quality = np.zeros((count, 2, CLASSES), np.float32), np.zeros((count, 2), np.float32)
    if condition.face is not None:
        p[:, 0], quality[:, 0] = faces.p[condition.face], faces.quality[condition.face]
    if condition.voice is not None:
        p[:, 1] = voices.p[condition.voice][partners]
        quality[:, 1] = voices.quality[condition.voice][partners]
    return Pairs(
        p,
        quality,
        np.ones((count, 2), np.float32),
        np.stack([faces.labels, voices.labels[partners]], axis=1),
        np.stack([faces.people, voices.people[partners]], axis=1),
    )


def draw_pairs(
    faces: PredictionSet,
    voices: PredictionSet,
    count: int,
    random: np.random.Generator,
    *,
    shares: Float32 | None = None,
) -> Pairs:
    """Return up to `count` pairs to learn from: any condition, one missing, worse than it was, or old.

    What gets worse or older says, with the probability that its number falls by, what it says of another
    person: so the numbers mean to the network what they mean to the rules.
    """
    chosen = random.choice(len(faces), count, p=None if shares is None else shares / shares.sum())
    faces = faces.at(chosen)
    partners = find_partners(faces.labels, voices, random)
    pairs = make_pairs(faces, voices, partners, CONDITIONS[0])
    p, quality, freshness = pairs.p, pairs.quality, pairs.freshness
    for i, (kinds, answers, index) in enumerate(
        ((FACE_KINDS, faces, np.arange(count)), (VOICE_KINDS, voices, partners))
    ):
        which = random.choice(len(kinds), count, p=[share for _, share in kinds])
        for k, (kind, _) in enumerate(kinds):
            here = which == k
            p[here, i], quality[here, i] = answers.p[kind][index[here]], answers.quality[kind][index[here]]
        freshness[:, i] = 0.5 ** random.uniform(0, 0.2, count)
        old = random.random(count) < OLD
        freshness[old, i] = 0.5 ** random.uniform(0, OLDEST_HALF_LIVES, np.count_nonzero(old))
        worse = np.where(random.random(count) < WORSE, random.random(count), 1)
        quality[:, i] *= worse
        kept = worse * np.where(old, freshness[:, i], 1)
        other = random.permutation(count)
        lost = random.random(count) > kept
        p[lost, i] = p[other[lost], i]
    gone = np.flatnonzero((random.random(count) < MISSING) & pairs.both)
    p[gone, random.integers(2, size=len(gone))] = 0
    there = p.max(axis=(1, 2)) > 0
    return Pairs(p[there], quality[there], freshness[there], pairs.labels[there], pairs.people[there])


def exchange_labels(pairs: Pairs, random: np.random.Generator) -> Pairs:
    """Return the pairs with their labels exchanged for one another, each pair in its own way."""
    order = random.permuted(np.tile(np.arange(CLASSES), (len(pairs.p), 1)), axis=1)  # new place -> old label
    return replace(
        pairs,
        p=np.take_along_axis(pairs.p, order[:, None, :], axis=2),
        labels=np.take_along_axis(np.argsort(order, axis=1), pairs.labels, axis=1),
    )


def fuse_by_rule(
    pairs: Pairs, method: str, settings: FusionSettings, *, temperature: float | None = None
) -> Float32:
    """Return what a rule of the device says of all pairs, (n, 7); 0 where there is no opinion at all."""
    present = pairs.is_present
    weights = present * np.array([settings.face_weight, settings.voice_weight])
    w = relative_weights((pairs.quality * pairs.freshness).astype(np.float64), weights)
    p = RULES[method](np.where(present[..., None], pairs.p, UNIFORM).astype(np.float64), w)
    softer = soften_joint(p, TEMPERATURES[method] if temperature is None else temperature)
    fused = np.where(pairs.both[:, None], softer, p) * present.max(axis=1)[:, None]
    return np.asarray(fused, np.float32)


def joined(parts: Sequence[PredictionSet]) -> PredictionSet:
    """Return the examples of several sets as one."""
    first = parts[0]
    return replace(
        first,
        name=" and ".join(part.name for part in parts),
        labels=np.concatenate([part.labels for part in parts]),
        people=np.concatenate([part.people for part in parts]),
        p={kind: np.concatenate([part.p[kind] for part in parts]) for kind in first.p},
        quality={kind: np.concatenate([part.quality[kind] for part in parts]) for kind in first.quality},
    )
