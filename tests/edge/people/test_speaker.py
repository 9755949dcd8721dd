"""Who speaks is found by lips that move with the sound, and is not said where nothing tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.people.speaker import STALE_S, Speaker, SpeakerTracker
from edge.values import FaceMeasurements, Modality
from edge.voice.features import COLUMNS
from edge.voice.windows import Window

S = 1_000_000_000
STEP_S = 0.01
Track = NDArray[np.float64]
Mouth = Callable[[float], float | None]


def talk(seed: int, *, seconds: float = 40.0, pause: tuple[float, float] = (0.0, 0.0)) -> Track:
    """Return how open a talker's mouth is, 0..1, every 10 ms: about four syllables a second."""
    random = np.random.default_rng(seed)
    at_s = np.cumsum(random.uniform(0.17, 0.33, int(seconds * 5)))
    t_s = np.arange(int(seconds / STEP_S)) * STEP_S
    heights = random.uniform(0.3, 1.0, at_s.size)
    openings = heights * np.exp(-0.5 * ((t_s[:, None] - at_s) / 0.06) ** 2)
    opening: Track = openings.max(axis=1)
    opening[(t_s >= pause[0]) & (t_s < pause[1])] = 0
    return opening


def lips(opening: Track, *, late_s: float = 0.0) -> Mouth:
    """Return the mouth that opens so, up to a third of its width."""
    return lambda t_s: 0.3 * float(opening[max(0, min(int((t_s - late_s) / STEP_S), opening.size - 1))])


def windows(opening: Track, *, late_s: float = 0.0) -> Iterator[Window]:
    """Yield a window of 3 s every half second: the sound is as loud as the mouth is open."""
    for end in range(300, opening.size + 1, 50):
        part = opening[end - 300 : end]
        frames = np.zeros((298, COLUMNS), np.float32)
        frames[:, 0] = 8 * part[1:299] - 8
        speech = (np.convolve(part[1:299], np.ones(40), "same") > 1).astype(np.float32)
        yield Window(frames, speech, round((end * STEP_S + late_s) * S))


def watch(
    heard: Track,
    faces: Mapping[int, Mouth],
    *,
    fps: float = 10.0,
    late_s: float = 0.0,
    is_seen: Callable[[int, float], bool] = lambda _track, _t_s: True,
    speaking: SpeakerTracker | None = None,
) -> list[Speaker]:
    """Show faces and let them be heard; return what was said at every window."""
    speaking = speaking or SpeakerTracker()
    said, number = [], 0
    for window in windows(heard, late_s=late_s):
        while number / fps * S <= window.t_ns:
            t_s = number / fps
            speaking.add_faces(
                [
                    FaceMeasurements(k, round(t_s * S), mouth=m(t_s))
                    for k, m in faces.items()
                    if is_seen(k, t_s)
                ]
            )
            number += 1
        said.append(speaking.add_window(window))
    return said


def share(said: list[Speaker], track: int | None, *, state: str = "track") -> float:
    """Return how often that was said once the first windows are over."""
    return float(np.mean([(s.state, s.track) == (state, track) for s in said[2:]]))


@pytest.mark.parametrize("fps", [10.0, 15.0])
def test_lips_in_time_with_the_sound_are_the_speakers(fps: float) -> None:
    """Of three who move their lips, the one in time is named and owns the voice."""
    heard = talk(1, seconds=20)
    said = watch(heard, {4: lips(talk(2)), 7: lips(heard), 9: lips(talk(3))}, fps=fps)
    assert share(said, 7) > 0.95
    assert said[-1].owner == 7
    assert np.median([s.confidence for s in said]) > 0.9
    assert (said[-1].label, said[-1].speaks("person-7"), said[-1].speaks("person-4")) == (
        "person-7",
        True,
        False,
    )


def test_voice_from_elsewhere_is_given_to_nobody() -> None:
    """Where no lips fit, no face is named and the voice stays with the room."""
    said = watch(talk(1, seconds=30), {1: lips(talk(2)), 2: lips(talk(3))})
    assert share(said, None, state="uncertain") > 0.8
    assert said[-1].label == "uncertain"
    assert said[-1].speaks("person-1") is None
    assert {s.owner for s in said if s.state == "uncertain"} == {None}


def test_lips_against_the_sound_are_not_the_speakers() -> None:
    """A mouth that shuts when it is loud is not named, though it moves as much and as often."""
    before, heard = talk(5, seconds=20), talk(1, seconds=10)
    still = np.zeros_like(before)
    faces = {1: lips(np.append(before, still[: heard.size])), 2: lips(np.append(still, 1 - heard))}
    said = watch(np.append(before, heard), faces)
    assert share(said[:30], 1) > 0.95
    assert share(said, 2) == 0


@pytest.mark.parametrize("late_s", [-0.15, 0.15])
def test_skew_of_the_devices_is_learnt(late_s: float) -> None:
    """After a while with one person, sound that is stamped too late or too early fits again."""
    alone, speaking = talk(1), SpeakerTracker()
    watch(alone, {1: lips(alone)}, late_s=late_s, speaking=speaking)
    assert speaking.skew_s == pytest.approx(late_s, abs=0.03)


def test_silence_is_nobody_and_the_voice_keeps_its_owner() -> None:
    """Within a second nothing changes; then nobody speaks, and what was heard before is still one's own."""
    heard = talk(1, seconds=12, pause=(8.0, 12.0))
    said = watch(heard, {1: lips(heard), 2: lips(talk(2))})
    ends_s = 3 + 0.5 * np.arange(len(said))
    assert {s.track for s, end_s in zip(said, ends_s, strict=True) if 5 < end_s <= 8.5} == {1}
    after = [s for s, end_s in zip(said, ends_s, strict=True) if end_s >= 9.5]
    assert {(s.state, s.owner, s.label) for s in after} == {("nobody", 1, None)}
    assert after[0].speaks("person-1") is False


@pytest.mark.parametrize("mouth", [0.0, 0.2])
def test_still_mouth_does_not_speak(mouth: float) -> None:
    """Somebody is heard and the only face keeps still, shut or open: the voice is not that face's."""
    said = watch(talk(1, seconds=10), {1: lambda t_s: mouth + 0.002 * np.sin(40 * t_s)})
    assert {(s.state, s.owner) for s in said} == {("nobody", None)}


def test_only_face_owns_the_voice_while_its_mouth_moves() -> None:
    """With one face the voice is that person's also where the lips do not prove it."""
    said = watch(talk(1, seconds=20), {1: lips(talk(2))})
    assert {s.owner for s in said} == {1}


@pytest.mark.parametrize(("faces", "owner"), [((1,), 1), ((1, 2), None)])
def test_faces_without_a_mesh_are_uncertain(faces: tuple[int, ...], owner: int | None) -> None:
    """Boxes have no lips: nobody is named, and only a single face gets the voice."""
    said = watch(talk(1, seconds=8), dict.fromkeys(faces, lambda _t_s: None))
    assert {(s.state, s.track, s.owner) for s in said} == {("uncertain", None, owner)}


def test_dropped_frames_do_no_harm() -> None:
    """With every third frame lost the speaker is still found."""
    heard = talk(1, seconds=20)
    random = np.random.default_rng(5)
    lost = {k for k in range(400) if random.random() < 0.33}
    said = watch(
        heard,
        {1: lips(heard), 2: lips(talk(2))},
        fps=15,
        is_seen=lambda _track, t_s: round(t_s * 15) not in lost,
    )
    assert share(said, 1) > 0.9
    assert share(said, 2) == 0


def test_three_frames_a_second_are_too_few() -> None:
    """The rhythm of syllables cannot be seen so rarely, and nobody is named."""
    heard = talk(1, seconds=20)
    said = watch(heard, {1: lips(heard), 2: lips(talk(2))}, fps=3)
    assert {(s.state, s.track) for s in said} == {("uncertain", None)}


def test_who_leaves_is_no_speaker_and_a_new_turn_is_noticed() -> None:
    """The speaker walks out of view and somebody else goes on: within 4 s of it the other one is named."""
    first, second = talk(1, seconds=24), talk(2, seconds=24)
    heard = np.where(np.arange(first.size) < 1200, first, second)
    faces = {1: lips(first), 2: lips(np.where(np.arange(first.size) < 1200, 0, second))}
    said = watch(heard, faces, is_seen=lambda track, t_s: track == 2 or t_s < 12)
    ends_s = 3 + 0.5 * np.arange(len(said))
    named = {float(end_s): s.track for s, end_s in zip(said, ends_s, strict=True)}
    assert named[11.5] == 1
    assert 1 not in {track for end_s, track in named.items() if end_s > 13.5}
    assert {track for end_s, track in named.items() if end_s >= 16} == {2}


@pytest.mark.parametrize(("after_ns", "state"), [(0, "track"), (1, "nobody")])
def test_without_sound_nobody_is_heard(after_ns: int, state: str) -> None:
    """What was said of the last window holds for exactly `STALE_S`."""
    heard, speaking = talk(1, seconds=10), SpeakerTracker()
    watch(heard, {1: lips(heard)}, speaking=speaking)
    assert speaking.speaker(10 * S + round(STALE_S * S) + after_ns).state == state


@pytest.mark.parametrize("modality", list(Modality))
def test_switched_off_device_is_forgotten(modality: Modality) -> None:
    """Neither lips nor sound from before the pause count after it, nor is the last speaker kept."""
    heard, speaking = talk(1, seconds=10), SpeakerTracker()
    watch(heard, {1: lips(heard)}, speaking=speaking)
    speaking.forget(modality)
    assert speaking.speaker(10 * S) == Speaker("nobody")
    late = next(windows(heard))
    assert speaking.add_window(Window(late.frames, late.speech, 11 * S)).track is None


def test_gap_in_time_is_survived() -> None:
    """A day later, as after a suspend, it begins anew."""
    heard, speaking = talk(1, seconds=10), SpeakerTracker()
    watch(heard, {1: lips(heard)}, speaking=speaking)
    late = next(windows(heard))
    said = speaking.add_window(Window(late.frames, late.speech, 86_400 * S))
    assert (said.state, said.owner) == ("nobody", None)
