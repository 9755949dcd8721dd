"""Two opinions become one, and a change is believed only when it lasts."""

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


def opinion(
    label: str, share: float, t_ns: int, *, modality: Modality = Modality.FACE, track: int | None = 1
) -> Prediction:
    """Return an opinion that gives `share` to one label and the rest evenly to the others."""
    p = np.full(len(LABELS), (1 - share) / 6, np.float32)
    p[LABELS.index(label)] = share
    return Prediction(modality, p, 1.0, t_ns, track)


def test_the_pool_given_is_the_one_asked() -> None:
    """What a caller opened decides, for a stream and for a still, and its shares become the weights."""

    def pool(opinions: ModalityPredictions) -> tuple[Float32, dict[Modality, float]]:
        return opinion("fear", 1.0, 0).p, dict.fromkeys(opinions, 0.25)

    said = opinion("anger", 0.9, 0)
    fusion = Fusion(QUICK, pool)
    fusion.add(said)
    (person,) = fusion.update(0).people
    assert person.confidence == 1.0
    assert person.face is not None
    assert person.face.weight == 0.25
    assert fuse_once([said], None, QUICK, pool)[0] == "fear"


@pytest.mark.parametrize(("after_ns", "emotion"), [(S - 1, "uncertain"), (S, "sadness")])
def test_dwell_is_exact(after_ns: int, emotion: str) -> None:
    """A class is entered after exactly the minimum dwell, not a nanosecond before."""
    fusion = Fusion(QUICK)
    for t_ns in (0, after_ns):
        fusion.add(opinion("sadness", 0.9, t_ns))
        fused = fusion.update(t_ns)
    assert fused.room.emotion == emotion


def test_hysteresis_keeps_a_class_between_exit_and_enter() -> None:
    """Between the thresholds the old class stays; below the lower one it goes."""
    fusion = Fusion(QUICK)
    for t_s, share in ((0, 0.9), (1, 0.9), (2, 0.45), (4, 0.45)):
        fusion.add(opinion("fear", share, t_s * S))
        assert (fused := fusion.update(t_s * S)) is not None
    assert fused.room.emotion == "fear"
    for t_s in (5, 6):
        fusion.add(opinion("fear", 0.3, t_s * S))
        fused = fusion.update(t_s * S)
    assert fused.room.emotion == "uncertain"


@pytest.mark.parametrize(("age_ns", "present"), [(2 * S, True), (2 * S + 1, False)])
def test_old_opinions_end_presence(age_ns: int, present: bool) -> None:
    """Evidence counts up to `max_skew_s`, one nanosecond more and nobody is there."""
    fusion = Fusion(QUICK)
    fusion.add(opinion("anger", 0.9, 0))
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
        fusion.add(opinion("anger", 0.9, 0, track=track))
    fusion.add(opinion("anger", 0.9, 0, modality=Modality.VOICE, track=None))
    fused = fusion.update(0)
    assert [(person.voice is not None) for person in fused.people] == [has_voice] * len(tracks)
    assert fused.room.voice is not None


@pytest.mark.parametrize(
    ("speaker", "owners"),
    [
        (Speaker("track", 2, 0.9, 2), [2]),
        (Speaker("uncertain", None, 0.4), []),
        (Speaker("nobody", owner=1), [1]),
        (Speaker("track", 7, 0.9, 7), []),
    ],
)
def test_voice_belongs_to_its_owner_and_to_the_room(speaker: Speaker, owners: list[int]) -> None:
    """Of two faces only the speaker's gets the voice, nobody's where that is open or the speaker is gone."""
    fusion = Fusion(QUICK)
    for track in (1, 2):
        fusion.add(opinion("anger", 0.9, 0, track=track))
    fusion.add(opinion("anger", 0.9, 0, modality=Modality.VOICE, track=None))
    fused = fusion.update(0, speaker=speaker)
    assert [person.subject for person in fused.people if person.voice] == [f"person-{n}" for n in owners]
    assert fused.room.voice is not None


def test_voice_from_elsewhere_leaves_the_only_face_alone() -> None:
    """Where somebody out of view speaks, the one face that is there does not get the voice."""
    fusion = Fusion(QUICK)
    fusion.add(opinion("neutral", 0.9, 0))
    fusion.add(opinion("anger", 0.9, 0, modality=Modality.VOICE, track=None))
    fused = fusion.update(0, speaker=Speaker("nobody"))
    assert fused.people[0].voice is None
    assert fused.people[0].probabilities["neutral"] == pytest.approx(0.9)
    assert fused.room.voice is not None


def test_nobody_is_absent_and_says_nothing() -> None:
    """Without any opinion the room is absent and no change is told."""
    fused = Fusion(QUICK).update(0)
    assert (fused.room.emotion, fused.room.probabilities, fused.changes) == ("absent", {}, ())
    assert fuse_once([], None, QUICK) == ("absent", 0.0, {})
