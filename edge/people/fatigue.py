"""Tells how tired people look: from lids, mouth and head over time to one level a person, and why.

Each sign gives points; 1 is tired, 2 is drowsy:

- PERCLOS over a minute: 1 at `perclos_tired`, 2 at `perclos_drowsy`, in proportion below and between. Their
  defaults are the limits of Wierwille et al. 1994, 0.075 (no longer awake) and 0.15 (drowsy), and about 0.05
  for the ordinary blinks, which were left out by hand there and are in here.
- A closure of 0.5 s, which is longer than blinks last (Schleicher et al. 2008, "Blinks and saccades as
  indicators of fatigue"): 1 each, at most 2.
- Yawns and sinking heads of the last five minutes: 0.5 each, at most 1 for each kind.
- Blinks half as long again as in this person's first minute (Caffier et al. 2003, "Experimental evaluation
  of eye-blink parameters as a drowsiness measure"): 0.5.
- The emotion, where it may be used: 0.1 times the probability of neutral and sadness, the two of little
  arousal (Russell 1980). So little that it decides only where the other signs have all but decided.

Eyes closed for `alarm_s` are drowsy and for `asleep_s` asleep at once, whatever the points (Euro NCAP 2023:
1 to 2 s are a microsleep, 3 s sleep). While the mouth is wide, in a yawn or a laugh, eyes are not judged. A
level rises at once and falls after `CALM_S` of less. `alert` must be shown: with eyes that are not seen, or
never blink, it is `uncertain`.

Pure: time comes in with the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
CALM_S = 10.0  # and for how long
WAKE_S = 1.0  # eyes open for so long are not asleep
REASON_POINTS = 0.5  # signs of less are not named
MOOD_POINTS = 0.1
LOW_AROUSAL = ("neutral", "sadness")
SLOW_BLINKS = 1.5  # times those of the baseline
TRUSTED_WINDOW = 1 / 3  # of which eyes must be seen before PERCLOS counts
BLIND_S = 2.0  # eyes not seen for so long are not visible
GONE_S = 2.5  # a face not seen for so long has left, as in the fusion of emotions


@dataclass(frozen=True, slots=True)
class FatigueState:
    """How tired one subject (`person-3`, or `room`: as the worst of them) looks, and what that rests on.

    `level` is one of `LEVELS`; `score` 0..1 has tired at 1/3, drowsy at 2/3. `reasons` are codes, the
    strongest first: eyes_closed, perclos, microsleeps, yawns, nods, slow_blinks, mood; of `uncertain`:
    eyes_not_visible, too_little_seen, no_blink. `closed_s` is how long the eyes are closed now. PERCLOS 0..1,
    blinks a minute, their mean duration and microsleeps are about the last `seen_s` of at most `window_s`,
    yawns and nods about five minutes; None is not known. `usual_*` are those of the first minute.
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
    """A subject went from one level to another."""

    previous: str
    state: FatigueState


@dataclass(frozen=True, slots=True)
class FatigueStates:
    """The room and everybody in it at one instant, and what changed since the last one."""

    room: FatigueState
    people: tuple[FatigueState, ...]
    changes: tuple[FatigueChange, ...]


class FatigueMonitor:
    """Follows everybody in view; call `observe` for every reading, then `update`."""

    def __init__(self, settings: FatigueSettings) -> None:
        self._settings = settings
        self._people: dict[int, _Person] = {}
        self._told: dict[str, str] = {}

    def add(self, reading: FaceMeasurements) -> None:
        """Take what eyes, mouth and head of one face do; what is older than the last is ignored."""
        person = self._people.get(reading.track)
        if person is None:
            person = self._people[reading.track] = _Person(self._settings, f"person-{reading.track}")
        person.add(reading)

    def forget(self) -> None:
        """Drop everybody: the camera was switched off."""
        self._people.clear()

    def update(self, now_ns: int, moods: Mapping[str, Mapping[str, float]] | None = None) -> FatigueStates:
        """Return the states at `now_ns`, which must not go backwards.

        `moods` has for each subject the probabilities of the emotions, where these may be used at all.
        """
        self._people = {
            track: person
            for track, person in sorted(self._people.items())
            if now_ns - person.seen_ns <= GONE_S * NS
        }
        people = tuple(
            person.state(now_ns, (moods or {}).get(person.subject, {})) for person in self._people.values()
        )
        room = _worst(people)
        return FatigueStates(room, people, tuple(self._changes((*people, room))))

    def _changes(self, states: Iterable[FatigueState]) -> Iterable[FatigueChange]:
        """Yield what is news: between `uncertain` and `absent` nothing is said about fatigue."""
        now = {state.subject: state for state in states}
        gone = [FatigueState(subject, ABSENT) for subject in self._told if subject not in now]
        for state in (*now.values(), *gone):
            previous = self._told.get(state.subject, ABSENT)
            if state.level != previous and {state.level, previous} != {UNCERTAIN, ABSENT}:
                yield FatigueChange(previous, state)
        self._told = {subject: state.level for subject, state in now.items()}


@dataclass(slots=True)
class _Person:
    """One face over time."""

    settings: FatigueSettings
    subject: str
    seen_ns: int = 0
    _level: str = ALERT
    _calm_ns: int | None = None  # since when the level may fall
    _lids: Eyelids = field(init=False)
    _yawns: Yawns = field(default_factory=Yawns)
    _nods: Nods = field(init=False)

    def __post_init__(self) -> None:
        self._lids = Eyelids(self.settings)
        self._nods = Nods(self.settings.baseline_s)

    def add(self, reading: FaceMeasurements) -> None:
        self.seen_ns = max(self.seen_ns, reading.t_ns)
        self._yawns.add(reading.t_ns, reading.mouth, reading.yawning)
        # Many close their eyes when they yawn or laugh: then they say nothing.
        if reading.closed is not None and not self._yawns.is_going_on:
            self._lids.add(reading.t_ns, reading.closed)
        if reading.pitch_deg is not None:
            self._nods.add(reading.t_ns, reading.pitch_deg)

    def state(self, now_ns: int, mood: Mapping[str, float]) -> FatigueState:
        lids = self._lids
        lids.expire(now_ns)
        signs = self._signs(now_ns)
        points = sum(signs.values())
        mooded = points + MOOD_POINTS * sum(mood.get(emotion, 0.0) for emotion in LOW_AROUSAL)
        self._advance(mooded, now_ns)
        reasons = [
            sign for sign, value in sorted(signs.items(), key=lambda s: -s[1]) if value >= REASON_POINTS
        ]
        if lids.closed_s >= self.settings.alarm_s:
            reasons.insert(0, "eyes_closed")
        if _level_of(mooded) != _level_of(points):
            reasons.append("mood")
        level = self._level
        if level == ALERT and (doubt := self._doubt(now_ns)):
            level, reasons = UNCERTAIN, [doubt]
        usual = lids.baseline
        return FatigueState(
            subject=self.subject,
            level=level,
            score=self._score(mooded),
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

    def _advance(self, points: float, now_ns: int) -> None:
        """Rise at once; fall one level at a time, each after `CALM_S` of points below it."""
        lids, level = self._lids, self._level
        wish = _level_of(points)
        if lids.closed_s >= self.settings.alarm_s:
            wish = (
                ASLEEP
                if lids.closed_s >= self.settings.asleep_s
                else max(wish, DROWSY, key=RANKS.__getitem__)
            )
        if RANKS[wish] >= RANKS[level]:
            self._level, self._calm_ns = wish, None
        elif level == ASLEEP:
            # Eyes that are not seen any more may still be closed.
            if lids.open_s >= WAKE_S:
                self._level, self._calm_ns = DROWSY, now_ns
        elif RANKS[_level_of(points + SLACK)] >= RANKS[level]:
            self._calm_ns = None
        elif self._calm_ns is None:
            self._calm_ns = now_ns
        elif now_ns - self._calm_ns >= CALM_S * NS:
            self._level, self._calm_ns = SIGNS[RANKS[level] - 1], now_ns

    def _doubt(self, now_ns: int) -> str:
        """Return why this person cannot be called alert; empty where nothing speaks against it."""
        lids = self._lids
        if self._yawns.is_going_on:
            return ""
        if lids.seen_ns is None or now_ns - lids.seen_ns > BLIND_S * NS:
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
    """Return the level for points; what a float loses in adding up is forgiven."""
    if points >= DROWSY_POINTS - 1e-9:
        return DROWSY
    return TIRED if points >= TIRED_POINTS - 1e-9 else ALERT


def _worst(people: Iterable[FatigueState]) -> FatigueState:
    """Return the room: whoever is worst off, under its name."""
    worst = max(people, key=lambda state: (RANKS[state.level], state.score), default=None)
    return FatigueState("room", ABSENT) if worst is None else replace(worst, subject="room")
