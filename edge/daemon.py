"""`emotion-edge run`: devices, models, fusion and delivery on their threads, until told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar

from edge import __version__, messages
from edge.camera import open_camera
from edge.config import Config, outbox_path, read_password
from edge.errors import DeviceError, OutboxError
from edge.fallback import SteadyClassifier
from edge.health import Health, Notifier, rss_bytes
from edge.linkstate import LinkState
from edge.microphone import open_microphone
from edge.mqtt import Publisher, backoff_s
from edge.outbox import Outbox, open_outbox
from edge.pipeline import Ears, Eyes, open_ears, open_eyes, opener
from edge.policy import allowed
from edge.recorder import Recorder
from edge.room import Room
from edge.values import AudioChunk, Frame, Source

log = logging.getLogger(__name__)

TASKS: tuple[Literal["face", "voice"], ...] = ("face", "voice")
STUCK_S = 15.0
ACCELERATOR_TICK_S = 0.5
CLOSE_S = 1.2  # of the two seconds that a stop may take

T = TypeVar("T")


class Worker(Generic[T]):
    """One device on a thread of its own: opened, read, and opened again when it fails."""

    def __init__(
        self, name: str, opener: Callable[[], Source[T]], handle: Callable[[T], None], health: Health
    ) -> None:
        self._name = name
        self._opener = opener
        self._handle = handle
        self._health = health
        self._stop = threading.Event()
        self._source: Source[T] | None = None
        self._had_items = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; faults go to `Health`, never to the caller."""
        self._health.progress(self._name)
        self._thread.start()

    def close(self) -> None:
        """Close the device and wait a little; a driver that hangs is left behind."""
        self._stop.set()
        if (source := self._source) is not None:
            source.close()
        self._thread.join(0.5)

    def _run(self) -> None:
        attempt = 0
        while True:
            self._had_items = False
            try:
                self._read()
                reason, detail = "ended", f"{self._name}: the recording is over"
            except DeviceError as error:
                reason, detail = error.reason, str(error)
            except Exception as error:  # outermost loop: one bad frame must not end a modality for good
                log.exception("%s: failed on an error of our own", self._name)
                reason, detail = "internal", f"{self._name}: {type(error).__name__}"
            if self._stop.is_set():
                return
            if reason == "ended":
                log.info("%s", detail)
                self._health.fault(self._name, reason, detail)
                self._pause(float("inf"))
                return
            log.log(logging.DEBUG if self._is_known(reason) else logging.WARNING, "%s", detail)
            self._health.fault(self._name, reason, detail)
            attempt = 0 if self._had_items else attempt + 1
            if self._pause(backoff_s(attempt)):
                return

    def _read(self) -> None:
        self._source = source = self._opener()
        try:
            for item in source:
                if self._stop.is_set():
                    break
                self._handle(item)
                self._had_items = True
                self._health.progress(self._name)
                self._health.clear(self._name)
        finally:
            source.close()

    def _is_known(self, reason: str) -> bool:
        return f"{self._name}:{reason}" in self._health.reasons

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt, still making progress; True when it is time to stop."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            self._health.progress(self._name)
            if self._stop.wait(min(1.0, left_s)):
                return True
        return self._stop.is_set()


class Daemon:
    """The whole device. `run` blocks until `stop`, which may be called from a signal handler.

    Raises `ConfigError` and `ModelError` at start; everything later is a status, not an exception.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        self._started_s = time.monotonic()
        self._notifier = Notifier()
        self._health = Health(self._on_fault)
        self._classifiers: dict[str, SteadyClassifier] = {}
        self._room: Room | None = None
        self._publisher: Publisher | None = None

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped, then say `offline` and return, within two seconds."""
        config = self._config
        password = read_password(config.mqtt)
        self._notifier.status("loading models")
        for task in TASKS:
            self._classifiers[task] = SteadyClassifier(opener(config, task), config.inference.backend)
        eyes = open_eyes(config, self._classifiers["face"])
        ears = open_ears(config, self._classifiers["voice"])
        with ExitStack() as stack:
            outbox = open_outbox(outbox_path(config), config.outbox, device=config.device.id)
            stack.callback(outbox.close)
            publisher = Publisher(
                config.mqtt,
                device=config.device.id,
                outbox=outbox,
                password=password,
                on_state=self._on_link,
            )
            self._publisher = publisher
            stack.callback(publisher.close, CLOSE_S)
            recorder = Recorder(outbox, publisher, self._health)
            stack.callback(recorder.close)
            self._room = Room(
                config.fusion,
                policy=allowed(config.device),
                publisher=publisher,
                recorder=recorder,
                health=self._health,
                classifiers=self._classifiers,
            )
            self._publish_status("starting")
            publisher.start()
            recorder.start()
            for worker in self._workers(eyes, ears):
                worker.start()
                stack.callback(worker.close)
            if config.inference.backend != "cpu":
                threading.Thread(target=self._keep_accelerated, name="accelerator", daemon=True).start()
            self._notifier.ready()
            self._publish_status()
            log.info("running as %s, broker %s", config.device.id, ", ".join(map(str, config.mqtt.addresses)))
            self._serve(publisher, outbox)
            self._notifier.stopping()
            self._publish_status("stopping")

    def _workers(self, eyes: Eyes, ears: Ears) -> Iterator[Worker[Frame] | Worker[AudioChunk]]:
        camera, microphone, room, counters = (
            self._config.camera,
            self._config.microphone,
            self._room,
            self._health.counters,
        )
        assert room is not None

        def see(frame: Frame) -> None:
            sightings = eyes.see(frame)
            counters["frames"] += 1
            counters["faces"] += len(sightings)
            room.observe([sighting.prediction for sighting in sightings], t_ns=frame.t_ns)

        def hear(chunk: AudioChunk) -> None:
            counters["audio_gap_samples"] += chunk.gap
            for hearing in ears.hear(chunk):
                counters["windows"] += 1
                if hearing.prediction is not None:
                    counters["spoken_windows"] += 1
                    room.observe([hearing.prediction], t_ns=hearing.window.t_ns)

        if camera.source != "none":
            yield Worker(
                "camera",
                lambda: open_camera(camera.source, fps=camera.fps, width=camera.width, height=camera.height),
                see,
                self._health,
            )
        if microphone.source != "none":
            yield Worker("microphone", lambda: open_microphone(microphone.source), hear, self._health)

    def _serve(self, publisher: Publisher, outbox: Outbox) -> None:
        """Once a second: let opinions age, feed the watchdog, send statistics."""
        assert self._room is not None
        interval_s = self._config.mqtt.stats_interval_s
        next_stats_s = time.monotonic() + interval_s
        while not self._stop.wait(min(1.0, self._notifier.watchdog_s or 1.0)):
            self._room.tick()
            if stuck := self._health.stuck(STUCK_S):
                # No ping: systemd restarts a daemon whose worker hangs.
                self._notifier.status(f"no progress in {', '.join(stuck)}")
            else:
                self._notifier.alive()
            if interval_s and time.monotonic() >= next_stats_s:
                next_stats_s += interval_s
                publisher.publish_stats(self._stats(outbox))

    def _keep_accelerated(self) -> None:
        """Bring the models onto the wanted backend, and back onto it when it was lost; tell either way."""
        told = self._backends()
        while not self._stop.wait(ACCELERATOR_TICK_S):
            for classifier in self._classifiers.values():
                classifier.retry(time.monotonic())
                if (now := self._backends()) != told:
                    told = now
                    log.info(
                        "models run on %s", ", ".join(f"{told[task]['backend']} ({task})" for task in told)
                    )
                    self._publish_status()
            self._tell_accelerator()

    def _tell_accelerator(self) -> None:
        fault = next((model.fault for model in self._classifiers.values() if model.fault), None)
        if fault is None:
            self._health.clear("accelerator")
        elif f"accelerator:{fault.reason}" not in self._health.reasons:
            self._health.fault("accelerator", fault.reason, f"{fault}; running on the CPU")

    def _backends(self) -> dict[str, dict[str, object]]:
        return {
            task: {"backend": classifier.backend, "passed_over": classifier.passed_over}
            for task, classifier in self._classifiers.items()
        }

    def _stats(self, outbox: Outbox) -> dict[str, object]:
        counts = None
        with suppress(OutboxError):
            counts = outbox.counts()
        return messages.stats(
            time=datetime.now(UTC),
            uptime_s=time.monotonic() - self._started_s,
            counters={**self._health.counters, "rss_bytes": rss_bytes()},
            latency_ms={},
            outbox=counts,
        )

    def _on_link(self, state: LinkState) -> None:
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
        state = state or ("degraded" if reasons else "running")
        if self._publisher is not None:
            payload = messages.status(
                state,
                reasons=reasons,
                since=self._health.since,
                version=__version__,
                backends=self._backends(),
            )
            self._publisher.publish_state("status", payload)
        self._notifier.status(f"{state} {' '.join(reasons)}".strip())
