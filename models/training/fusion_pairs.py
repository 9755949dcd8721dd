"""Pairs held-out faces and voices by label, since no data set here has both of one recording."""

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
MISSING, WORSE, OLD = 0.2, 0.15, 0.25  # shares of the training pairs
OLDEST_HALF_LIVES = 1.7  # the default of `max_skew_s` in half lives (`half_life_s`)


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of face and voice; None for a missing modality. `agree`: both have the same label."""

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
    """Pairs of face and voice: `p` (n, 2, 7), zero for a missing modality.

    `quality` and `freshness` (n, 2) are 0..1; `labels` and `people` (n, 2) are those of face and voice.
    """

    p: Float32
    quality: Float32
    freshness: Float32
    labels: Labels
    people: NDArray[np.str_]

    def features(self) -> Float32:
        """Return the input of the multimodal network, (n, 20)."""
        return network_features(self.p, self.quality, self.freshness)

    @property
    def is_present(self) -> NDArray[np.bool_]:
        """Whether each modality has a prediction, (n, 2)."""
        return np.asarray(self.p.max(axis=2) > 0)

    @property
    def both(self) -> NDArray[np.bool_]:
        """Whether both modalities have a prediction, (n,)."""
        return np.asarray(self.is_present.min(axis=1) > 0)


def find_partners(
    labels: Labels, voices: PredictionSet, random: np.random.Generator, *, agree: bool = True
) -> Labels:
    """Return a voice for each of `labels` (n,), with the same label or, without `agree`, with another.

    The speaker is drawn first, then a clip: all speakers are equally likely.
    """
    wanted = labels
    if not agree:
        present = np.unique(voices.labels)
        others = np.array([present[present != k][random.integers(len(present) - 1)] for k in labels])
        wanted = others.astype(np.int64)
    partners = np.zeros(len(labels), np.int64)
    for k in np.unique(wanted):
        positions = np.flatnonzero(wanted == k)
        with_label = voices.labels == k
        speakers = np.unique(voices.people[with_label])
        drawn = speakers[random.integers(len(speakers), size=len(positions))]
        for speaker in speakers:
            clips = np.flatnonzero(with_label & (voices.people == speaker))
            here = positions[drawn == speaker]
            partners[here] = clips[random.integers(len(clips), size=len(here))]
    return partners


def make_pairs(faces: PredictionSet, voices: PredictionSet, partners: Labels, condition: Condition) -> Pairs:
    """Pair every face with the voice at `partners` (n,) in one condition, both with freshness 1."""
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
    """Return up to `count` training pairs: any condition, missing modalities, reduced quality or freshness.

    If quality or freshness is reduced, the prediction is replaced by that for another person with the
    probability of the reduction. So these numbers mean the same to the network as to the rules.
    """
    chosen = random.choice(len(faces), count, p=None if shares is None else shares / shares.sum())
    faces = faces.select(chosen)
    partners = find_partners(faces.labels, voices, random)
    pairs = make_pairs(faces, voices, partners, CONDITIONS[0])
    p, quality, freshness = pairs.p, pairs.quality, pairs.freshness
    for i, (kinds, predictions, index) in enumerate(
        ((FACE_KINDS, faces, np.arange(count)), (VOICE_KINDS, voices, partners))
    ):
        which = random.choice(len(kinds), count, p=[share for _, share in kinds])
        for k, (kind, _) in enumerate(kinds):
            here = which == k
            p[here, i], quality[here, i] = (
                predictions.p[kind][index[here]],
                predictions.quality[kind][index[here]],
            )
        freshness[:, i] = 0.5 ** random.uniform(0, 0.2, count)
        old = random.random(count) < OLD
        freshness[old, i] = 0.5 ** random.uniform(0, OLDEST_HALF_LIVES, np.count_nonzero(old))
        worse = np.where(random.random(count) < WORSE, random.random(count), 1)
        quality[:, i] *= worse
        kept = worse * np.where(old, freshness[:, i], 1)
        other = random.permutation(count)
        lost = random.random(count) > kept
        p[lost, i] = p[other[lost], i]
    missing = np.flatnonzero((random.random(count) < MISSING) & pairs.both)
    p[missing, random.integers(2, size=len(missing))] = 0
    kept_pairs = p.max(axis=(1, 2)) > 0
    return Pairs(
        p[kept_pairs],
        quality[kept_pairs],
        freshness[kept_pairs],
        pairs.labels[kept_pairs],
        pairs.people[kept_pairs],
    )


def exchange_labels(pairs: Pairs, random: np.random.Generator) -> Pairs:
    """Return the pairs with classes permuted, each pair with its own permutation."""
    order = random.permuted(np.tile(np.arange(CLASSES), (len(pairs.p), 1)), axis=1)  # new class -> old class
    return replace(
        pairs,
        p=np.take_along_axis(pairs.p, order[:, None, :], axis=2),
        labels=np.take_along_axis(np.argsort(order, axis=1), pairs.labels, axis=1),
    )


def fuse_by_rule(
    pairs: Pairs, method: str, settings: FusionSettings, *, temperature: float | None = None
) -> Float32:
    """Return the fused (n, 7) of a rule of the device; zero without any prediction."""
    present = pairs.is_present
    weights = present * np.array([settings.face_weight, settings.voice_weight])
    w = relative_weights((pairs.quality * pairs.freshness).astype(np.float64), weights)
    p = RULES[method](np.where(present[..., None], pairs.p, UNIFORM).astype(np.float64), w)
    softer = soften_joint(p, TEMPERATURES[method] if temperature is None else temperature)
    fused = np.where(pairs.both[:, None], softer, p) * present.max(axis=1)[:, None]
    return np.asarray(fused, np.float32)


def joined(parts: Sequence[PredictionSet]) -> PredictionSet:
    """Return several sets as one."""
    first = parts[0]
    return replace(
        first,
        name=" and ".join(part.name for part in parts),
        labels=np.concatenate([part.labels for part in parts]),
        people=np.concatenate([part.people for part in parts]),
        p={kind: np.concatenate([part.p[kind] for part in parts]) for kind in first.p},
        quality={kind: np.concatenate([part.quality[kind] for part in parts]) for kind in first.quality},
    )
