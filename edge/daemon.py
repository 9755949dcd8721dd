"""`emotion-edge run`: devices, models, fusion and delivery on their threads, until told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge import __version__
from edge.config import outbox_path, read_password, switches_path
from edge.delivery import messages
from edge.delivery.home_assistant.discovery import DiscoveryPublisher
from edge.delivery.mqtt.connection_state import ConnectionState
from edge.delivery.outbox.queue import Counts, Outbox, open_outbox
from edge.delivery.outbox.writer import OutboxWriter
from edge.delivery.publisher import Publisher
from edge.errors import DeviceError, OutboxError
from edge.files import ROOT
from edge.health import Health
from edge.host.malloc import rss_bytes
from edge.host.monitor import Monitor
from edge.host.sd_notify import Notifier
from edge.host.switches import Switches
from edge.inference.accelerator import Accelerator, backends
from edge.inference.fallback import FallbackClassifier
from edge.latency import Latencies
from edge.page.live_view import LiveView
from edge.page.server import Dashboard, read_token
from edge.page.view import Shown
from edge.people.pooling import open_pool
from edge.people.scene import Room
from edge.pipeline import FacePipeline, VoicePipeline, open_face_pipeline, open_voice_pipeline, opener
from edge.policy import allowed, sentence
from edge.settings import Config
from edge.sources.camera import open_camera
from edge.sources.microphone import open_microphone
from edge.sources.worker import Worker
from edge.values import AudioChunk, Frame, Modality

if TYPE_CHECKING:
    from edge.page.metrics import Snapshot

log = logging.getLogger(__name__)

TASKS: tuple[Literal["face", "voice"], ...] = ("face", "voice")
MQTT_LIMIT_S = 180.0  # a name server that is gone takes half a minute a broker, a pause another minute
CLOSE_S = 1.2  # of the two seconds that a stop may take
PAGE_DELAY_S = 3.0  # at most, for the first picture or sound to be judged before the web server is loaded
MODALITIES = {"camera": Modality.FACE, "microphone": Modality.VOICE}


class Daemon:
    """The whole device. `run` blocks until `stop`, which may be called from a signal handler.

    Raises `ConfigError` and `ModelError` at start; everything later is a status, not an exception, except
    that `run` ends with a `DeviceError` when a driver hangs for good. `root` is where the device's own
    conditions are read below.
    """

    def __init__(self, config: Config, *, root: Path = ROOT) -> None:
        self._config = config
        self._policy = allowed(config.device)
        self._stop = threading.Event()
        self._started_s = time.monotonic()
        self._notifier = Notifier()
        self._health = Health(self._on_fault)
        self._watch = Monitor(
            outbox_path(config).parent,
            self._health,
            soft_limit_c=config.health.soft_limit_c,
            fps=config.camera.fps,
            root=root,
        )
        self._classifiers: dict[str, FallbackClassifier] = {}
        self._room: Room | None = None
        self._publisher: Publisher | None = None
        self._failure: DeviceError | None = None
        self._switches: Switches | None = None
        self._latencies = Latencies()
        self._board = LiveView()
        self._status: dict[str, object] = {}

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped, then say `offline` and return, within two seconds."""
        config = self._config
        password = read_password(config.mqtt)
        token = read_token(config.dashboard)
        self._notifier.status("loading models")
        for task in TASKS:
            self._classifiers[task] = FallbackClassifier(opener(config, task), config.inference.backend)
        eyes = open_face_pipeline(config, self._classifiers["face"])
        ears = open_voice_pipeline(config, self._classifiers["voice"])
        with ExitStack() as stack:
            outbox = open_outbox(outbox_path(config), config.outbox, device=config.device.id)
            stack.callback(outbox.close)
            publisher = Publisher(
                config.mqtt,
                device=config.device.id,
                outbox=outbox,
                policy=self._policy,
                password=password,
                on_acked=lambda seconds: self._latencies.add("publish", seconds),
                on_state=self._on_link,
                on_progress=lambda: self._health.progress("mqtt", limit_s=MQTT_LIMIT_S),
            )
            self._publisher = publisher
            stack.callback(publisher.close, CLOSE_S)
            recorder = OutboxWriter(outbox, publisher, self._health)
            stack.callback(recorder.close)
            self._room = Room(
                config.fusion,
                fatigue=config.fatigue if config.watches_fatigue else None,
                pool=open_pool(config),
                policy=self._policy,
                publisher=publisher,
                recorder=recorder,
                health=self._health,
                classifiers={**self._classifiers, **eyes.helpers},
            )
            workers: dict[str, Worker[Frame] | Worker[AudioChunk]] = {}
            switches = self._switches = self._open_switches(workers)
            self._publish_status("starting")
            self._tell_switches(publisher, switches)
            self._withdraw(publisher)
            if config.mqtt.discovery:
                announcer = DiscoveryPublisher(config, publisher)
                announcer.start()
                stack.callback(announcer.close)
            publisher.start()
            recorder.start()
            self._watch.start()
            stack.callback(self._watch.close)
            for name, worker in self._workers(eyes, ears, switches):
                workers[name] = worker
                worker.start()
                stack.callback(worker.close)
            switches.start()
            stack.callback(switches.close)
            if config.inference.backend != "cpu":
                accelerator = Accelerator(self._classifiers, self._health, self._publish_status)
                accelerator.start()
                stack.callback(accelerator.close)
            self._notifier.ready()
            self._publish_status()
            brokers = ", ".join(map(str, config.mqtt.addresses))
            log.info("running as %s, broker %s; %s", config.device.id, brokers, sentence(config.device))
            shown = Shown(
                config,
                publisher=publisher,
                switches=switches,
                board=self._board,
                health=self._health,
                snapshot=lambda: self._snapshot(publisher, outbox),
                status=lambda: self._status,
                on_preview=self._tell_preview,
            )
            page = Dashboard(config.dashboard, shown.answers(), self._health, token)
            stack.callback(page.close)
            self._serve(publisher, outbox, page)
            self._notifier.stopping()
            self._publish_status("stopping")
        if self._failure is not None:
            raise self._failure

    def _give_up(self, error: DeviceError) -> None:
        """Leave, so that systemd starts a process that no driver holds."""
        self._failure = error
        self._stop.set()

    def _open_switches(self, workers: Mapping[str, Worker[Frame] | Worker[AudioChunk]]) -> Switches:
        config = self._config

        def switch(part: str, is_on: bool) -> None:
            if part in workers:
                workers[part].switch(is_on)
            assert self._publisher is not None, "commands come through it"
            self._publisher.publish_state(f"{part}/enabled/state", messages.enabled(is_on))
            self._health.since = datetime.now(UTC)
            self._publish_status()

        return Switches(
            switches_path(config),
            parts=[part for part in MODALITIES if getattr(config, part).source != "none"],
            apply=switch,
            health=self._health,
        )

    def _tell_switches(self, publisher: Publisher, switches: Switches) -> None:
        for part in switches.parts:
            publisher.publish_state(f"{part}/enabled/state", messages.enabled(switches.is_on(part)))
            publisher.subscribe(f"{part}/enabled/set", partial(switches.command, part))

    def _withdraw(self, publisher: Publisher) -> None:
        """Take back what an earlier context had left in the broker and this one may not say."""
        for subtopic in self._policy.withdrawn:
            publisher.clear_retained(subtopic)

    def _workers(
        self, eyes: FacePipeline, ears: VoicePipeline, switches: Switches
    ) -> Iterator[tuple[str, Worker[Frame] | Worker[AudioChunk]]]:
        camera, microphone = self._config.camera, self._config.microphone
        room, counters = self._room, self._health.counters
        assert room is not None

        def forget_sound() -> None:
            nonlocal ears
            # What was heard last must not be judged together with what is heard after the pause.
            ears = open_voice_pipeline(self._config, self._classifiers["voice"])
            room.forget(Modality.VOICE)

        def see(frame: Frame) -> None:
            counters["frames_dropped"] += frame.dropped
            if not self._watch.gate.accepts(frame.t_ns):
                counters["frames_spared"] += 1
                return
            with self._latencies.measure("see"):
                face_results = eyes.process(frame)
            counters["frames"] += 1
            counters["faces"] += len(face_results)
            self._board.add_frame(frame, [face_result.face for face_result in face_results])
            room.see(face_results, t_ns=frame.t_ns)

        def hear(chunk: AudioChunk) -> None:
            counters["audio_gap_samples"] += chunk.gap
            self._board.add_chunk(chunk)
            start_s = time.perf_counter()
            for voice_result in ears.process(chunk):
                self._latencies.add("hear", time.perf_counter() - start_s)
                counters["windows"] += 1
                counters["spoken_windows"] += voice_result.prediction is not None
                room.hear(voice_result)

        if camera.source != "none":
            yield (
                "camera",
                Worker(
                    "camera",
                    lambda: open_camera(
                        camera.source, fps=camera.fps, width=camera.width, height=camera.height
                    ),
                    see,
                    self._health,
                    is_on=switches.is_on("camera"),
                    when_off=lambda: room.forget(Modality.FACE),
                    when_stuck=self._give_up,
                ),
            )
        if microphone.source != "none":
            yield (
                "microphone",
                Worker(
                    "microphone",
                    lambda: open_microphone(microphone.source),
                    hear,
                    self._health,
                    is_on=switches.is_on("microphone"),
                    when_off=forget_sound,
                    when_stuck=self._give_up,
                ),
            )

    def _serve(self, publisher: Publisher, outbox: Outbox, page: Dashboard) -> None:
        """Once a second: let opinions age, feed the watchdog, send statistics."""
        assert self._room is not None
        interval_s = self._config.mqtt.stats_interval_s
        next_stats_s = time.monotonic() + interval_s
        is_served = False
        while not self._stop.wait(min(1.0, self._notifier.watchdog_s or 1.0)):
            self._room.tick()
            if state := self._room.told.get("state"):
                self._board.note(state["emotion"], time.monotonic_ns())
            self._tell_preview()
            if stuck := self._health.stuck():
                # No ping: systemd restarts a daemon whose worker hangs.
                self._notifier.status(f"no progress in {', '.join(stuck)}")
            else:
                self._notifier.alive()
            if interval_s and time.monotonic() >= next_stats_s:
                next_stats_s += interval_s
                publisher.publish_stats(self._stats(outbox))
            if not is_served and (self._has_begun or time.monotonic() - self._started_s > PAGE_DELAY_S):
                is_served = True
                page.start()

    @property
    def _has_begun(self) -> bool:
        counters = self._health.counters
        return bool(counters["frames"] or counters["windows"])

    def _numbers(self) -> dict[str, int | float]:
        counters = self._policy.counters(self._health.counters)
        return {**counters, "rss_bytes": rss_bytes(), **self._watch.numbers()}

    def _stats(self, outbox: Outbox) -> dict[str, object]:
        return messages.stats(
            time=datetime.now(UTC),
            uptime_s=time.monotonic() - self._started_s,
            counters=self._numbers(),
            latency_ms=self._latencies.quantiles_ms(),
            outbox=_counts(outbox),
        )

    def _tell_preview(self) -> None:
        """Say on the status topic that a preview runs, and that it ended."""
        is_on = self._board.view(time.monotonic_ns()).preview_s > 0
        if is_on != self._status.get("preview"):
            self._publish_status()

    def _snapshot(self, publisher: Publisher, outbox: Outbox) -> Snapshot:
        from edge.page.metrics import Snapshot

        assert self._room is not None
        assert self._switches is not None
        return Snapshot(
            uptime_s=time.monotonic() - self._started_s,
            counters=self._numbers(),
            faults=self._health.reasons,
            outbox=_counts(outbox),
            is_connected=publisher.connection_state.connected,
            live_dropped=publisher.live_dropped,
            latency_ms=self._latencies.quantiles_ms(),
            backends={task: classifier.backend for task, classifier in self._classifiers.items()},
            switches={part: self._switches.is_on(part) for part in self._switches.parts},
            told=dict(self._room.told),
        )

    def _on_link(self, state: ConnectionState) -> None:
        """Tell that the broker does not take what we publish; that it is away, it cannot be told."""
        if state.publishing == "refused":
            detail = f"mqtt.host {state.address}: refuses what this device publishes; check the access list"
            self._health.fault("mqtt", "publish_refused", detail)
        elif state.publishing == "allowed":
            self._health.clear("mqtt")

    def _on_fault(self, component: str, reason: str, detail: str) -> None:
        if reason:
            log.warning("%s degraded: %s", component, detail or reason)
        else:
            log.info("%s recovered", component)
        self._publish_status()
        if self._room is not None and component not in ("outbox", "mqtt") and reason != "ended":
            self._room.report_device(component, reason)

    def _publish_status(self, state: str | None = None) -> None:
        reasons = self._health.reasons
        if state is None and self._switches is not None and self._switches.are_all_off:
            state = "paused"
        state = state or ("degraded" if reasons else "running")
        if self._publisher is not None:
            self._status = messages.status(
                state,
                reasons=reasons,
                since=self._health.since,
                version=__version__,
                backends=backends(self._classifiers),
                preview=self._board.view(time.monotonic_ns()).preview_s > 0,
                device=self._config.device,
            )
            self._publisher.publish_state("status", self._status)
        self._notifier.status(f"{state} {' '.join(reasons)}".strip())


def _counts(outbox: Outbox) -> Counts | None:
    """Return the counts of the outbox; None while the disk is away."""
    try:
        return outbox.counts()
    except OutboxError:
        return None
