"""Everybody in view of one device: who speaks, what they feel, how tired they look, in that order.

The daemon and `analyze` share it. Pure: time is an argument; publishing is in `edge.delivery.announcer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.people.fatigue import FatigueMonitor, FatigueStates
from edge.people.fusion import EmotionChange, Fusion
from edge.people.pooling import Pool
from edge.people.speaker import Speaker, SpeakerTracker
from edge.settings import FatigueSettings, FusionSettings
from edge.values import FaceResult, Modality, SubjectState, measurements_of
from edge.voice.windows import VoiceResult


@dataclass(frozen=True, slots=True)
class Moment:
    """The scene at `t_ns`, and what changed since the last update.

    `room` is everybody fused, `people` each face in view, `voice` the voice alone. `changes` are those of
    emotions; `fatigue` has its own changes, and is None where fatigue is not watched.
    """

    t_ns: int
    room: SubjectState
    people: tuple[SubjectState, ...]
    voice: SubjectState
    speaker: Speaker
    fatigue: FatigueStates | None
    changes: tuple[EmotionChange, ...]


class Scene:
    """Collects the results of face and voice; `update` returns the state of everybody.

    `fatigue` None does not watch fatigue. `uses_emotions_for_fatigue` lets the emotion of a person add to the
    signs of fatigue, which a restricted context forbids. Not safe for several threads.
    """

    def __init__(
        self,
        fusion: FusionSettings,
        *,
        fatigue: FatigueSettings | None,
        pool: Pool | None = None,
        uses_emotions_for_fatigue: bool = True,
    ) -> None:
        self._fusion = Fusion(fusion, pool)
        self._speakers = SpeakerTracker()
        self._fatigue = None if fatigue is None else FatigueMonitor(fatigue)
        self._uses_emotions = uses_emotions_for_fatigue

    def add_faces(self, face_results: Sequence[FaceResult]) -> None:
        """Add the faces of one frame."""
        measurements = measurements_of(face_results)
        self._speakers.add_faces(measurements)
        if self._fatigue is not None:
            for face in measurements:
                self._fatigue.add(face)
        for face_result in face_results:
            self._fusion.add(face_result.prediction)

    def add_voice(self, voice_result: VoiceResult) -> None:
        """Add one window of audio, also one without speech."""
        self._speakers.add_window(voice_result.window)
        if voice_result.prediction is not None:
            self._fusion.add(voice_result.prediction)

    def forget(self, modality: Modality) -> None:
        """Drop everything from one modality: its device was switched off."""
        self._fusion.forget(modality)
        self._speakers.forget(modality)
        if modality is Modality.FACE and self._fatigue is not None:
            self._fatigue.forget()

    def update(self, now_ns: int) -> Moment:
        """Return the scene at `now_ns`, which must not go backwards.

        The speaker comes first, since fusion gives the voice to the speaker's face; fatigue comes last, since
        it may use the emotions.
        """
        speaker = self._speakers.speaker(now_ns)
        emotions = self._fusion.update(now_ns, speaker=speaker)
        fatigue = None
        if self._fatigue is not None:
            moods = (
                {person.subject: person.probabilities for person in emotions.people}
                if self._uses_emotions
                else None
            )
            fatigue = self._fatigue.update(now_ns, moods)
        return Moment(
            t_ns=now_ns,
            room=emotions.room,
            people=emotions.people,
            voice=self._fusion.voice_alone(emotions.room),
            speaker=speaker,
            fatigue=fatigue,
            changes=emotions.changes,
        )
