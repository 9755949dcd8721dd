"""Handles frames, audio chunks, faults and connection states, on the threads that report them."""

from __future__ import annotations

import logging
import threading
import time

from edge.delivery.announcer import Announcer
from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.status import StatusTopic
from edge.health import Health
from edge.host.cooling import FrameGate
from edge.latency import Latencies
from edge.page.live_view import LiveView
from edge.people.scene import Scene
from edge.pipeline import FacePipeline, VoicePipeline
from edge.values import AudioChunk, FaceResult, Frame, Modality
from edge.voice.windows import VoiceResult

log = logging.getLogger(__name__)

UNREPORTED = ("outbox", "mqtt")  # faults of the delivery itself are in `status` only, not events


class LiveScene:
    """The scene of the device and its announcer under one lock: the workers and the clock share them."""

    def __init__(self, scene: Scene, announcer: Announcer) -> None:
        self._scene = scene
        self._announcer = announcer
        self._lock = threading.Lock()

    def add_faces(self, face_results: list[FaceResult], t_ns: int) -> None:
        """Add the faces of a frame that was captured at `t_ns`; announce what changed."""
        with self._lock:
            self._scene.add_faces(face_results)
            self._update(t_ns)

    def add_voice(self, voice_result: VoiceResult) -> None:
        """Add a window of audio; announce what changed."""
        with self._lock:
            self._scene.add_voice(voice_result)
            self._update(voice_result.window.t_ns)

    def forget(self, modality: Modality) -> None:
        """Drop what came from a device that was switched off; announce what changed."""
        with self._lock:
            self._scene.forget(modality)
            self._update(time.monotonic_ns())

    def update(self) -> None:
        """Announce what time alone changes: predictions grow old, a state is due again."""
        with self._lock:
            self._update(time.monotonic_ns())

    def _update(self, t_ns: int) -> None:
        self._announcer.announce(self._scene.update(time.monotonic_ns()), t_ns)


class FrameHandler:
    """Runs the face pipeline on each frame of the camera and adds the faces to the scene; one thread."""

    def __init__(
        self,
        pipeline: FacePipeline,
        scene: LiveScene,
        *,
        gate: FrameGate,
        live_view: LiveView,
        health: Health,
        latencies: Latencies,
    ) -> None:
        self._pipeline = pipeline
        self._scene = scene
        self._gate = gate
        self._live_view = live_view
        self._counters = health.counters
        self._latencies = latencies

    def handle(self, frame: Frame) -> None:
        """Process one frame, or drop it if the device is hot and `gate` does not accept it."""
        self._counters["frames_dropped"] += frame.dropped
        if not self._gate.accepts(frame.t_ns):
            self._counters["frames_spared"] += 1
            return
        with self._latencies.measure("see"):
            face_results = self._pipeline.process(frame)
        self._counters["frames"] += 1
        self._counters["faces"] += len(face_results)
        self._live_view.add_frame(frame, [face_result.face for face_result in face_results])
        self._scene.add_faces(face_results, frame.t_ns)

    def forget(self) -> None:
        """Drop all faces: the camera was switched off."""
        self._scene.forget(Modality.FACE)


class AudioHandler:
    """Runs the voice pipeline on each chunk of audio and adds its windows to the scene; one thread."""

    def __init__(
        self,
        pipeline: VoicePipeline,
        scene: LiveScene,
        *,
        live_view: LiveView,
        health: Health,
        latencies: Latencies,
    ) -> None:
        self._pipeline = pipeline
        self._scene = scene
        self._live_view = live_view
        self._counters = health.counters
        self._latencies = latencies

    def handle(self, chunk: AudioChunk) -> None:
        """Process one chunk; most complete no window."""
        self._counters["audio_gap_samples"] += chunk.gap
        self._live_view.add_chunk(chunk)
        start_s = time.perf_counter()
        for voice_result in self._pipeline.process(chunk):
            self._latencies.add("hear", time.perf_counter() - start_s)
            self._counters["windows"] += 1
            self._counters["spoken_windows"] += voice_result.prediction is not None
            self._scene.add_voice(voice_result)

    def forget(self) -> None:
        """Drop the voice and the audio so far: no window may span the time while the microphone was off."""
        self._pipeline.reset()
        self._scene.forget(Modality.VOICE)


class FaultReporter:
    """Logs and publishes that a component fails or works again; called by `Health` on any thread."""

    def __init__(self, status: StatusTopic, announcer: Announcer) -> None:
        self._status = status
        self._announcer = announcer

    def report(self, component: str, reason: str, detail: str) -> None:
        """Report a new fault, or with an empty reason that the component works again."""
        if reason:
            log.warning("%s degraded: %s", component, detail or reason)
        else:
            log.info("%s recovered", component)
        self._status.publish()
        # A recording that ended is not a fault of the device.
        if component not in UNREPORTED and reason != "ended":
            self._announcer.announce_device(component, reason)


def report_connection(health: Health, state: ConnectionState) -> None:
    """Record as faults that the broker refuses what this device publishes, or takes only a part of it.

    An offline broker is not a fault: it cannot be notified, and the outbox keeps the events.
    """
    faults = dict(state.faults)
    is_known = state.publishing != "unknown"
    if state.publishing == "refused" or (not is_known and "mqtt:publish_refused" in health.reasons):
        faults["publish_refused"] = "refuses what this device publishes; check the access list"
    health.set_faults("mqtt", {code: f"mqtt.host {state.address}: {text}" for code, text in faults.items()})
