"""Held-out voices: clips of held-out speakers, clean, in babble and over a telephone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edge.sources.media_files import read_audio
from edge.values import LABELS, Float32
from edge.voice.model_input import window_input
from edge.voice.windows import clip_window
from models.data.corruption import BABBLE_DB, CLEAN, add_noise, find_babble, telephone
from models.data.datasets import DataError
from models.data.speech import CORPORA, Clip, list_clips
from models.evaluation.held_out_sets import HeldOutSet, View, fold_of_each, note_missing, skip_unreadable
from models.family import Family
from models.metrics import Labels
from models.run import Bar

BABBLE = f"babble-{BABBLE_DB:.0f}db"
TELEPHONE = "telephone"
Change = Callable[[Float32, int], Float32]


def voice_sets(family: Family, data: Path, notes: list[str], _bar: Bar) -> Iterator[HeldOutSet]:
    """Yield a set for each corpus in `data` with held-out speakers; the rest are notes."""
    changes: dict[str, Change] = {}
    if (babble := find_babble(data, notes)) is not None:
        changes[BABBLE] = lambda samples, i: add_noise(samples, babble, i)
    changes[TELEPHONE] = lambda samples, _: telephone(samples)
    for corpus in CORPORA:
        yield from skip_unreadable(notes, _corpus_sets(family, corpus, data, notes=notes, changes=changes))


def _corpus_sets(
    family: Family, corpus: str, data: Path, *, notes: list[str], changes: dict[str, Change]
) -> Iterator[HeldOutSet]:
    held_out = family.held_out_of(corpus)
    folds = family.fold_of_people(corpus, [])
    trained_on = family.was_trained_on(corpus)
    if trained_on and not held_out and not folds:
        raise DataError(
            f"{corpus}: {family.card.name} was trained on it without held-out speakers; not measured"
        )
    clips, strange = list_clips(data, corpus)
    notes += strange
    if held_out or not trained_on:
        unseen = [clip for clip in clips if clip.speaker in held_out or not trained_on]
        if unseen:
            note_missing(corpus, held_out, {clip.speaker for clip in unseen}, notes=notes)
            model_numbers = np.zeros(len(unseen), dtype=np.int64)
            yield _test_set(f"{corpus}-unseen", unseen, model_numbers, family=family, changes=changes)
        else:
            notes.append(
                f"data set {corpus}: no clip of its held-out speakers ({', '.join(sorted(held_out))}); "
                "complete the data set"
            )
    if folds:
        model_numbers = fold_of_each(
            family, corpus, [clip.speaker for clip in clips], _labels(clips), notes=notes
        )
        chosen = [clip for clip, number in zip(clips, model_numbers, strict=True) if number >= 0]
        if chosen:
            yield _test_set(
                f"{corpus}-folds", chosen, model_numbers[model_numbers >= 0], family=family, changes=changes
            )


def _test_set(
    name: str, clips: list[Clip], model_numbers: Labels, *, family: Family, changes: dict[str, Change]
) -> HeldOutSet:
    features = [window_input(card.input.features) for card in family.cards]

    def view(change: Change | None) -> View:
        def read(i: int) -> Float32:
            samples = read_audio(clips[i].path)
            if change is not None:
                samples = change(samples, i)
            return features[int(model_numbers[i])](clip_window(samples))

        return read

    return HeldOutSet(
        name,
        _labels(clips),
        tuple(clip.speaker for clip in clips),
        model_numbers,
        {CLEAN: view(None)} | {kind: view(change) for kind, change in changes.items()},
        {},
    )


def _labels(clips: list[Clip]) -> Labels:
    return np.array([LABELS.index(clip.label) for clip in clips], dtype=np.int64)
