"""Fuses the predictions of face and voice into one state for each person and for the room.

Late fusion of calibrated probabilities by one of the methods in `edge.people.pooling`. A prediction with a
poor input counts less, and so does an older one. `edge.people.decision` turns the result into a label.
Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge.people.decision import Hysteresis, label_of
from edge.people.pooling import ModalityPrediction, ModalityPredictions, Pool, rule_pool
from edge.people.speaker import Speaker
from edge.settings import FusionSettings
from edge.values import (
    ABSENT,
    LABELS,
    Evidence,
    Float32,
    Modality,
    Prediction,
    SubjectState,
    probabilities,
)

ROOM = "room"


@dataclass(frozen=True, slots=True)
class EmotionChange:
    """One subject changed its emotion; from or to `absent` means presence gained or lost."""

    previous: str
    state: SubjectState


@dataclass(frozen=True, slots=True)
class EmotionStates:
    """The states of the room and of each person at one instant, and the changes since the last update."""

    room: SubjectState
    people: tuple[SubjectState, ...]
    changes: tuple[EmotionChange, ...]


@dataclass(slots=True)
class _Subject:
    """The memory of one person or of the room."""

    decision: Hysteresis
    p: Float32 | None = None  # (7,) smoothed
    t_ns: int = 0


class Fusion:
    """Keeps the newest predictions and turns them into states; call `add`, then `update`.

    `pool` combines the predictions of two modalities (`edge.people.pooling.open_pool` opens it); without one,
    `rule_pool` of the settings does.
    """

    def __init__(self, settings: FusionSettings, pool: Pool | None = None) -> None:
        self._settings = settings
        self._pool = pool or rule_pool(settings)
        self._faces: dict[int, Prediction] = {}
        self._voice: Prediction | None = None
        self._subjects: dict[str, _Subject] = {ROOM: self._new_subject()}

    def add(self, prediction: Prediction) -> None:
        """Keep a prediction of one face or of the voice; ignore it if a newer one is known."""
        if prediction.modality is Modality.VOICE:
            if self._voice is None or prediction.t_ns >= self._voice.t_ns:
                self._voice = prediction
            return
        track = prediction.track or 0
        known = self._faces.get(track)
        if known is None or prediction.t_ns >= known.t_ns:
            self._faces[track] = prediction

    def update(self, now_ns: int, *, speaker: Speaker | None = None) -> EmotionStates:
        """Return the states at `now_ns`, which must not go backwards.

        The voice counts for the room and for the face `speaker.owner`; without a `speaker`, for the only face
        in view. Predictions older than `max_skew_s` are dropped; a subject without any is absent.
        """
        self._expire(now_ns)
        owner = _only(self._faces) if speaker is None else speaker.owner
        people = {
            f"person-{track}": _pool_inputs(
                [face], self._voice if track == owner else None, self._settings, now_ns
            )
            for track, face in sorted(self._faces.items())
        }
        room = _pool_inputs(self._faces.values(), self._voice, self._settings, now_ns)
        changes: list[EmotionChange] = []
        for name in [name for name in self._subjects if name not in people and name != ROOM]:
            self._update_subject(name, {}, now_ns, changes)
            del self._subjects[name]
        states = [self._update_subject(name, inputs, now_ns, changes) for name, inputs in people.items()]
        room_state = self._update_subject(ROOM, room, now_ns, changes)
        return EmotionStates(room_state, tuple(states), tuple(changes))

    def forget(self, modality: Modality) -> None:
        """Drop the predictions of one modality: its device was switched off."""
        if modality is Modality.VOICE:
            self._voice = None
        else:
            self._faces.clear()

    def voice_alone(self, room: SubjectState) -> SubjectState:
        """Return the state by the voice alone, with the same threshold; `absent` without speech.

        `room` is the state of the room that `update` has just returned.
        """
        if room.voice is None or self._voice is None:
            return SubjectState(ROOM, ABSENT, 0.0, {}, None, room.voice, room.t_ns)
        emotion = label_of(self._voice.p, enter=self._settings.enter)
        return SubjectState(
            subject=ROOM,
            emotion=emotion,
            confidence=_confidence(emotion, self._voice.p),
            probabilities=room.voice.probabilities,
            face=None,
            voice=room.voice,
            t_ns=room.t_ns,
        )

    def _new_subject(self) -> _Subject:
        settings = self._settings
        return _Subject(Hysteresis(settings.enter, settings.exit, settings.min_dwell_s))

    def _expire(self, now_ns: int) -> None:
        oldest_ns = now_ns - int(self._settings.max_skew_s * 1e9)
        self._faces = {track: face for track, face in self._faces.items() if face.t_ns >= oldest_ns}
        if self._voice is not None and self._voice.t_ns < oldest_ns:
            self._voice = None

    def _update_subject(
        self, name: str, inputs: ModalityPredictions, now_ns: int, changes: list[EmotionChange]
    ) -> SubjectState:
        """Return the state of one subject; append to `changes` if its emotion is new."""
        subject = self._subjects.get(name)
        if subject is None:
            subject = self._subjects[name] = self._new_subject()
        previous = subject.decision.label
        evidence: dict[Modality, Evidence] = {}
        if inputs:
            p, shares = self._pool(inputs)
            subject.p = self._smooth(subject, p, now_ns)
            subject.decision.update(subject.p, now_ns)
            evidence = {
                m: Evidence(probabilities(o.p), round(o.reliability, 4), round(shares[m], 4))
                for m, o in inputs.items()
            }
        else:
            subject.p = None
            subject.decision.clear()
        emotion = subject.decision.label
        state = SubjectState(
            subject=name,
            emotion=emotion,
            confidence=_confidence(emotion, subject.p),
            probabilities=probabilities(subject.p) if subject.p is not None else {},
            face=evidence.get(Modality.FACE),
            voice=evidence.get(Modality.VOICE),
            t_ns=now_ns,
        )
        if emotion != previous:
            changes.append(EmotionChange(previous, state))
        return state

    def _smooth(self, subject: _Subject, p: Float32, now_ns: int) -> Float32:
        """Return the exponential moving average of time constant `ema_s`, for any spacing of updates."""
        before, dt_s = subject.p, (now_ns - subject.t_ns) / 1e9
        subject.t_ns = now_ns
        if before is None or not self._settings.ema_s:
            return p
        keep = float(np.exp(-max(0.0, dt_s) / self._settings.ema_s))
        return (keep * before + (1 - keep) * p).astype(np.float32)


def fuse_once(
    face: Iterable[Prediction],
    voice: Prediction | None,
    settings: FusionSettings,
    pool: Pool | None = None,
) -> tuple[str, float, dict[str, float]]:
    """Fuse the predictions of a still or a whole file: emotion, confidence, probabilities.

    There is no memory, and the age of a prediction does not count. `pool` is as in `Fusion`.
    """
    predictions = [*face, *([voice] if voice is not None else [])]
    if not predictions:
        return ABSENT, 0.0, {}
    aligned = [replace(prediction, t_ns=0) for prediction in predictions]
    faces = [prediction for prediction in aligned if prediction.modality is Modality.FACE]
    voices = [prediction for prediction in aligned if prediction.modality is Modality.VOICE]
    p, _ = (pool or rule_pool(settings))(_pool_inputs(faces, voices[0] if voices else None, settings, 0))
    emotion = label_of(p, enter=settings.enter)
    return emotion, _confidence(emotion, p), probabilities(p)


def _only(faces: Mapping[int, Prediction]) -> int | None:
    return next(iter(faces)) if len(faces) == 1 else None


def _pool_inputs(
    faces: Iterable[Prediction], voice: Prediction | None, settings: FusionSettings, now_ns: int
) -> ModalityPredictions:
    """Return the input of each modality present; several faces are averaged by reliability."""
    result: dict[Modality, ModalityPrediction] = {}
    if each := [_pool_input(face, settings, now_ns) for face in faces]:
        r = np.array([face.reliability for face in each])
        p = np.average([face.p for face in each], axis=0, weights=np.maximum(r, 1e-6))
        result[Modality.FACE] = replace(each[int(r.argmax())], p=p.astype(np.float32))
    if voice is not None:
        result[Modality.VOICE] = _pool_input(voice, settings, now_ns)
    return result


def _pool_input(prediction: Prediction, settings: FusionSettings, now_ns: int) -> ModalityPrediction:
    age_s = max(0, now_ns - prediction.t_ns) / 1e9
    return ModalityPrediction(prediction.p, prediction.quality, 0.5 ** (age_s / settings.half_life_s))


def _confidence(emotion: str, p: Float32 | None) -> float:
    """Return the probability of the emotion, or of the most probable one while uncertain."""
    if p is None:
        return 0.0
    value = p[LABELS.index(emotion)] if emotion in LABELS else p.max()
    return round(float(value), 4)
