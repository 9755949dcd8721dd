"""Predictions of face and voice are fused, and a change counts only when it lasts."""

from __future__ import annotations

import numpy as np
import pytest

from edge.people.fusion import Fusion, fuse_once
from edge.people.pooling import ModalityPredictions
from edge.people.speaker import Speaker
from edge.settings import FusionSettings
from edge.values import LABELS, Float32, Modality, Prediction

S = 1_000_000_000
QUICK = FusionSettings(ema_s=0.0, min_dwell_s=1.0, enter=0.5, exit=0.4, max_skew_s=2.0)


def prediction(
    label: str, share: float, t_ns: int, *, modality: Modality = Modality.FACE, track: int | None = 1
) -> Prediction:
    """Return a prediction that gives `share` to one label and the rest evenly to the others."""
    p = np.full(len(LABELS), (1 - share) / 6, np.float32)
    p[LABELS.index(label)] = share
    return Prediction(modality, p, 1.0, t_ns, track)


def test_given_pool_is_used() -> None:
    """For a stream and for a still; its shares become the weights."""

    def pool(inputs: ModalityPredictions) -> tuple[Float32, dict[Modality, float]]:
        return prediction("fear", 1.0, 0).p, dict.fromkeys(inputs, 0.25)

    anger = prediction("anger", 0.9, 0)
    fusion = Fusion(QUICK, pool)
    fusion.add(anger)
    (person,) = fusion.update(0).people
    assert person.confidence == 1.0
    assert person.face is not None
    assert person.face.weight == 0.25
    assert fuse_once([anger], None, QUICK, pool)[0] == "fear"


@pytest.mark.parametrize(("after_ns", "emotion"), [(S - 1, "uncertain"), (S, "sadness")])
def test_dwell_is_exact(after_ns: int, emotion: str) -> None:
    """A class is entered after exactly the minimum dwell, not a nanosecond before."""
    fusion = Fusion(QUICK)
    for t_ns in (0, after_ns):
        fusion.add(prediction("sadness", 0.9, t_ns))
        fused = fusion.update(t_ns)
    assert fused.room.emotion == emotion


def test_hysteresis_keeps_a_class_between_exit_and_enter() -> None:
    """Between the thresholds the old class stays; below the lower one it is uncertain."""
    fusion = Fusion(QUICK)
    for t_s, share in ((0, 0.9), (1, 0.9), (2, 0.45), (4, 0.45)):
        fusion.add(prediction("fear", share, t_s * S))
        assert (fused := fusion.update(t_s * S)) is not None
    assert fused.room.emotion == "fear"
    for t_s in (5, 6):
        fusion.add(prediction("fear", 0.3, t_s * S))
        fused = fusion.update(t_s * S)
    assert fused.room.emotion == "uncertain"


@pytest.mark.parametrize(("age_ns", "present"), [(2 * S, True), (2 * S + 1, False)])
def test_old_predictions_end_presence(age_ns: int, present: bool) -> None:
    """A prediction counts up to `max_skew_s`; one nanosecond later everybody is absent."""
    fusion = Fusion(QUICK)
    fusion.add(prediction("anger", 0.9, 0))
    fusion.update(0)
    fused = fusion.update(age_ns)
    assert (fused.room.emotion != "absent") is present
    assert [c.state.subject for c in fused.changes if c.state.emotion == "absent"] == (
        [] if present else ["person-1", "room"]
    )


@pytest.mark.parametrize(("tracks", "has_voice"), [((1,), True), ((1, 2), False)])
def test_voice_belongs_to_the_only_face_else_to_the_room(tracks: tuple[int, ...], has_voice: bool) -> None:
    """With one face the voice is that person's, with several it is the room's."""
    fusion = Fusion(QUICK)
    for track in tracks:
        fusion.add(prediction("anger", 0.9, 0, track=track))
    fusion.add(prediction("anger", 0.9, 0, modality=Modality.VOICE, track=None))
    fused = fusion.update(0)
    assert [(person.voice is not None) for person in fused.people] == [has_voice] * len(tracks)
    assert fused.room.voice is not None


@pytest.mark.parametrize(
    ("speaker", "owners"),
    [
        (Speaker("track", 2, 0.9, 2), [2]),
        (Speaker("uncertain", None, 0.4), []),
        (Speaker("none", owner=1), [1]),
        (Speaker("track", 7, 0.9, 7), []),
    ],
)
def test_voice_belongs_to_its_owner_and_to_the_room(speaker: Speaker, owners: list[int]) -> None:
    """Of two faces only that of the speaker gets the voice; none if that is uncertain or out of view."""
    fusion = Fusion(QUICK)
    for track in (1, 2):
        fusion.add(prediction("anger", 0.9, 0, track=track))
    fusion.add(prediction("anger", 0.9, 0, modality=Modality.VOICE, track=None))
    fused = fusion.update(0, speaker=speaker)
    assert [person.subject for person in fused.people if person.voice] == [f"person-{n}" for n in owners]
    assert fused.room.voice is not None


def test_voice_from_elsewhere_leaves_the_only_face_alone() -> None:
    """If the speaker is out of view, the only face does not get the voice."""
    fusion = Fusion(QUICK)
    fusion.add(prediction("neutral", 0.9, 0))
    fusion.add(prediction("anger", 0.9, 0, modality=Modality.VOICE, track=None))
    fused = fusion.update(0, speaker=Speaker("none"))
    assert fused.people[0].voice is None
    assert fused.people[0].probabilities["neutral"] == pytest.approx(0.9)
    assert fused.room.voice is not None


def test_empty_room_is_absent_without_a_change() -> None:
    """Without a prediction the room is absent, for a stream and for a still."""
    fused = Fusion(QUICK).update(0)
    assert (fused.room.emotion, fused.room.probabilities, fused.changes) == ("absent", {}, ())
    assert fuse_once([], None, QUICK) == ("absent", 0.0, {})
