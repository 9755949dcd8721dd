"""Turns measurements of eyes, mouth and head over time into a fatigue level for each person, with reasons.

Each sign gives points; 1 is tired, 2 is drowsy:

- PERCLOS over a minute: 1 at `perclos_tired`, 2 at `perclos_drowsy`, in proportion below and between. The
  defaults are the limits of Wierwille et al. 1994, 0.075 (no longer awake) and 0.15 (drowsy), plus about 0.05
  for ordinary blinks, which were removed by hand there and count here.
- A closure of 0.5 s or more, which is longer than a blink (Schleicher et al. 2008, "Blinks and saccades as
  indicators of fatigue"): 1 each, at most 2.
- Yawns and nods of the last five minutes: 0.5 each, at most 1 for each kind.
- Blinks 1.5 times as long as in the first minute of this person (Caffier et al. 2003, "Experimental
  evaluation of eye-blink parameters as a drowsiness measure"): 0.5.
- The emotion, where it may be used: 0.1 times the probability of neutral and sadness, the two of low arousal
  (Russell 1980). It is so small that it matters only close to a threshold.

Eyes closed for `alarm_s` are drowsy and for `asleep_s` asleep at once, whatever the points (Euro NCAP 2023:
1 to 2 s are a microsleep, 3 s sleep). While the mouth is wide open, in a yawn or a laugh, the eyes do not
count. A level rises at once and falls after `CALM_S` of fewer points. `alert` needs evidence: if the eyes are
not visible or never blink, the level is `uncertain`.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from edge.people.eyelids import ENOUGH_S, NS, Eyelids
from edge.people.gestures import Nods, Yawns
from edge.settings import FatigueSettings
from edge.values import ABSENT, UNCERTAIN, FaceMeasurements

ALERT, TIRED, DROWSY, ASLEEP = SIGNS = ("alert", "tired", "drowsy", "asleep")
LEVELS = (*SIGNS, UNCERTAIN, ABSENT)
ALARMS = (DROWSY, ASLEEP)
RANKS = {ABSENT: -2, UNCERTAIN: -1} | {level: rank for rank, level in enumerate(SIGNS)}

TIRED_POINTS, DROWSY_POINTS = 1.0, 2.0
SLACK = 0.2  # points below a threshold before a level may fall
CALM_S = 10.0  # how long the points must stay there
WAKE_S = 1.0  # eyes open for this long are not asleep
REASON_POINTS = 0.5  # a sign with fewer points is not a reason
MOOD_POINTS = 0.1
LOW_AROUSAL = ("neutral", "sadness")
SLOW_BLINKS = 1.5  # times those of the baseline
TRUSTED_WINDOW = 1 / 3  # share of the window in which the eyes must be visible before PERCLOS counts
BLIND_S = 2.0  # eyes without a measurement for this long are not visible
GONE_S = 2.5  # a face without a measurement for this long has left, as `fusion.max_skew_s` for emotions


@dataclass(frozen=True, slots=True)
class FatigueState:
    """The fatigue of one subject, with its evidence; `room` is the most tired person.

    `level` is one of `LEVELS`; `score` is 0..1, tired from 1/3, drowsy from 2/3. `reasons` are codes, the
    strongest first: eyes_closed, perclos, microsleeps, yawns, nods, slow_blinks, mood; for `uncertain`:
    eyes_not_visible, too_little_seen, no_blink. `closed_s` is how long the eyes are closed now. PERCLOS 0..1,
    blinks a minute, their mean duration and microsleeps cover the visible `seen_s` of the last `window_s`,
    yawns and nods the last five minutes; None is unknown. `usual_*` are the values of the first minute.
    """

    subject: str
    level: str
    score: float = 0.0
    reasons: tuple[str, ...] = ()
    closed_s: float = 0.0
    perclos: float | None = None
    blinks_per_min: float | None = None
    blink_s: float | None = None
    microsleeps: int = 0
    yawns: int = 0
    nods: int = 0
    seen_s: float = 0.0
    usual_blinks_per_min: float | None = None
    usual_blink_s: float | None = None


@dataclass(frozen=True, slots=True)
class FatigueChange:
    """One subject changed its level."""

    previous: str
    state: FatigueState


@dataclass(frozen=True, slots=True)
class FatigueStates:
    """The states of the room and of each person at one instant, and the changes since the last update."""

    room: FatigueState
    people: tuple[FatigueState, ...]
    changes: tuple[FatigueChange, ...]


class FatigueMonitor:
    """Estimates the fatigue of everybody in view; call `add` for all measurements, then `update`."""

    def __init__(self, settings: FatigueSettings) -> None:
        self._settings = settings
        self._people: dict[int, _Person] = {}
        self._levels: dict[str, str] = {}  # by subject, at the last update

    def add(self, measurements: FaceMeasurements) -> None:
        """Add the measurements of one face in one frame; ignore them if newer ones are known."""
        track = measurements.track
        person = self._people.get(track)
        if person is None:
            person = self._people[track] = _Person(self._settings, f"person-{track}")
        person.add(measurements)

    def forget(self) -> None:
        """Drop everybody: the camera was switched off."""
        self._people.clear()

    def update(self, now_ns: int, emotions: Mapping[str, Mapping[str, float]] | None = None) -> FatigueStates:
        """Return the states at `now_ns`, which must not go backwards.

        `emotions` are the probabilities of the emotions by subject; None where they may not be used.
        """
        self._people = {
            track: person
            for track, person in sorted(self._people.items())
            if now_ns - person.measured_ns <= GONE_S * NS
        }
        people = tuple(
            person.state(now_ns, (emotions or {}).get(person.subject, {})) for person in self._people.values()
        )
        room = _most_tired(people)
        return FatigueStates(room, people, tuple(self._changes((*people, room))))

    def _changes(self, states: Iterable[FatigueState]) -> Iterator[FatigueChange]:
        """Yield the changes of level; between `uncertain` and `absent` nothing is known about fatigue."""
        now = {state.subject: state for state in states}
        gone = [FatigueState(subject, ABSENT) for subject in self._levels if subject not in now]
        for state in (*now.values(), *gone):
            previous = self._levels.get(state.subject, ABSENT)
            if state.level != previous and {state.level, previous} != {UNCERTAIN, ABSENT}:
                yield FatigueChange(previous, state)
        self._levels = {subject: state.level for subject, state in now.items()}


@dataclass(slots=True)
class _Person:
    """The signs and the level of one person over time."""

    settings: FatigueSettings
    subject: str
    measured_ns: int = 0  # time of the newest measurements
    _level: str = ALERT
    _calm_ns: int | None = None  # since when the points are low enough for a lower level
    _lids: Eyelids = field(init=False)
    _yawns: Yawns = field(default_factory=Yawns)
    _nods: Nods = field(init=False)

    def __post_init__(self) -> None:
        self._lids = Eyelids(self.settings)
        self._nods = Nods(self.settings.baseline_s)

    def add(self, measurements: FaceMeasurements) -> None:
        self.measured_ns = max(self.measured_ns, measurements.t_ns)
        self._yawns.add(measurements.t_ns, measurements.mouth, measurements.yawning)
        # Many people close their eyes when they yawn or laugh.
        if measurements.closed is not None and not self._yawns.is_going_on:
            self._lids.add(measurements.t_ns, measurements.closed)
        if measurements.pitch_deg is not None:
            self._nods.add(measurements.t_ns, measurements.pitch_deg)

    def state(self, now_ns: int, emotions: Mapping[str, float]) -> FatigueState:
        lids = self._lids
        lids.expire(now_ns)
        signs = self._signs(now_ns)
        points = sum(signs.values())
        all_points = points + MOOD_POINTS * sum(emotions.get(emotion, 0.0) for emotion in LOW_AROUSAL)
        self._update_level(all_points, now_ns)
        reasons = [
            sign for sign, value in sorted(signs.items(), key=lambda s: -s[1]) if value >= REASON_POINTS
        ]
        if lids.closed_s >= self.settings.alarm_s:
            reasons.insert(0, "eyes_closed")
        if _level_of(all_points) != _level_of(points):
            reasons.append("mood")
        level = self._level
        if level == ALERT and (doubt := self._missing_evidence(now_ns)):
            level, reasons = UNCERTAIN, [doubt]
        usual = lids.baseline
        return FatigueState(
            subject=self.subject,
            level=level,
            score=self._score(all_points),
            reasons=() if level == ALERT else tuple(reasons),
            closed_s=lids.closed_s,
            perclos=lids.perclos,
            blinks_per_min=lids.blinks_per_min,
            blink_s=lids.blink_s,
            microsleeps=lids.microsleeps,
            yawns=self._yawns.recent(now_ns),
            nods=self._nods.recent(now_ns),
            seen_s=lids.seen_s,
            usual_blinks_per_min=usual.blinks_per_min if usual else None,
            usual_blink_s=usual.blink_s if usual else None,
        )

    def _signs(self, now_ns: int) -> dict[str, float]:
        """Return the points of each sign."""
        lids, settings = self._lids, self.settings
        slow = 0.0
        if lids.baseline is not None and lids.baseline.blink_s is not None and lids.blink_s is not None:
            slow = 0.5 * (lids.blink_s >= SLOW_BLINKS * lids.baseline.blink_s)
        is_trusted = lids.seen_s >= TRUSTED_WINDOW * settings.window_s
        return {
            "perclos": _perclos_points(lids.perclos or 0.0, settings) if is_trusted else 0.0,
            "microsleeps": min(2.0, lids.microsleeps),
            "yawns": min(1.0, 0.5 * self._yawns.recent(now_ns)),
            "nods": min(1.0, 0.5 * self._nods.recent(now_ns)),
            "slow_blinks": slow,
        }

    def _update_level(self, points: float, now_ns: int) -> None:
        """Raise the level at once; lower it one at a time, each after `CALM_S` of points below it."""
        lids, level = self._lids, self._level
        wanted = _level_of(points)
        if lids.closed_s >= self.settings.asleep_s:
            wanted = ASLEEP
        elif lids.closed_s >= self.settings.alarm_s:
            wanted = DROWSY
        if RANKS[wanted] >= RANKS[level]:
            self._level, self._calm_ns = wanted, None
        elif level == ASLEEP:
            # Eyes that are no longer visible may still be closed.
            if lids.open_s >= WAKE_S:
                self._level, self._calm_ns = DROWSY, now_ns
        elif RANKS[_level_of(points + SLACK)] >= RANKS[level]:
            self._calm_ns = None
        elif self._calm_ns is None:
            self._calm_ns = now_ns
        elif now_ns - self._calm_ns >= CALM_S * NS:
            self._level, self._calm_ns = SIGNS[RANKS[level] - 1], now_ns

    def _missing_evidence(self, now_ns: int) -> str:
        """Return which evidence for `alert` is missing, as a reason code; empty if there is enough."""
        lids = self._lids
        if self._yawns.is_going_on:
            return ""
        if lids.measured_ns is None or now_ns - lids.measured_ns > BLIND_S * NS:
            return "eyes_not_visible"
        if lids.seen_s < ENOUGH_S:
            return "too_little_seen"
        return "" if lids.is_lifelike else "no_blink"

    def _score(self, points: float) -> float:
        if self._level == ASLEEP:
            return 1.0
        at_least = DROWSY_POINTS if self._lids.closed_s >= self.settings.alarm_s else 0.0
        return min(1.0, max(points, at_least) / 3)


def _perclos_points(perclos: float, settings: FatigueSettings) -> float:
    tired, drowsy = settings.perclos_tired, settings.perclos_drowsy
    if perclos < tired:
        return perclos / tired
    return min(2.0, 1 + (perclos - tired) / (drowsy - tired))


def _level_of(points: float) -> str:
    """Return the level for points, with a tolerance for the rounding of sums."""
    if points >= DROWSY_POINTS - 1e-9:
        return DROWSY
    return TIRED if points >= TIRED_POINTS - 1e-9 else ALERT


def _most_tired(people: Iterable[FatigueState]) -> FatigueState:
    """Return the state of the most tired person as that of the room; absent without people."""
    worst = max(people, key=lambda state: (RANKS[state.level], state.score), default=None)
    return FatigueState("room", ABSENT) if worst is None else replace(worst, subject="room")
