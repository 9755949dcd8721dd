"""The scene of everybody in view: one order of the steps, and a result that depends on its input only."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import edge.commands.analyze
import edge.daemon.daemon
from edge.people import scene as scene_module
from edge.people.scene import Moment, Scene
from edge.settings import FatigueSettings, FusionSettings
from edge.values import LABELS, Face, FaceMeasurements, FaceResult, Modality, Prediction
from edge.voice.features import COLUMNS
from edge.voice.windows import VoiceResult, Window
from tests.helpers.lids import SECOND, eye_measurements

QUICK = FusionSettings(ema_s=0.0, min_dwell_s=0.0)


def prediction(label: str, t_ns: int, *, track: int | None = 1) -> Prediction:
    """Return a prediction of a face, or of the voice if there is no track."""
    p = np.full(len(LABELS), 0.02, np.float32)
    p[LABELS.index(label)] = 0.88
    return Prediction(Modality.VOICE if track is None else Modality.FACE, p, 1.0, t_ns, track)


def face(measurements: FaceMeasurements, label: str = "sadness") -> FaceResult:
    """Return a face with these measurements."""
    track = measurements.track
    return FaceResult(
        Face((0, 0, 9, 9), 0.9, None, track), prediction(label, measurements.t_ns, track=track), measurements
    )


def voice(label: str, t_ns: int) -> VoiceResult:
    """Return a window of 3 s that is speech from end to end."""
    frames, speech = np.zeros((298, COLUMNS), np.float32), np.ones(298, np.float32)
    return VoiceResult(Window(frames, speech, t_ns), prediction(label, t_ns, track=None))


def play(scene: Scene) -> Iterator[Moment]:
    """Show one person for ten seconds who closes the eyes for the last four, and a voice every second."""
    for measurements in eye_measurements([(2.0, 0.2), (6.0, 4.0)], seconds=10):
        scene.add_faces([face(measurements)])
        if measurements.t_ns % SECOND == 0:
            scene.add_voice(voice("anger", measurements.t_ns))
        yield scene.update(measurements.t_ns)


def test_same_input_gives_the_same_moments() -> None:
    """Twice the same input gives equal values: no clock and no chance takes part."""
    one, other = (list(play(Scene(QUICK, fatigue=FatigueSettings()))) for _ in range(2))
    assert one == other
    assert {moment.fatigue.room.level for moment in one if moment.fatigue} >= {"alert", "asleep"}


def test_scene_reads_no_clock_and_knows_no_delivery() -> None:
    """The module imports neither time, threads nor anything that publishes."""
    imported = {
        name
        for node in ast.walk(ast.parse(inspect.getsource(scene_module)))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    assert not imported & {"time", "datetime", "threading", "random", "edge.policy"}
    assert not any(name.startswith("edge.delivery") for name in imported)


def test_daemon_and_analyze_share_the_scene() -> None:
    """Neither puts fusion, speaker and fatigue together by itself."""
    for module in (edge.daemon.daemon, edge.commands.analyze):
        names = vars(module)
        assert names["Scene"] is Scene
        assert not {"Fusion", "SpeakerTracker", "FatigueMonitor"} & names.keys()


def test_moment_has_everybody_the_voice_and_the_changes() -> None:
    """Two faces and a voice: who is in view, the voice alone, and presence gained by all three subjects."""
    scene = Scene(QUICK, fatigue=FatigueSettings())
    scene.add_faces([face(FaceMeasurements(k, 0), label) for k, label in ((1, "fear"), (2, "neutral"))])
    scene.add_voice(voice("anger", 0))
    moment = scene.update(0)
    assert [(person.subject, person.emotion) for person in moment.people] == [
        ("person-1", "fear"),
        ("person-2", "neutral"),
    ]
    assert (moment.voice.emotion, moment.voice.subject) == ("anger", "room")
    assert moment.voice.probabilities["anger"] == pytest.approx(0.88)
    assert [(change.previous, change.state.subject) for change in moment.changes] == [
        ("absent", "person-1"),
        ("absent", "person-2"),
        ("absent", "room"),
    ]
    assert scene.update(1).changes == ()


def test_voice_without_speech_is_absent() -> None:
    """A window without a prediction leaves the voice absent."""
    scene = Scene(QUICK, fatigue=None)
    scene.add_voice(replace(voice("anger", 0), prediction=None))
    moment = scene.update(0)
    assert (moment.voice.emotion, moment.voice.probabilities, moment.voice.confidence) == ("absent", {}, 0.0)
    assert moment.fatigue is None


@pytest.mark.parametrize(("uses_emotions", "reasons"), [(True, ("perclos", "mood")), (False, ())])
def test_emotions_count_for_fatigue_only_where_they_may(
    uses_emotions: bool, reasons: tuple[str, ...]
) -> None:
    """Just short of tired, sadness makes the difference."""
    settings = FatigueSettings(perclos_tired=0.09, perclos_drowsy=0.5)
    scene = Scene(QUICK, fatigue=settings, uses_emotions_for_fatigue=uses_emotions)
    for measurements in eye_measurements([(4.0 * k + 2, 0.4) for k in range(15)], seconds=60):
        scene.add_faces([face(measurements)])
        moment = scene.update(measurements.t_ns)
    assert moment.fatigue is not None
    assert moment.fatigue.room.reasons == reasons


@pytest.mark.parametrize(
    ("modality", "people", "voice_emotion"),
    [(Modality.FACE, (), "anger"), (Modality.VOICE, ("person-1",), "absent")],
)
def test_switched_off_device_is_forgotten(
    modality: Modality, people: tuple[str, ...], voice_emotion: str
) -> None:
    """Its results are gone at once, those of the other device stay."""
    scene = Scene(QUICK, fatigue=FatigueSettings())
    scene.add_faces([face(FaceMeasurements(1, 0, 0.9))])
    scene.add_voice(voice("anger", 0))
    scene.update(0)
    scene.forget(modality)
    moment = scene.update(1)
    assert tuple(person.subject for person in moment.people) == people
    assert moment.voice.emotion == voice_emotion
    assert moment.fatigue is not None
    assert tuple(person.subject for person in moment.fatigue.people) == people
