"""The speaker is the person whose lips move with the audio, and uncertain without evidence."""

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
    """Return how open the mouth of a speaker is, 0..1, every 10 ms: about four syllables a second."""
    random = np.random.default_rng(seed)
    at_s = np.cumsum(random.uniform(0.17, 0.33, int(seconds * 5)))
    t_s = np.arange(int(seconds / STEP_S)) * STEP_S
    heights = random.uniform(0.3, 1.0, at_s.size)
    openings = heights * np.exp(-0.5 * ((t_s[:, None] - at_s) / 0.06) ** 2)
    opening: Track = openings.max(axis=1)
    opening[(t_s >= pause[0]) & (t_s < pause[1])] = 0
    return opening


def lips(opening: Track, *, late_s: float = 0.0) -> Mouth:
    """Return a mouth that opens by `opening`, up to a third of its width."""
    return lambda t_s: 0.3 * float(opening[max(0, min(int((t_s - late_s) / STEP_S), opening.size - 1))])


def windows(opening: Track, *, late_s: float = 0.0) -> Iterator[Window]:
    """Yield a window of 3 s every half second: the audio is as loud as the mouth is open."""
    for end in range(300, opening.size + 1, 50):
        part = opening[end - 300 : end]
        frames = np.zeros((298, COLUMNS), np.float32)
        frames[:, 0] = 8 * part[1:299] - 8
        speech = (np.convolve(part[1:299], np.ones(40), "same") > 1).astype(np.float32)
        yield Window(frames, speech, round((end * STEP_S + late_s) * S))


def watch(
    voice: Track,
    faces: Mapping[int, Mouth],
    *,
    fps: float = 10.0,
    late_s: float = 0.0,
    is_seen: Callable[[int, float], bool] = lambda _track, _t_s: True,
    tracker: SpeakerTracker | None = None,
) -> list[Speaker]:
    """Add the faces and the audio to a tracker; return the speaker of every window."""
    tracker = tracker or SpeakerTracker()
    speakers, number = [], 0
    for window in windows(voice, late_s=late_s):
        while number / fps * S <= window.t_ns:
            t_s = number / fps
            tracker.add_faces(
                [
                    FaceMeasurements(k, round(t_s * S), mouth=m(t_s))
                    for k, m in faces.items()
                    if is_seen(k, t_s)
                ]
            )
            number += 1
        speakers.append(tracker.add_window(window))
    return speakers


def share(speakers: list[Speaker], track: int | None, *, state: str = "track") -> float:
    """Return the share of windows with this speaker, after the first two."""
    return float(np.mean([(s.state, s.track) == (state, track) for s in speakers[2:]]))


@pytest.mark.parametrize("fps", [10.0, 15.0])
def test_lips_in_time_with_the_sound_are_the_speakers(fps: float) -> None:
    """Of three people who move their lips, the one in time with the audio speaks and owns the voice."""
    voice = talk(1, seconds=20)
    speakers = watch(voice, {4: lips(talk(2)), 7: lips(voice), 9: lips(talk(3))}, fps=fps)
    assert share(speakers, 7) > 0.95
    assert speakers[-1].owner == 7
    assert np.median([s.confidence for s in speakers]) > 0.9
    assert (speakers[-1].label, speakers[-1].speaks("person-7"), speakers[-1].speaks("person-4")) == (
        "person-7",
        True,
        False,
    )


def test_voice_from_elsewhere_belongs_to_no_face() -> None:
    """If no lips fit, the speaker is uncertain and the voice belongs to the room."""
    speakers = watch(talk(1, seconds=30), {1: lips(talk(2)), 2: lips(talk(3))})
    assert share(speakers, None, state="uncertain") > 0.8
    assert speakers[-1].label == "uncertain"
    assert speakers[-1].speaks("person-1") is None
    assert {s.owner for s in speakers if s.state == "uncertain"} == {None}


def test_lips_in_antiphase_do_not_speak() -> None:
    """A mouth that shuts when the audio is loud does not speak, though it moves as much and as often."""
    before, voice = talk(5, seconds=20), talk(1, seconds=10)
    still = np.zeros_like(before)
    faces = {1: lips(np.append(before, still[: voice.size])), 2: lips(np.append(still, 1 - voice))}
    speakers = watch(np.append(before, voice), faces)
    assert share(speakers[:30], 1) > 0.95
    assert share(speakers, 2) == 0


@pytest.mark.parametrize("late_s", [-0.15, 0.15])
def test_skew_of_the_devices_is_learnt(late_s: float) -> None:
    """After a while with one person, audio that is stamped too late or too early fits again."""
    alone, tracker = talk(1), SpeakerTracker()
    watch(alone, {1: lips(alone)}, late_s=late_s, tracker=tracker)
    assert tracker.skew_s == pytest.approx(late_s, abs=0.03)


def test_silence_has_no_speaker_and_the_voice_keeps_its_owner() -> None:
    """The speaker keeps the turn for a second; then no one speaks, and the voice keeps its owner."""
    voice = talk(1, seconds=12, pause=(8.0, 12.0))
    speakers = watch(voice, {1: lips(voice), 2: lips(talk(2))})
    ends_s = 3 + 0.5 * np.arange(len(speakers))
    assert {s.track for s, end_s in zip(speakers, ends_s, strict=True) if 5 < end_s <= 8.5} == {1}
    after = [s for s, end_s in zip(speakers, ends_s, strict=True) if end_s >= 9.5]
    assert {(s.state, s.owner, s.label) for s in after} == {("none", 1, None)}
    assert after[0].speaks("person-1") is False


@pytest.mark.parametrize("mouth", [0.0, 0.2])
def test_still_mouth_does_not_speak(mouth: float) -> None:
    """The only face keeps its mouth still, shut or open: the voice is not of that person."""
    speakers = watch(talk(1, seconds=10), {1: lambda t_s: mouth + 0.002 * np.sin(40 * t_s)})
    assert {(s.state, s.owner) for s in speakers} == {("none", None)}


def test_only_face_owns_the_voice_while_its_mouth_moves() -> None:
    """With one face the voice is of that person even without proof by the lips."""
    speakers = watch(talk(1, seconds=20), {1: lips(talk(2))})
    assert {s.owner for s in speakers} == {1}


@pytest.mark.parametrize(("faces", "owner"), [((1,), 1), ((1, 2), None)])
def test_faces_without_a_mesh_are_uncertain(faces: tuple[int, ...], owner: int | None) -> None:
    """Without landmarks the speaker is uncertain, and only a single face gets the voice."""
    speakers = watch(talk(1, seconds=8), dict.fromkeys(faces, lambda _t_s: None))
    assert {(s.state, s.track, s.owner) for s in speakers} == {("uncertain", None, owner)}


def test_dropped_frames_do_no_harm() -> None:
    """With every third frame lost the speaker is still found."""
    voice = talk(1, seconds=20)
    random = np.random.default_rng(5)
    lost = {k for k in range(400) if random.random() < 0.33}
    speakers = watch(
        voice,
        {1: lips(voice), 2: lips(talk(2))},
        fps=15,
        is_seen=lambda _track, t_s: round(t_s * 15) not in lost,
    )
    assert share(speakers, 1) > 0.9
    assert share(speakers, 2) == 0


def test_three_frames_a_second_are_too_few() -> None:
    """They do not show the rhythm of syllables, so the speaker is uncertain."""
    voice = talk(1, seconds=20)
    speakers = watch(voice, {1: lips(voice), 2: lips(talk(2))}, fps=3)
    assert {(s.state, s.track) for s in speakers} == {("uncertain", None)}


def test_speaker_who_leaves_is_followed_by_the_next() -> None:
    """The speaker walks out of view and another person goes on, who is the speaker within 4 s."""
    first, second = talk(1, seconds=24), talk(2, seconds=24)
    voice = np.where(np.arange(first.size) < 1200, first, second)
    faces = {1: lips(first), 2: lips(np.where(np.arange(first.size) < 1200, 0, second))}
    speakers = watch(voice, faces, is_seen=lambda track, t_s: track == 2 or t_s < 12)
    ends_s = 3 + 0.5 * np.arange(len(speakers))
    named = {float(end_s): s.track for s, end_s in zip(speakers, ends_s, strict=True)}
    assert named[11.5] == 1
    assert 1 not in {track for end_s, track in named.items() if end_s > 13.5}
    assert {track for end_s, track in named.items() if end_s >= 16} == {2}


@pytest.mark.parametrize(("after_ns", "state"), [(0, "track"), (1, "none")])
def test_without_audio_there_is_no_speaker(after_ns: int, state: str) -> None:
    """The speaker of the last window counts for exactly `STALE_S`."""
    voice, tracker = talk(1, seconds=10), SpeakerTracker()
    watch(voice, {1: lips(voice)}, tracker=tracker)
    assert tracker.speaker(10 * S + round(STALE_S * S) + after_ns).state == state


@pytest.mark.parametrize("modality", list(Modality))
def test_switched_off_device_is_forgotten(modality: Modality) -> None:
    """Neither lips, audio nor speaker from before the pause count after it."""
    voice, tracker = talk(1, seconds=10), SpeakerTracker()
    watch(voice, {1: lips(voice)}, tracker=tracker)
    tracker.forget(modality)
    assert tracker.speaker(10 * S) == Speaker("none")
    late = next(windows(voice))
    assert tracker.add_window(Window(late.frames, late.speech, 11 * S)).track is None


def test_gap_in_time_is_survived() -> None:
    """A day later, as after a suspend, tracking starts again."""
    voice, tracker = talk(1, seconds=10), SpeakerTracker()
    watch(voice, {1: lips(voice)}, tracker=tracker)
    late = next(windows(voice))
    speakers = tracker.add_window(Window(late.frames, late.speech, 86_400 * S))
    assert (speakers.state, speakers.owner) == ("none", None)
