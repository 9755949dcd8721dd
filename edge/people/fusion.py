"""Makes one opinion out of a face's and a voice's, and decides when it has changed.

Late fusion of calibrated probabilities by one of the ways in `edge.people.pooling`, in all of which a poor or
old opinion counts less. Pure: time comes in with the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edge.people.pooling import Opinion, Opinions, Pool, rule_pool
from edge.people.speaker import Speaker
from edge.settings import FusionSettings
from edge.values import (
    ABSENT,
    LABELS,
    UNCERTAIN,
    Evidence,
    Float32,
    Modality,
    Prediction,
    SubjectState,
    probabilities,
)

ROOM = "room"


@dataclass(frozen=True, slots=True)
class Change:
    """A subject went from one emotion to another; `absent` on either side is presence lost or gained."""

    previous: str
    state: SubjectState


@dataclass(frozen=True, slots=True)
class Fused:
    """The room and everybody in it at one instant, and what changed since the last one."""

    room: SubjectState
    people: tuple[SubjectState, ...]
    changes: tuple[Change, ...]


@dataclass(slots=True)
class _Subject:
    """What is remembered of one person, or of the room."""

    emotion: str = ABSENT
    p: Float32 | None = None  # (7,) smoothed
    t_ns: int = 0
    candidate: str = ""
    candidate_ns: int = 0


@dataclass(slots=True)
class Fusion:
    """Keeps the newest opinions and turns them into states; call `observe`, then `update`.

    `pool` makes one of two opinions, `edge.people.pooling.open_pool` opens it; without it `rule_pool` does.
    """

    settings: FusionSettings
    pool: Pool | None = None
    _faces: dict[int, Prediction] = field(default_factory=dict)
    _voice: Prediction | None = None
    _subjects: dict[str, _Subject] = field(default_factory=lambda: {ROOM: _Subject()})

    def add(self, prediction: Prediction) -> None:
        """Take the newest opinion of a face or of the voice; one older than what is known is ignored."""
        if prediction.modality is Modality.VOICE:
            if self._voice is None or prediction.t_ns >= self._voice.t_ns:
                self._voice = prediction
            return
        track = prediction.track or 0
        known = self._faces.get(track)
        if known is None or prediction.t_ns >= known.t_ns:
            self._faces[track] = prediction

    def update(self, now_ns: int, *, speaker: Speaker | None = None) -> Fused:
        """Return the states at `now_ns`, which must not go backwards.

        The voice belongs to the room, and to the face that `speaker.owner` names. Where nobody looked who
        speaks, it belongs to the only face. Opinions older than `max_skew_s` are dropped; a subject that has
        none left is absent.
        """
        self._expire(now_ns)
        owner = _only(self._faces) if speaker is None else speaker.owner
        people = {
            f"person-{track}": _opinions(
                [face], self._voice if track == owner else None, self.settings, now_ns
            )
            for track, face in sorted(self._faces.items())
        }
        room = _opinions(self._faces.values(), self._voice, self.settings, now_ns)
        changes: list[Change] = []
        for name in [name for name in self._subjects if name not in people and name != ROOM]:
            self._advance(name, {}, now_ns, changes)
            del self._subjects[name]
        states = [self._advance(name, opinions, now_ns, changes) for name, opinions in people.items()]
        room_state = self._advance(ROOM, room, now_ns, changes)
        return Fused(room_state, tuple(states), tuple(changes))

    def forget(self, modality: Modality) -> None:
        """Drop what one modality said: its device was switched off."""
        if modality is Modality.VOICE:
            self._voice = None
        else:
            self._faces.clear()

    def voice_alone(self, room: SubjectState) -> SubjectState:
        """Return what the voice says by itself, by the same threshold; `absent` while nobody speaks."""
        p = None if room.voice is None or self._voice is None else self._voice.p
        emotion = ABSENT
        if p is not None:
            top = int(np.argmax(p))
            emotion = LABELS[top] if p[top] >= self.settings.enter else UNCERTAIN
        return SubjectState(
            subject=ROOM,
            emotion=emotion,
            confidence=_confidence(emotion, p),
            probabilities=probabilities(p) if p is not None else {},
            face=None,
            voice=room.voice,
            t_ns=room.t_ns,
        )

    def _expire(self, now_ns: int) -> None:
        oldest_ns = now_ns - int(self.settings.max_skew_s * 1e9)
        self._faces = {track: face for track, face in self._faces.items() if face.t_ns >= oldest_ns}
        if self._voice is not None and self._voice.t_ns < oldest_ns:
            self._voice = None

    def _advance(
        self,
        name: str,
        opinions: Opinions,
        now_ns: int,
        changes: list[Change],
    ) -> SubjectState:
        subject = self._subjects.setdefault(name, _Subject())
        previous = subject.emotion
        evidence: dict[Modality, Evidence] = {}
        if opinions:
            p, shares = (self.pool or rule_pool(self.settings))(opinions)
            subject.p = self._smooth(subject, p, now_ns)
            subject.emotion = self._decide(subject, subject.p, now_ns)
            evidence = {
                m: Evidence(probabilities(o.p), round(o.reliability, 4), round(shares[m], 4))
                for m, o in opinions.items()
            }
        else:
            subject.emotion, subject.p, subject.candidate = ABSENT, None, ""
        state = SubjectState(
            subject=name,
            emotion=subject.emotion,
            confidence=_confidence(subject.emotion, subject.p),
            probabilities=probabilities(subject.p) if subject.p is not None else {},
            face=evidence.get(Modality.FACE),
            voice=evidence.get(Modality.VOICE),
            t_ns=now_ns,
        )
        if subject.emotion != previous:
            changes.append(Change(previous, state))
        return state

    def _smooth(self, subject: _Subject, p: Float32, now_ns: int) -> Float32:
        """Exponential moving average with time constant `ema_s`, right for any spacing of updates."""
        before, dt_s = subject.p, (now_ns - subject.t_ns) / 1e9
        subject.t_ns = now_ns
        if before is None or not self.settings.ema_s:
            return p
        keep = float(np.exp(-max(0.0, dt_s) / self.settings.ema_s))
        return (keep * before + (1 - keep) * p).astype(np.float32)

    def _decide(self, subject: _Subject, p: Float32, now_ns: int) -> str:
        """Hysteresis: enter a class above `enter`, leave it below `exit`, and only after `min_dwell_s`."""
        top = int(np.argmax(p))
        wish = subject.emotion if subject.emotion != ABSENT else UNCERTAIN
        if p[top] >= self.settings.enter:
            wish = LABELS[top]
        elif wish in LABELS and p[LABELS.index(wish)] < self.settings.exit:
            wish = UNCERTAIN
        if wish == subject.emotion:
            subject.candidate = ""
            return subject.emotion
        if subject.emotion == ABSENT:
            # Somebody is there from the first moment; what they feel must still prove itself.
            subject.candidate, subject.candidate_ns = wish, now_ns
            return UNCERTAIN if self.settings.min_dwell_s else wish
        if wish != subject.candidate:
            subject.candidate, subject.candidate_ns = wish, now_ns
        if now_ns - subject.candidate_ns < int(self.settings.min_dwell_s * 1e9):
            return subject.emotion
        subject.candidate = ""
        return wish


def fuse_once(
    face: Iterable[Prediction],
    voice: Prediction | None,
    settings: FusionSettings,
    pool: Pool | None = None,
) -> tuple[str, float, dict[str, float]]:
    """Fuse opinions of one instant, without memory: emotion, confidence, probabilities.

    For stills and whole files; ages do not count. `pool` is that of `Fusion`.
    """
    predictions = [*face, *([voice] if voice is not None else [])]
    if not predictions:
        return ABSENT, 0.0, {}
    aligned = [replace(prediction, t_ns=0) for prediction in predictions]
    faces = [prediction for prediction in aligned if prediction.modality is Modality.FACE]
    voices = [prediction for prediction in aligned if prediction.modality is Modality.VOICE]
    p, _ = (pool or rule_pool(settings))(_opinions(faces, voices[0] if voices else None, settings, 0))
    top = int(np.argmax(p))
    emotion = LABELS[top] if p[top] >= settings.enter else UNCERTAIN
    return emotion, round(float(p[top]), 4), probabilities(p)


def _only(faces: Mapping[int, Prediction]) -> int | None:
    return next(iter(faces)) if len(faces) == 1 else None


def _opinions(
    faces: Iterable[Prediction], voice: Prediction | None, settings: FusionSettings, now_ns: int
) -> Opinions:
    """Return the opinion of each modality present; several faces are averaged by reliability."""
    result: dict[Modality, Opinion] = {}
    if seen := [_opinion(face, settings, now_ns) for face in faces]:
        r = np.array([opinion.reliability for opinion in seen])
        p = np.average([opinion.p for opinion in seen], axis=0, weights=np.maximum(r, 1e-6))
        result[Modality.FACE] = replace(seen[int(r.argmax())], p=p.astype(np.float32))
    if voice is not None:
        result[Modality.VOICE] = _opinion(voice, settings, now_ns)
    return result


def _opinion(prediction: Prediction, settings: FusionSettings, now_ns: int) -> Opinion:
    age_s = max(0, now_ns - prediction.t_ns) / 1e9
    return Opinion(prediction.p, prediction.quality, 0.5 ** (age_s / settings.half_life_s))


def _confidence(emotion: str, p: Float32 | None) -> float:
    """Return the probability of the emotion, or of the likeliest one while uncertain."""
    if p is None:
        return 0.0
    value = p[LABELS.index(emotion)] if emotion in LABELS else p.max()
    return round(float(value), 4)
