"""`emotion-models evaluate fatigue`: how well blinks, closed time and alarms are found, eyes to level.

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
MANY = 300  # of which only a moment is rendered
RATES_HZ = (3, 5, 10, 15, 30)
COUNTED_HZ = (10, 15, 30)  # where blinks are to be right
DROPPED = 0.2
LATE_S = 0.006  # timestamps and intervals of real cameras
SEED = 11
BLINK_LIMIT, PERCLOS_LIMIT, ALARM_LIMIT_S = 10.0, 0.03, 1.5


@dataclass(frozen=True, slots=True)
class CropClassifier:
    """Says as the device does how probable it is that eyes are closed, given their crops (size, size, 1)."""

    size: int
    read: Callable[[Sequence[Float32]], float | None]


@dataclass(frozen=True, slots=True)
class Minute:
    """One course as it was and as it was found; no blinks are found where there are too few pictures."""

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
        """Relative, below 0 where some were missed."""
        return None if self.found_blinks is None else self.found_blinks / max(1, self.blinks) - 1


def measure_fatigue(data: Path, directory: Path, bar: Bar) -> Measured:
    """Render and watch minutes of both sets at every rate, and watch the films of faces."""
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
                for k, (pair, reader) in enumerate(pairs):
                    minutes.append(simulate_minute(pair, reader, hz=hz, dropped=dropped, seed=SEED + k))
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
        Target("blinks missed or invented, mean of minutes", "%", "<=", BLINK_LIMIT).judge(blink_rows),
        Target("PERCLOS off in 19 of 20 minutes", "", "<=", PERCLOS_LIMIT).judge(share_rows),
        Target("alarm after the eyes close, worst", "s", "<=", ALARM_LIMIT_S).judge(alarm_rows),
        *_film_targets(films),
    ]
    return Measured(figures, tables, targets, NOTES)


NOTES = (
    "each person's eyes, open and shut, are judged by the fold model that never saw them, as int8",
    "blinks are judged where no frame is lost; what a fifth of lost frames costs at 10 fps stands in its row",
    "a pair of shut eyes that the network takes for open loses all blinks and the alarm of its minute",
    "cew has nobody with both states: the shut eyes are those of the person who looks most alike",
    "a blink of 0.1 s has its lid more than half down for 0.06 s: at 10 fps it falls between two pictures "
    "now and then, at 5 fps most of the time, so no rate is told below 5 fps",
)
HEADS = (
    "pictures", "blinks", "found", "error % (interval)", "PERCLOS", "error", "of 19 in 20", "bias",
    "microsleeps", "found", "alarm s", "worst", "in time", "awake called drowsy",
)  # fmt: skip


def pairs_with_models(
    eyes: PatchSet, directory: Path, *, most: int = COURSES
) -> list[tuple[EyePair, CropClassifier]]:
    """Return at most so many pairs, each with the fold model that saw neither its open nor its shut eyes.

    Raises `DataError` where there is no fold model or nobody to pair.
    """
    cards = [load_card(path.stem, directory=path.parent) for path in find_folds(MODEL, directory)]
    each = -(-most // max(1, len(cards)))
    found = []
    for card in cards:
        reader = crop_classifier(open_classifier(card.name, task="eyes", directory=directory / "folds"))
        theirs = eyes.of_people(card.held_out)
        try:
            pairs = pair_eyes(theirs, most=each, seed=SEED)
        except DataError:
            continue  # of mrl's people some folds have none with both states
        found += [(pair, reader) for pair in pairs]
    if not found:
        raise DataError(f"{eyes.name}: no fold model of {MODEL} holds anybody out; convert the fold models")
    return found[:most]


def crop_classifier(classifier: TfliteClassifier) -> CropClassifier:
    """Return what the device does with the crops of one face: the mean of the eyes that are not hidden."""
    spec = classifier.card.spec(EyeSpec)

    def read(crops: Sequence[Float32]) -> float | None:
        told = []
        for crop in crops:
            closed, opened, hidden = classifier.classify(crop)
            if hidden < spec.hidden:
                told.append(float(closed / (closed + opened)))
        return sum(told) / len(told) if told else None

    return CropClassifier(spec.size, read)


def recognised_pairs(pairs: Sequence[tuple[EyePair, CropClassifier]]) -> dict[str, float | int]:
    """Return for how many of n pairs shut eyes are taken for shut, and open ones for open, most of the time.

    Where they are not, no minute of that pair can be right; the minutes are of a few of these pairs only.
    """
    wink = LidMotion(2.0, (Closure(1.0, 1.1, 1.9, 2.0),))
    right = {"opened": 0, "shut": 0}
    for k, (pair, reader) in enumerate(pairs):
        for state, t_s in (("opened", np.linspace(0.1, 0.9, 5)), ("shut", np.linspace(1.2, 1.8, 5))):
            random = np.random.default_rng([SEED, k])
            told = [reader.read(crops) for crops in render(pair, wink, t_s, size=reader.size, random=random)]
            p = [value for value in told if value is not None]
            right[state] += bool(p) and (float(np.median(p)) >= 0.5) == (state == "shut")
    return {"n": len(pairs), **right}


def simulate_minute(
    pair: EyePair,
    reader: CropClassifier,
    *,
    hz: float,
    dropped: float,
    seed: int,
) -> Minute:
    """Render one minute with up to two microsleeps, and return what was found at its end."""
    random = np.random.default_rng([seed, 1])
    microsleeps = int(random.integers(0, 3))
    course = draw_lid_motion(random, microsleeps=microsleeps)
    states = [state for _, state in watch(pair, course, reader, hz=hz, dropped=dropped, seed=seed)]
    end = states[-1]
    blinks = None if end.blinks_per_min is None else end.blinks_per_min * end.seen_s / 60
    return Minute(
        pair.person,
        course.blinks,
        blinks,
        course.perclos,
        end.perclos if end.perclos is not None else float("nan"),
        len(course.closures) - course.blinks,
        end.microsleeps,
        frozenset(state.level for state in states),
    )


def watch(
    pair: EyePair,
    course: LidMotion,
    reader: CropClassifier,
    *,
    hz: float,
    dropped: float,
    seed: int,
) -> list[tuple[float, FatigueState]]:
    """Show a course to a new monitor, some frames late and some lost; return time and state of each frame."""
    random = np.random.default_rng([seed, 2])
    t_s = frame_times(course.seconds, hz=hz, dropped=dropped, random=random)
    monitor = FatigueMonitor(FatigueSettings())
    states = []
    for now_s, crops in zip(t_s, render(pair, course, t_s, size=reader.size, random=random), strict=True):
        now_ns = round(float(now_s) * 1e9)
        monitor.add(FaceMeasurements(1, now_ns, reader.read(crops)))
        states.append((float(now_s), monitor.update(now_ns).room))
    return states


def frame_times(
    seconds: float, *, hz: float, dropped: float, random: np.random.Generator
) -> NDArray[np.float64]:
    """Return when frames (n,) of a camera come: not quite evenly, beginning anywhere, some lost."""
    t_s = np.arange(random.uniform(0, 1 / hz), seconds, 1 / hz)
    t_s = t_s + np.abs(random.normal(0, LATE_S, t_s.size)).clip(0, 0.4 / hz)
    return np.asarray(t_s[random.random(t_s.size) >= dropped])


def alarm_latency(
    pairs: Sequence[tuple[EyePair, CropClassifier]], *, hz: float, dropped: float
) -> dict[str, float]:
    """Return median and worst seconds from 80 % covered to an alarm, and how many of n came in time."""
    delays = []
    for k, (pair, reader) in enumerate(pairs):
        course = draw_alarm_motion(np.random.default_rng([SEED, k]))
        start_s = course.closures[-1].covered_s
        states = watch(pair, course, reader, hz=hz, dropped=dropped, seed=SEED + k)
        alarms = [t_s for t_s, state in states if t_s > start_s and state.level in ALARMS]
        # Eyes that never raised one count as the whole closure.
        delays.append((alarms[0] if alarms else course.seconds + 1) - start_s)
    return {
        "median": _round(np.median(delays)),
        "worst": _round(np.max(delays)),
        "in_time": sum(delay <= ALARM_LIMIT_S for delay in delays),
        "n": len(delays),
    }


def summary(minutes: Sequence[Minute]) -> dict[str, Any]:
    """Return errors of blinks and PERCLOS over minutes, each with a 95 % bootstrap interval of its mean."""
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
    """Return level and numbers of each film of faces and of talking heads, as `analyze` gives them."""
    media = data / "media"
    paths = sorted(
        path
        for part in ("faces", "talking")
        for path in (media / part).glob("*")
        if path.suffix.lower() in (".avi", ".mp4", ".mpg")
    )
    if not paths:
        raise DataError(f"data set media: no film in {media}; complete it")
    analyzer = Analyzer(Config(), modality="face")
    films = {}
    with bar("watching films") as progress:
        for k, path in enumerate(paths):
            (line,) = analyzer.analyze(path)
            films[f"{path.parent.name}/{path.name}"] = line["fatigue"]
            progress(k + 1, len(paths))
    return films


def _film_targets(films: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    yawning = [(name, float(f["yawns"])) for name, f in films.items() if "yawn" in name]
    others = [(name, float(f["yawns"])) for name, f in films.items() if "yawn" not in name]
    return [
        Target("yawns found where somebody yawns", "", ">=", 1).judge(yawning),
        Target("yawns found where nobody does", "", "<=", 0).judge(others),
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
