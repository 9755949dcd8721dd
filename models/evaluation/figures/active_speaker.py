"""Measures active speaker detection on montages of talking heads.

The thresholds of `edge.people.speaker` were chosen on every other clip, starting with the first; the
figures are of the other clips. No two clips show the same person. Which audio feature is compared with the
mouth was chosen on all clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.face.detector import open_face_detector
from edge.people.speaker import SpeakerTracker
from edge.pipeline import open_face_pipeline
from edge.settings import Config
from models.data.datasets import find_set
from models.evaluation.figures.montages import (
    HOP_S,
    MONTAGE_S,
    SUFFIXES,
    Instant,
    Montage,
    Talker,
    montages,
    play,
    read_talkers,
)
from models.evaluation.figures.rendered_montages import play_rendered
from models.evaluation.measures import Measured, Table
from models.evaluation.targets import Target
from models.metrics import RESAMPLES
from models.run import Bar

FACES = (2, 3, 4)
FPS = (10.0, 15.0)
WARM_UP_S = 3.0  # length of the compared signals
SKEWS_S = (-0.15, 0.15)
RENDERED = 2  # montages of each size that are rendered
RIGHT_PERCENT = 85.0
SEED = 7


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of speech instants of one montage after the warm-up, and the time to the first right decision.

    For an off-screen voice `right` are the instants without a track: `uncertain` and `none`.
    """

    total: int
    right: int
    wrong: int
    uncertain: int
    nobody: int
    right_from_start: int
    from_start: int
    decided_s: float | None


def tally(montage: Montage, instants: Sequence[Instant]) -> Tally:
    """Count the results during speech; right is the track of the audible talker, or no track."""
    spoken = [instant for instant in instants if instant.speech]
    right = [instant for instant in spoken if instant.speaker.track == montage.shown]
    late = [instant.speaker for instant in spoken if instant.t_s > WARM_UP_S]
    return Tally(
        total=len(late),
        right=sum(speaker.track == montage.shown for speaker in late),
        wrong=sum(speaker.track not in (None, montage.shown) for speaker in late),
        uncertain=sum(speaker.state == "uncertain" for speaker in late),
        nobody=sum(speaker.state == "none" for speaker in late),
        right_from_start=len(right),
        from_start=len(spoken),
        decided_s=right[0].t_s - spoken[0].t_s + HOP_S if right and montage.shown else None,
    )


def summary(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Return shares 0..1 of the speech time, the interval of `right`, and the median time to decide."""
    total = sum(t.total for t in tallies)
    decided = [t.decided_s for t in tallies if t.decided_s is not None]
    shares = {
        word: round(sum(getattr(t, word) for t in tallies) / total, 4)
        for word in ("right", "wrong", "uncertain", "nobody")
    }
    from_start = sum(t.right_from_start for t in tallies) / sum(t.from_start for t in tallies)
    return {
        "montages": len(tallies),
        "seconds": total * HOP_S,
        **shares,
        "right_interval_95": _interval([(t.right, t.total) for t in tallies]),
        "right_from_start": round(from_start, 4),
        "seconds_to_decide": round(float(np.median(decided)), 2) if decided else None,
    }


def measure_speaking(data: Path, _directory: Path, bar: Bar) -> Measured:
    """Measure on the clips of `media/talking` below `data`; raise `DataError` if there are none."""
    directory = find_set(data, "talking")
    with bar("reading talking heads") as progress:
        talkers = read_talkers(directory, open_face_detector(), progress=progress)
    tuned, tested = range(0, len(talkers), 2), range(1, len(talkers), 2)
    conditions: dict[str, dict[str, Any]] = {}
    with bar("montages") as progress:
        steps = [(fps, are_shifted) for fps in FPS for are_shifted in (False, True)]
        for done, (fps, are_shifted) in enumerate(steps, start=1):
            name = f"{fps:g} fps, {'shifted' if are_shifted else 'together'}"
            conditions[name] = _condition(tested, talkers, fps, are_shifted=are_shifted)
            progress(done, len(steps) + 2)
        chosen_on = _condition(tuned, talkers, FPS[0], are_shifted=False)
        progress(len(steps) + 1, len(steps) + 2)
        skewed = {f"{1000 * s:+.0f} ms": _skewed(tuned, tested, talkers, s) for s in (0.0, *SKEWS_S)}
        progress(len(steps) + 2, len(steps) + 2)
    paths = sorted(path for path in directory.glob("*") if path.suffix.lower() in SUFFIXES)
    with bar("rendered montages") as progress:
        composed = _rendered(tested, talkers, paths, progress)
    figures = {
        "chosen_on": [talkers[i].name for i in tuned],
        "measured_on": [talkers[i].name for i in tested],
        "conditions": conditions,
        "on_those_chosen_on": chosen_on,
        "skewed": skewed,
        "composed": composed,
    }
    values = [
        (f"{name}, {faces} faces", 100 * condition[f"{faces} faces"]["right"])
        for name, condition in conditions.items()
        for faces in FACES
    ]
    # Results of the pipeline and of the cached mouth openings must not diverge.
    values.append(("as pictures", 100 * composed["right"]))
    target = Target("right while somebody in view speaks", "%", ">=", RIGHT_PERCENT).compare(values)
    return Measured(figures, _tables(figures), [target], _notes(len(tested)))


def _condition(
    who: Sequence[int], talkers: Sequence[Talker], fps: float, *, are_shifted: bool
) -> dict[str, Any]:
    """Return summaries for each number of faces, voice on or off screen, and for all on screen."""
    found: dict[str, Any] = {}
    everything: list[Tally] = []
    for is_shown in (True, False):
        for faces in FACES if is_shown else (1, *FACES):
            random = np.random.default_rng(SEED) if are_shifted else None
            played = list(montages(who, faces=faces, is_audible_shown=is_shown, random=random))
            tallies = [tally(montage, play(montage, talkers, fps=fps)) for montage in played]
            name = f"{faces} face{'s' * (faces > 1)}"
            if tallies:
                found[name if is_shown else f"{name}, voice from elsewhere"] = summary(tallies)
            everything += tallies if is_shown else []
    return found | {"in view": summary(everything)}


def _skewed(
    first: Sequence[int], who: Sequence[int], talkers: Sequence[Talker], skew_s: float
) -> dict[str, Any]:
    """Return a summary of montages after each of `first` talked alone, with audio `skew_s` late."""
    trained_tracker = SpeakerTracker()
    for number, alone in enumerate(first):
        single = Montage((alone,), alone, (0.0,))
        begin_s = number * (MONTAGE_S + 1)
        play(single, talkers, fps=FPS[0], skew_s=skew_s, speaking=trained_tracker, begin_s=begin_s)
    begin_s = len(first) * (MONTAGE_S + 1)
    tallies = []
    for montage in (m for faces in FACES for m in montages(who, faces=faces, is_audible_shown=True)):
        speaking = deepcopy(trained_tracker)
        instants = play(montage, talkers, fps=FPS[0], skew_s=skew_s, speaking=speaking, begin_s=begin_s)
        tallies.append(tally(montage, instants))
    return summary(tallies) | {"learnt_s": round(trained_tracker.skew_s, 3)}


def _rendered(
    who: Sequence[int], talkers: Sequence[Talker], paths: Sequence[Path], progress: Any
) -> dict[str, Any]:
    """Run the whole pipeline on some rendered montages and compare with the cached mouth openings."""
    face_pipeline = open_face_pipeline(Config(), backend="cpu")
    played = [
        montage
        for faces in FACES
        for montage in list(montages(who, faces=faces, is_audible_shown=True))[: 7 * RENDERED : 7]
    ]
    tallies, same, total = [], 0, 0
    for done, montage in enumerate(played, start=1):
        fresh = face_pipeline.copy_without_history()
        instants = play_rendered(montage, paths, talkers, face_pipeline=fresh, fps=FPS[0])
        cached = play(montage, talkers, fps=FPS[0])
        spoken = [(a, b) for a, b in zip(instants, cached, strict=True) if a.speech and a.t_s > WARM_UP_S]
        same += sum(a.speaker.track == b.speaker.track for a, b in spoken)
        total += len(spoken)
        tallies.append(tally(montage, instants))
        progress(done, len(played))
    return summary(tallies) | {"same_as_cached": round(same / total, 4)}


def _interval(counts: Iterable[tuple[int, int]]) -> list[float]:
    """Return the 95 % percentile bootstrap interval (Efron 1979) of a share, resampling montages."""
    pairs = np.array(list(counts))
    drawn = np.random.default_rng(SEED).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    right, total = pairs[drawn].sum(axis=1).T
    low, high = np.percentile(right / total, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def _tables(figures: dict[str, Any]) -> list[Table]:
    heads = ("montages", "seconds", "right %", "95 %", "wrong %", "uncertain %", "nobody %", "decides in s")
    rows = [
        (condition, name, *_cells(found))
        for condition, parts in (
            *figures["conditions"].items(),
            ("those chosen on", figures["on_those_chosen_on"]),
        )
        for name, found in parts.items()
    ]
    others = [(f"sound {name} late, learnt", "in view", *_cells(f)) for name, f in figures["skewed"].items()]
    others.append(("as pictures", "in view", *_cells(figures["composed"])))
    return [Table("who speaks", ("condition", "in view", *heads), (*rows, *others))]


def _cells(found: dict[str, Any]) -> tuple[str, ...]:
    low, high = (100 * end for end in found["right_interval_95"])
    decides_s = found["seconds_to_decide"]
    return (
        str(found["montages"]),
        f"{found['seconds']:.0f}",
        f"{100 * found['right']:.1f}",
        f"{low:.1f} - {high:.1f}",
        *(f"{100 * found[word]:.1f}" for word in ("wrong", "uncertain", "nobody")),
        "-" if decides_s is None else f"{decides_s:.1f}",
    )


def _notes(people: int) -> list[str]:
    return [
        f"{people} people, one looped 3 s clip each: montages share people, so intervals are too narrow",
        f"speech after the first {WARM_UP_S:g} s, at every window of the microphone; right_from_start in "
        "figures.conditions counts all speech",
        "the audio feature and the high-pass filter were chosen on all clips",
        "together: all start the same kind of sentence at once, the hardest case; shifted: the others "
        "start at random positions of their loop",
        "voice from elsewhere: uncertain and nobody are right, any track is wrong",
    ]
