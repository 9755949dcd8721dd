"""Montages of talking heads: several faces at once, of which one is audible, or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.face.detector import FaceDetector
from edge.face.mouth import mouth_opening
from edge.face.tracking import FaceTracker
from edge.people.speaker import Speaker, SpeakerTracker
from edge.sources.media_files import read_audio, read_video_frames
from edge.values import SAMPLE_RATE_HZ, AudioChunk, FaceMeasurements, Float32
from edge.voice.features import STEP
from edge.voice.windows import SpeechWindows, Window
from models.data.datasets import DataError
from models.run import Progress

WINDOW_S, HOP_S = 3.0, 0.5  # the defaults of `microphone`
MONTAGE_S = 12.0
SPEECH_RANGE_DB = 20.0  # below the loudest syllables
SMOOTH_STEPS = 10
SUFFIXES = (".mpg", ".mp4", ".mkv", ".webm", ".avi", ".mov")


@dataclass(frozen=True, slots=True, eq=False)
class Talker:
    """One clip, played in a loop of `length_s`: mouth opening of each frame and the windows of its audio.

    `frame_s` (n,) are the times of the frames, `opening` (n,) is nan without landmarks. `speech` (k,) marks
    steps of 10 ms with speech: the loud parts of the clean clip, without the delay of voice activity
    detection. `windows` cover `MONTAGE_S`, as in the daemon.
    """

    name: str
    length_s: float
    frame_s: NDArray[np.float64]
    opening: NDArray[np.float64]
    speech: NDArray[np.bool_]
    windows: tuple[Window, ...]

    def mouth(self, t_s: float) -> float | None:
        """Return the opening of the mouth at `t_s`, None if unknown."""
        index = int(np.searchsorted(self.frame_s, t_s % self.length_s + 1e-6, side="right")) - 1
        opening = float(self.opening[max(0, index)])
        return None if np.isnan(opening) else opening

    def speaks(self, t_s: float) -> bool:
        """Return whether at least half of the hop that ends at `t_s` is speech."""
        steps = np.arange(round((t_s - HOP_S) * SAMPLE_RATE_HZ / STEP), round(t_s * SAMPLE_RATE_HZ / STEP))
        return bool(self.speech[steps % self.speech.size].mean() >= 0.5)


@dataclass(frozen=True, slots=True)
class Montage:
    """Talkers in view, each starting `starts_s` into its loop, and the audible talker."""

    faces: tuple[int, ...]
    audible: int
    starts_s: tuple[float, ...]

    @property
    def shown(self) -> int | None:
        """The track of the audible talker, 1 for the first face; None if not in view."""
        return self.faces.index(self.audible) + 1 if self.audible in self.faces else None


@dataclass(frozen=True, slots=True)
class Instant:
    """The detected speaker at `t_s` of a montage, and whether there is speech."""

    t_s: float
    speech: bool
    speaker: Speaker


def read_talkers(
    directory: Path, detector: FaceDetector, *, progress: Progress | None = None
) -> list[Talker]:
    """Read every clip of one talking face below `directory`; raise `DataError` if there is none."""
    paths = sorted(path for path in directory.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(f"data set media/talking: no video in {directory}; complete the data set")
    talkers = []
    for done, path in enumerate(paths, start=1):
        talkers.append(_read_talker(path, detector))
        if progress:
            progress(done, len(paths))
    return talkers


def _read_talker(path: Path, detector: FaceDetector) -> Talker:
    tracker = FaceTracker(detector)
    frame_s, opening = [], []
    for frame in read_video_frames(path):
        faces = tracker.update(frame)
        mouth = mouth_opening(faces[0]) if faces else None
        frame_s.append(frame.t_ns / 1e9)
        opening.append(np.nan if mouth is None else mouth)
    if not frame_s:
        raise DataError(f"{path}: no frame in it; download it again")
    length_s = frame_s[-1] + (frame_s[-1] - frame_s[0]) / max(1, len(frame_s) - 1)
    return make_talker(path.stem, np.array(frame_s), np.array(opening), read_audio(path), length_s=length_s)


def make_talker(
    name: str,
    frame_s: NDArray[np.float64],
    opening: NDArray[np.float64],
    samples: Float32,
    *,
    length_s: float,
) -> Talker:
    """Return a talker; its audio is padded or cut to `length_s`."""
    size = round(length_s * SAMPLE_RATE_HZ)
    once = np.pad(samples[:size], (0, max(0, size - samples.size)))
    looped = np.resize(once, round(MONTAGE_S * SAMPLE_RATE_HZ)).astype(np.float32)
    cutter = SpeechWindows(window_s=WINDOW_S, hop_s=HOP_S)
    windows = tuple(cutter.process(AudioChunk(looped, 0)))
    power = np.square(once[: size // STEP * STEP].astype(np.float64)).reshape(-1, STEP).mean(axis=1)  # (k,)
    smooth = np.convolve(power, np.full(SMOOTH_STEPS, 1 / SMOOTH_STEPS), "same")
    speech = smooth > np.quantile(smooth, 0.95) * 10 ** (-SPEECH_RANGE_DB / 10)
    return Talker(name, length_s, frame_s, opening, speech, windows)


def montages(
    talkers: Sequence[int], *, faces: int, is_audible_shown: bool, random: np.random.Generator | None = None
) -> Iterator[Montage]:
    """Yield every combination of `faces` talkers with each of them audible, or with each of the others.

    All start together; with `random` the inaudible ones start at random positions of their loops.
    """
    for shown in combinations(talkers, faces):
        for audible in shown if is_audible_shown else [talker for talker in talkers if talker not in shown]:
            starts_s = [
                0.0 if random is None or who == audible else random.uniform(0.2, 2.8) for who in shown
            ]
            yield Montage(shown, audible, tuple(starts_s))


def play(
    montage: Montage,
    talkers: Sequence[Talker],
    *,
    fps: float,
    skew_s: float = 0.0,
    speaking: SpeakerTracker | None = None,
    begin_s: float = 0.0,
) -> list[Instant]:
    """Play a montage at `fps` to `speaking`, or to a new tracker; return the speaker at every window.

    Audio timestamps are `skew_s` late. The montage starts at `begin_s`.
    """
    speaking = speaking or SpeakerTracker()
    audible = talkers[montage.audible]
    faces = list(zip(montage.faces, montage.starts_s, strict=True))
    instants, frame = [], 0
    for window in audible.windows:
        stamped_ns = window.t_ns + round(skew_s * 1e9)
        while frame / fps * 1e9 <= stamped_ns:
            t_s = frame / fps
            speaking.add_faces(
                [
                    FaceMeasurements(
                        track, round((begin_s + t_s) * 1e9), mouth=talkers[who].mouth(t_s + start_s)
                    )
                    for track, (who, start_s) in enumerate(faces, start=1)
                ]
            )
            frame += 1
        stamped = Window(window.frames, window.speech, stamped_ns + round(begin_s * 1e9))
        instants.append(
            Instant(window.t_ns / 1e9, audible.speaks(window.t_ns / 1e9), speaking.add_window(stamped))
        )
    return instants
