"""Opens the workers of camera and microphone, each with its handler."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from edge.daemon.handlers import AudioHandler, FrameHandler, LiveScene
from edge.daemon.models import DaemonModels
from edge.errors import DeviceError
from edge.health import Health
from edge.host.cooling import FrameGate
from edge.host.switches import Switches
from edge.latency import Latencies
from edge.page.live_view import LiveView
from edge.settings import Config
from edge.sources.camera import open_camera
from edge.sources.microphone import open_microphone
from edge.sources.worker import Worker
from edge.values import AudioChunk, Frame

DeviceWorker = Worker[Frame] | Worker[AudioChunk]


def open_workers(
    config: Config,
    models: DaemonModels,
    scene: LiveScene,
    *,
    switches: Switches,
    gate: FrameGate,
    live_view: LiveView,
    health: Health,
    latencies: Latencies,
    on_stuck: Callable[[DeviceError], None],
) -> dict[str, DeviceWorker]:
    """Return the worker of each configured device by its name; each is to be started and closed.

    `on_stuck` is called when a driver hangs for good.
    """
    camera, microphone = config.camera, config.microphone
    workers: dict[str, DeviceWorker] = {}
    if camera.source != "none":
        workers["camera"] = Worker(
            "camera",
            partial(open_camera, camera.source, fps=camera.fps, width=camera.width, height=camera.height),
            FrameHandler(
                models.faces, scene, gate=gate, live_view=live_view, health=health, latencies=latencies
            ),
            health,
            is_on=switches.is_on("camera"),
            on_stuck=on_stuck,
        )
    if microphone.source != "none":
        workers["microphone"] = Worker(
            "microphone",
            partial(open_microphone, microphone.source),
            AudioHandler(models.voices, scene, live_view=live_view, health=health, latencies=latencies),
            health,
            is_on=switches.is_on("microphone"),
            on_stuck=on_stuck,
        )
    return workers
