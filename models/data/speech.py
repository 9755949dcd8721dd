"""Reads the speech corpora in every published layout and computes their features."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.sources.media_files import read_audio
from edge.values import LABELS, Float32
from edge.voice.activity import SPEECH_THRESHOLD
from edge.voice.windows import Window, clip_window
from models.data.datasets import DataError, find_set, label_of
from models.run import Progress

SOUND_SUFFIXES = (".wav", ".ogg", ".flac", ".mp3", ".opus", ".m4a")
RAVDESS_EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful",
    "07": "disgust", "08": "surprised",
}  # fmt: skip
RAVDESS_TWIN = "03-01-03-01-02-02-07"  # the same recording as 03-01-03-01-02-01-07

# Speakers that report-voice is tested on (its card names them), and speakers that choices are made on.
# TESS has two speakers, which leaves none for validation.
HELD_OUT = ("tess:YAF", "ravdess:17", "ravdess:18", "ravdess:19", "ravdess:20", "nemo:WR0")
VALIDATION = ("ravdess:13", "ravdess:14", "ravdess:15", "ravdess:16", "nemo:SM0")


@dataclass(frozen=True, slots=True)
class Clip:
    """One audio file with its label and its speaker (`tess:YAF`: unique over all corpora)."""

    path: Path
    corpus: str
    speaker: str
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """Clips, each with one window over the whole clip; `notes` name files that could not be used."""

    name: str
    clips: tuple[Clip, ...]
    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels (n,) as indices into `LABELS`."""
        return np.array([LABELS.index(clip.label) for clip in self.clips], dtype=np.int64)

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpus of each clip, (n,)."""
        return tuple(clip.corpus for clip in self.clips)

    def of_speakers(self, speakers: Sequence[str], *, inside: bool = True) -> Speech:
        """Return the clips of `speakers`, or with `inside=False` those of all others."""
        index = [i for i, clip in enumerate(self.clips) if (clip.speaker in speakers) == inside]
        return replace(
            self,
            clips=tuple(self.clips[i] for i in index),
            windows=tuple(self.windows[i] for i in index),
        )


def list_clips(data: Path, corpus: str) -> tuple[list[Clip], list[str]]:
    """Return the clips of a corpus (tess, ravdess or nemo) below `data`, and a note about unknown names."""
    directory = find_set(data, corpus)
    parse = _CORPORA[corpus]
    clips, strange = [], []
    for path in sorted(path for path in directory.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES):
        if path.stem == RAVDESS_TWIN:
            continue
        if parsed := parse(path.stem):
            clips.append(Clip(path, corpus, f"{corpus}:{parsed[0]}", parsed[1]))
        else:
            strange.append(path.name)
    if not clips:
        raise DataError(
            f"data set {corpus}: no audio file with a name of its pattern in {directory}; check the directory"
        )
    if strange:
        return clips, [f"{corpus}: {len(strange)} files with names without an emotion (first {strange[0]})"]
    return clips, []


def load_speech(
    name: str, clips: Sequence[Clip], *, notes: Sequence[str] = (), progress: Progress | None = None
) -> Speech:
    """Read clips and compute features with the device's code; a note counts unreadable clips."""
    good, windows, bad = [], [], []
    for done, clip in enumerate(clips, start=1):
        try:
            windows.append(clip_window(read_audio(clip.path)))
            good.append(clip)
        except MediaError:
            bad.append(clip.path.name)
        if progress:
            progress(done, len(clips))
    if not good:
        raise DataError(f"{name}: no clip can be read, {len(bad)} tried; check the directory")
    all_notes = list(notes)
    if bad:
        all_notes.append(f"{name}: {len(bad)} of {len(clips)} clips cannot be read (first {bad[0]})")
    return Speech(name, tuple(good), tuple(windows), tuple(all_notes))


def spoken_frames(window: Window) -> Float32:
    """Return the (T, 40) frames that `edge.voice.windows.pool` averages: speech, or all without speech."""
    spoken = window.speech >= SPEECH_THRESHOLD
    return window.mfcc[spoken] if spoken.any() else window.mfcc


def _parse_tess(stem: str) -> tuple[str, str] | None:
    """Parse OAF_back_angry or YAF_date_ps; the published OA_bite_neutral is a typo for OAF."""
    speaker, _, rest = stem.partition("_")
    speaker = {"OA": "OAF", "YA": "YAF"}.get(speaker, speaker)
    label = label_of(rest.partition("_")[2])
    return (speaker, label) if speaker in ("OAF", "YAF") and label else None


def _parse_ravdess(stem: str) -> tuple[str, str] | None:
    """Parse 03-01-EMOTION-INTENSITY-STATEMENT-REPEAT-ACTOR; calm counts as neutral."""
    match = re.fullmatch(r"03-01-(\d\d)-\d\d-\d\d-\d\d-(\d\d)", stem)
    label = label_of(RAVDESS_EMOTIONS.get(match[1], "")) if match else None
    return (match[2], label) if match and label else None


def _parse_nemo(stem: str) -> tuple[str, str] | None:
    """Parse SPEAKER_EMOTION_N."""
    parts = stem.split("_")
    label = label_of(parts[1]) if len(parts) == 3 else None
    return (parts[0], label) if label else None


_CORPORA: dict[str, Callable[[str], tuple[str, str] | None]] = {
    "tess": _parse_tess,
    "ravdess": _parse_ravdess,
    "nemo": _parse_nemo,
}
CORPORA = tuple(_CORPORA)
SPEECH_LICENCES = {"tess": "CC BY-NC-ND 4.0", "ravdess": "CC BY-NC-SA 4.0", "nemo": "CC BY-NC-SA 4.0"}
