"""Frames, audio and faults reach the scene and the topics, and what a switched-off device left is dropped."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.daemon.handlers import AudioHandler, FaultReporter, FrameHandler, LiveScene, report_connection
from edge.delivery.mqtt.connection_state import ConnectionState
from edge.health import Health
from edge.host.cooling import FrameGate
from edge.latency import Latencies
from edge.page.live_view import LiveView
from edge.people.scene import Moment, Scene
from edge.settings import FusionSettings
from edge.values import LABELS, AudioChunk, Face, FaceResult, Frame, Modality, Prediction
from edge.voice.windows import VoiceResult, Window


class Pipelines:
    """Both pipelines: each frame has one face, each chunk completes one window; `resets` are counted."""

    def __init__(self) -> None:
        self.resets = 0

    def process(self, item: Frame | AudioChunk) -> Any:
        p = np.eye(len(LABELS), dtype=np.float32)[0]
        if isinstance(item, Frame):
            prediction = Prediction(Modality.FACE, p, 1.0, item.t_ns, 1)
            return [FaceResult(Face((0, 0, 1, 1), 0.9, None, 1), prediction)]
        window = Window(np.empty((0, 42), np.float32), np.zeros(9, np.float32), item.t_ns)
        return iter([VoiceResult(window, Prediction(Modality.VOICE, p, 1.0, item.t_ns))])

    def reset(self) -> None:
        self.resets += 1


class Announced:
    """An announcer that keeps its moments and device events."""

    def __init__(self) -> None:
        self.moments: list[tuple[Moment, int]] = []
        self.devices: list[tuple[str, str]] = []

    def announce(self, moment: Moment, t_ns: int) -> None:
        self.moments.append((moment, t_ns))

    def announce_device(self, component: str, reason: str) -> None:
        self.devices.append((component, reason))


class Bench:
    """Both handlers at one scene whose clock stands still."""

    def __init__(self) -> None:
        self.pipelines = Pipelines()
        self.announced = Announced()
        self.health = Health()
        self.gate = FrameGate(10.0)
        self.scene = LiveScene(Scene(FusionSettings(), fatigue=None), self.announced)  # type: ignore[arg-type]
        shared: dict[str, Any] = {
            "live_view": LiveView(),
            "health": self.health,
            "latencies": Latencies(),
        }
        self.frames = FrameHandler(self.pipelines, self.scene, gate=self.gate, **shared)  # type: ignore[arg-type]
        self.audio = AudioHandler(self.pipelines, self.scene, **shared)  # type: ignore[arg-type]

    def newest(self) -> Moment:
        return self.announced.moments[-1][0]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The handlers, one second after the device was switched on."""
    monkeypatch.setattr("edge.daemon.handlers.time.monotonic_ns", lambda: 1_000_000_000)
    return Bench()


FRAME = Frame(np.zeros((4, 4, 3), np.uint8), 900_000_000, dropped=2)
OFFLINE = ConnectionState(connected=False, reason="refused", since_ns=0)
CHUNK = AudioChunk(np.zeros(160, np.float32), 800_000_000, gap=5)


def test_frame_is_counted_and_announced_with_its_capture_time(bench: Bench) -> None:
    """One face in view, and the frames that were lost before it."""
    bench.frames.handle(FRAME)
    assert bench.announced.moments[-1][1] == FRAME.t_ns
    assert [person.subject for person in bench.newest().people] == ["person-1"]
    assert {"frames": 1, "faces": 1, "frames_dropped": 2}.items() <= bench.health.counters.items()


def test_hot_device_drops_frames_before_the_pipeline(bench: Bench) -> None:
    """At a tenth of the rate the second of two frames is counted and not processed."""
    bench.gate.set_factor(0.1)
    bench.frames.handle(FRAME)
    bench.frames.handle(replace(FRAME, t_ns=FRAME.t_ns + 1))
    assert (bench.health.counters["frames"], bench.health.counters["frames_spared"]) == (1, 1)
    assert len(bench.announced.moments) == 1


def test_audio_is_counted_and_announced_with_its_capture_time(bench: Bench) -> None:
    """One window with speech, and the samples that were lost before it."""
    bench.audio.handle(CHUNK)
    assert bench.announced.moments[-1][1] == CHUNK.t_ns
    assert bench.newest().voice.emotion == "anger"
    counted = {"windows": 1, "spoken_windows": 1, "audio_gap_samples": 5}
    assert counted.items() <= bench.health.counters.items()


def test_switched_off_camera_leaves_the_voice(bench: Bench) -> None:
    """The face is gone at once."""
    bench.frames.handle(FRAME)
    bench.audio.handle(CHUNK)
    bench.frames.forget()
    assert bench.newest().people == ()
    assert bench.newest().voice.emotion == "anger"


def test_switched_off_microphone_resets_the_pipeline(bench: Bench) -> None:
    """The voice is gone at once, and no window spans the pause."""
    bench.frames.handle(FRAME)
    bench.audio.handle(CHUNK)
    bench.audio.forget()
    assert bench.pipelines.resets == 1
    assert bench.newest().voice.emotion == "absent"
    assert len(bench.newest().people) == 1


def test_clock_lets_predictions_grow_old(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without new input the room becomes absent."""
    bench.frames.handle(FRAME)
    monkeypatch.setattr("edge.daemon.handlers.time.monotonic_ns", lambda: 60_000_000_000)
    bench.scene.update()
    assert bench.newest().room.emotion == "absent"


@pytest.mark.parametrize(
    ("component", "reason", "devices"),
    [
        ("camera", "no_device", [("camera", "no_device"), ("camera", "")]),
        ("camera", "ended", [("camera", "")]),
        ("outbox", "disk_full", []),
        ("mqtt", "publish_refused", []),
    ],
)
def test_faults_are_status_and_those_of_a_device_events(
    component: str, reason: str, devices: list[tuple[str, str]]
) -> None:
    """Each fault and its end update the status; delivery itself and a recording's end are no events."""
    states: list[str] = []
    health, announced = Health(), Announced()
    status: Any = SimpleNamespace(publish=lambda: states.append(",".join(health.reasons)))
    health.subscribe(FaultReporter(status, announced).report)  # type: ignore[arg-type]
    health.fault(component, reason, "detail")
    health.fault(component, reason, "detail")
    health.clear(component)
    assert states == [f"{component}:{reason}", ""]
    assert announced.devices == devices


def test_only_a_refusing_broker_is_a_fault() -> None:
    """An offline broker changes nothing; one that accepts again ends the fault."""
    health = Health()
    report_connection(health, OFFLINE)
    assert health.reasons == []
    report_connection(health, replace(OFFLINE, publishing="refused"))
    assert health.reasons == ["mqtt:publish_refused"]
    report_connection(health, OFFLINE)
    assert health.reasons == ["mqtt:publish_refused"]
    report_connection(health, replace(OFFLINE, publishing="allowed"))
    assert health.reasons == []
    report_connection(health, replace(OFFLINE, publishing="allowed", faults={"packet_too_large": "a"}))
    assert health.reasons == ["mqtt:packet_too_large"]
    report_connection(health, OFFLINE)
    assert health.reasons == []
