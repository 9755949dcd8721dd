"""Measures fatigue detection: blinks, PERCLOS and alarms on synthetic blinks, yawns in real clips.

Minutes of eyes are rendered (`models/data/eye_courses.py`) and go through the int8 eye network that never saw
the person, then through the device's own monitor. Films of real people show yawns, and that talk is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.commands.analyze import Analyzer
from edge.inference.card import load_card
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.inference.features import EyeSpec
from edge.people.fatigue import ALARMS, FatigueMonitor, FatigueState
from edge.settings import Config, FatigueSettings
from edge.values import FaceMeasurements, Float32
from models.data.datasets import DataError, find_set
from models.data.eye_sets import PatchSet, load_cew, load_mrl
from models.data.synthetic_blinks import (
    Closure,
    EyePair,
    LidMotion,
    draw_alarm_motion,
    draw_lid_motion,
    pair_eyes,
    render,
)
from models.evaluation.measures import Measured, Table
from models.evaluation.targets import Target
from models.family import find_folds
from models.metrics import RESAMPLES
from models.run import Bar

MODEL = "eye-state"
COURSES = 24  # of each set
MANY = 300  # pairs for `recognised_pairs`, which renders a few frames of each
RATES_HZ = (3, 5, 10, 15, 30)
COUNTED_HZ = (10, 15, 30)  # at which blinks have a target
DROPPED = 0.2
LATE_S = 0.006  # jitter of frame timestamps, as of real cameras
SEED = 11
BLINK_LIMIT, PERCLOS_LIMIT, ALARM_LIMIT_S = 10.0, 0.03, 1.5


@dataclass(frozen=True, slots=True)
class CropClassifier:
    """Returns the probability of closed eyes for crops (size, size, 1), as on the device."""

    size: int
    classify: Callable[[Sequence[Float32]], float | None]


@dataclass(frozen=True, slots=True)
class Minute:
    """Truth and result of one rendered minute; `found_blinks` is None at frame rates too low for counting."""

    person: str
    blinks: int
    found_blinks: float | None
    perclos: float
    found_perclos: float
    microsleeps: int
    found_microsleeps: int
    levels: frozenset[str]

    @property
    def blink_error(self) -> float | None:
        """Relative error, negative for missed blinks."""
        return None if self.found_blinks is None else self.found_blinks / max(1, self.blinks) - 1


def measure_fatigue(data: Path, directory: Path, bar: Bar) -> Measured:
    """Measure rendered minutes of both data sets at every frame rate, and the clips of faces."""
    figures: dict[str, Any] = {}
    blink_rows, share_rows, alarm_rows = [], [], []
    tables: list[Table] = []
    for name, load in (("cew", load_cew), ("mrl", load_mrl)):
        with bar(f"reading {name}") as progress:
            eyes = load(find_set(data, name), progress=progress)
        pairs = pairs_with_models(eyes, directory)
        figures[f"{name}-recognised_pairs"] = recognised_pairs(pairs_with_models(eyes, directory, most=MANY))
        rows = []
        for label, hz, dropped in (
            *((f"{hz} fps", hz, 0.0) for hz in RATES_HZ),
            (f"10 fps, {DROPPED:.0%} lost", 10, DROPPED),
        ):
            with bar(f"{name}, {label}") as progress:
                minutes = []
                for k, (pair, classifier) in enumerate(pairs):
                    minutes.append(simulate_minute(pair, classifier, hz=hz, dropped=dropped, seed=SEED + k))
                    progress(k + 1, len(pairs))
            found = summary(minutes)
            found["alarm_s"] = alarm_latency(pairs, hz=hz, dropped=dropped)
            figures[f"{name}-{hz}fps{'-dropped' if dropped else ''}"] = found
            where = f"{name}, {label}"
            if hz in COUNTED_HZ and not dropped:
                blink_rows.append((where, 100 * found["blinks"]["mean_error"]))
            share_rows.append((where, found["perclos"]["p95_error"]))
            alarm_rows.append((where, found["alarm_s"]["worst"]))
            rows.append(_row(label, found))
        tables.append(Table(f"minutes rendered from {name}", HEADS, tuple(rows)))
    names = ("cew", "mrl")
    tables.append(
        Table(
            "pairs of eyes that the network takes for what they are",
            ("set", "pairs", "open", "shut"),
            tuple(
                (name, *(str(figures[f"{name}-recognised_pairs"][key]) for key in ("n", "opened", "shut")))
                for name in names
            ),
        )
    )
    films = analyze_films(data, bar)
    figures["films"] = films
    tables.append(_film_table(films))
    targets = [
        Target("blinks missed or invented, mean of minutes", "%", "<=", BLINK_LIMIT).compare(blink_rows),
        Target("PERCLOS off in 19 of 20 minutes", "", "<=", PERCLOS_LIMIT).compare(share_rows),
        Target("alarm after the eyes close, worst", "s", "<=", ALARM_LIMIT_S).compare(alarm_rows),
        *_film_targets(films),
    ]
    return Measured(figures, tables, targets, NOTES)


NOTES = (
    "each person's eyes are classified by the int8 fold model that holds the person out",
    "the target for blinks is without lost frames; a row has the effect of 20 % lost frames at 10 fps",
    "if the network classifies closed eyes as open, all blinks and the alarm of that minute are missed",
    "cew has no person with both states: the closed eyes are those of the most similar person",
    "in a blink of 0.1 s the lid is more than half closed for 0.06 s: at 10 fps some blinks fall between two "
    "frames, at 5 fps most; below 5 fps no blink rate is reported",
)
HEADS = (
    "pictures", "blinks", "found", "error % (interval)", "PERCLOS", "error", "of 19 in 20", "bias",
    "microsleeps", "found", "alarm s", "worst", "in time", "awake called drowsy",
)  # fmt: skip


def pairs_with_models(
    eyes: PatchSet, directory: Path, *, most: int = COURSES
) -> list[tuple[EyePair, CropClassifier]]:
    """Return at most `most` pairs, each with the fold model that holds out its open and closed eyes.

    Raises `DataError` without fold models or pairs.
    """
    cards = [load_card(path.stem, directory=path.parent) for path in find_folds(MODEL, directory)]
    each = -(-most // max(1, len(cards)))
    found = []
    for card in cards:
        classifier = crop_classifier(open_classifier(card.name, task="eyes", directory=directory / "folds"))
        theirs = eyes.of_people(card.held_out)
        try:
            pairs = pair_eyes(theirs, most=each, seed=SEED)
        except DataError:
            continue  # some folds have no mrl person with both states
        found += [(pair, classifier) for pair in pairs]
    if not found:
        raise DataError(
            f"{eyes.name}: no fold model of {MODEL} holds its people out; convert the fold models"
        )
    return found[:most]


def crop_classifier(model: TfliteClassifier) -> CropClassifier:
    """Return the classifier of the crops of one face as on the device: the mean over visible eyes."""
    spec = model.card.spec(EyeSpec)

    def classify(crops: Sequence[Float32]) -> float | None:
        closed_p = []
        for crop in crops:
            closed, opened, hidden = model.classify(crop)
            if hidden < spec.hidden:
                closed_p.append(float(closed / (closed + opened)))
        return sum(closed_p) / len(closed_p) if closed_p else None

    return CropClassifier(spec.size, classify)


def recognised_pairs(pairs: Sequence[tuple[EyePair, CropClassifier]]) -> dict[str, float | int]:
    """Return the number of pairs whose closed and whose open eyes are classified correctly in most frames.

    With any other pair no minute can be right.
    """
    wink = LidMotion(2.0, (Closure(1.0, 1.1, 1.9, 2.0),))
    right = {"opened": 0, "shut": 0}
    for k, (pair, classifier) in enumerate(pairs):
        for state, t_s in (("opened", np.linspace(0.1, 0.9, 5)), ("shut", np.linspace(1.2, 1.8, 5))):
            random = np.random.default_rng([SEED, k])
            closed_p = [
                classifier.classify(crops)
                for crops in render(pair, wink, t_s, size=classifier.size, random=random)
            ]
            p = [value for value in closed_p if value is not None]
            right[state] += bool(p) and (float(np.median(p)) >= 0.5) == (state == "shut")
    return {"n": len(pairs), **right}


def simulate_minute(
    pair: EyePair,
    classifier: CropClassifier,
    *,
    hz: float,
    dropped: float,
    seed: int,
) -> Minute:
    """Render one minute with up to two microsleeps and return the result at its end."""
    random = np.random.default_rng([seed, 1])
    microsleeps = int(random.integers(0, 3))
    motion = draw_lid_motion(random, microsleeps=microsleeps)
    states = [state for _, state in run_monitor(pair, motion, classifier, hz=hz, dropped=dropped, seed=seed)]
    end = states[-1]
    blinks = None if end.blinks_per_min is None else end.blinks_per_min * end.seen_s / 60
    return Minute(
        pair.person,
        motion.blinks,
        blinks,
        motion.perclos,
        end.perclos if end.perclos is not None else float("nan"),
        len(motion.closures) - motion.blinks,
        end.microsleeps,
        frozenset(state.level for state in states),
    )


def run_monitor(
    pair: EyePair,
    motion: LidMotion,
    classifier: CropClassifier,
    *,
    hz: float,
    dropped: float,
    seed: int,
) -> list[tuple[float, FatigueState]]:
    """Run a new monitor with late and lost frames; return time and fatigue state of each frame."""
    random = np.random.default_rng([seed, 2])
    t_s = frame_times(motion.seconds, hz=hz, dropped=dropped, random=random)
    monitor = FatigueMonitor(FatigueSettings())
    states = []
    for now_s, crops in zip(t_s, render(pair, motion, t_s, size=classifier.size, random=random), strict=True):
        now_ns = round(float(now_s) * 1e9)
        monitor.add(FaceMeasurements(1, now_ns, classifier.classify(crops)))
        states.append((float(now_s), monitor.update(now_ns).room))
    return states


def frame_times(
    seconds: float, *, hz: float, dropped: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return times (n,) of camera frames: with random start and jitter, some lost."""
    t_s = np.arange(random.uniform(0, 1 / hz), seconds, 1 / hz)
    t_s = t_s + np.abs(random.normal(0, LATE_S, t_s.size)).clip(0, 0.4 / hz)
    return np.asarray(t_s[random.random(t_s.size) >= dropped])


def alarm_latency(
    pairs: Sequence[tuple[EyePair, CropClassifier]], *, hz: float, dropped: float
) -> dict[str, float]:
    """Return median and worst time from 80 % covered to the alarm, and the number in time."""
    delays = []
    for k, (pair, classifier) in enumerate(pairs):
        motion = draw_alarm_motion(np.random.default_rng([SEED, k]))
        start_s = motion.closures[-1].covered_s
        states = run_monitor(pair, motion, classifier, hz=hz, dropped=dropped, seed=SEED + k)
        alarms = [t_s for t_s, state in states if t_s > start_s and state.level in ALARMS]
        # A missing alarm counts as the whole closure.
        delays.append((alarms[0] if alarms else motion.seconds + 1) - start_s)
    return {
        "median": _round(np.median(delays)),
        "worst": _round(np.max(delays)),
        "in_time": sum(delay <= ALARM_LIMIT_S for delay in delays),
        "n": len(delays),
    }


def summary(minutes: Sequence[Minute]) -> dict[str, Any]:
    """Return the errors of blinks and PERCLOS, each with a 95 % bootstrap interval of the mean."""
    errors = np.array([m.blink_error for m in minutes if m.blink_error is not None])
    off = np.array([m.found_perclos - m.perclos for m in minutes])
    awake = [m for m in minutes if m.microsleeps == 0]
    return {
        "n": len(minutes),
        "blinks": {
            "rendered": sum(m.blinks for m in minutes),
            "found": None if errors.size == 0 else round(sum(m.found_blinks or 0 for m in minutes)),
            "mean_error": None if errors.size == 0 else _round(np.abs(errors).mean()),
            "interval_95": None if errors.size == 0 else _interval(np.abs(errors)),
        },
        "perclos": {
            "rendered": _round(np.mean([m.perclos for m in minutes])),
            "mean_error": _round(np.abs(off).mean()),
            "interval_95": _interval(np.abs(off)),
            "p95_error": _round(np.percentile(np.abs(off), 95)),
            "bias": _round(off.mean()),
        },
        "microsleeps": {
            "rendered": sum(m.microsleeps for m in minutes),
            "found": sum(m.found_microsleeps for m in minutes),
        },
        "awake": {"n": len(awake), "called_drowsy": sum(bool(m.levels & set(ALARMS)) for m in awake)},
    }


def analyze_films(data: Path, bar: Bar) -> dict[str, dict[str, Any]]:
    """Return the fatigue of each clip of faces and talking heads, as `analyze` reports it."""
    media = data / "media"
    paths = sorted(
        path
        for part in ("faces", "talking")
        for path in (media / part).glob("*")
        if path.suffix.lower() in (".avi", ".mp4", ".mpg")
    )
    if not paths:
        raise DataError(f"data set media: no clip in {media}; complete the data set")
    analyzer = Analyzer(Config(), modality="face")
    films = {}
    with bar("analysing clips") as progress:
        for k, path in enumerate(paths):
            (line,) = analyzer.analyze(path)
            films[f"{path.parent.name}/{path.name}"] = line["fatigue"]
            progress(k + 1, len(paths))
    return films


def _film_targets(films: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    yawning = [(name, float(f["yawns"])) for name, f in films.items() if "yawn" in name]
    others = [(name, float(f["yawns"])) for name, f in films.items() if "yawn" not in name]
    return [
        Target("yawns found where somebody yawns", "", ">=", 1).compare(yawning),
        Target("yawns found where nobody does", "", "<=", 0).compare(others),
    ]


def _film_table(films: Mapping[str, Mapping[str, Any]]) -> Table:
    keys = ("level", "perclos", "blinks_per_min", "microsleeps", "yawns", "nods", "seen_s")
    rows = tuple(
        (name, *("-" if f[key] is None else str(f[key]) for key in keys)) for name, f in films.items()
    )
    return Table("films of real faces, at the worst moment", ("film", *keys), rows)


def _row(label: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    blinks, share, alarm = found["blinks"], found["perclos"], found["alarm_s"]
    is_counted = blinks["mean_error"] is not None
    low, high = blinks["interval_95"] or (0.0, 0.0)
    return (
        label,
        str(blinks["rendered"]),
        str(blinks["found"]) if is_counted else "-",
        f"{100 * blinks['mean_error']:.1f} ({100 * low:.1f}..{100 * high:.1f})" if is_counted else "-",
        f"{share['rendered']:.3f}",
        f"{share['mean_error']:.3f}",
        f"{share['p95_error']:.3f}",
        f"{share['bias']:+.3f}",
        str(found["microsleeps"]["rendered"]),
        str(found["microsleeps"]["found"]),
        f"{alarm['median']:.2f}",
        f"{alarm['worst']:.2f}",
        f"{alarm['in_time']}/{alarm['n']}",
        f"{found['awake']['called_drowsy']}/{found['awake']['n']}",
    )


def _interval(values: NDArray[np.float64]) -> list[float]:
    """Return the 95 % percentile bootstrap interval (Efron 1979) of the mean over minutes."""
    random = np.random.default_rng(0)
    means = values[random.integers(0, values.size, (RESAMPLES, values.size))].mean(axis=1)
    return [_round(v) for v in np.percentile(means, [2.5, 97.5])]


def _round(value: Any) -> float:
    return round(float(value), 4)
