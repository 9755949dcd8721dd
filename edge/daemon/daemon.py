"""`emotion-edge run`: connects devices, models, scene and delivery, and runs them until stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from edge.config import outbox_path, read_password, switches_path
from edge.daemon.device_switch import DeviceSwitch
from edge.daemon.handlers import FaultReporter, LiveScene, report_connection
from edge.daemon.models import DaemonModels, open_daemon_models
from edge.daemon.workers import DeviceWorker, open_workers
from edge.delivery.announcer import Announcer, clear_stale_states
from edge.delivery.cadence import STATE_INTERVAL_S
from edge.delivery.home_assistant.discovery import DiscoveryPublisher
from edge.delivery.outbox.queue import Outbox, open_outbox
from edge.delivery.outbox.writer import OutboxWriter
from edge.delivery.publisher import Publisher
from edge.delivery.status import StatusTopic
from edge.errors import DeviceError
from edge.files import ROOT
from edge.health import Health, StreamTime
from edge.host.monitor import Monitor
from edge.host.sd_notify import Notifier
from edge.host.switches import Switches
from edge.inference.accelerator import Accelerator
from edge.latency import Latencies
from edge.log_once import LogOnce
from edge.page.live_view import LiveView
from edge.page.server import Dashboard, read_token
from edge.page.statistics import Statistics
from edge.page.view import PageView
from edge.people.pooling import pool_name
from edge.people.scene import Scene
from edge.policy import allowed, sentence
from edge.settings import Config
from edge.values import PARTS

log = logging.getLogger(__name__)

MQTT_LIMIT_S = 180.0  # an unreachable name server takes 30 s for each broker, a pause up to 60 s
CLOSE_S = 1.2  # of the two seconds that a stop may take
PAGE_DELAY_S = 3.0  # at most: loading the web server must not delay the first prediction


class Daemon:
    """The whole device. `run` blocks until `stop`, which may be called from a signal handler.

    `root` is the directory below which the conditions of the device are read; `state_interval_s` is how often
    each state is published at least; `wall_ns` is the system clock.
    """

    def __init__(
        self,
        config: Config,
        *,
        root: Path = ROOT,
        state_interval_s: float = STATE_INTERVAL_S,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._policy = allowed(config.device)
        self._state_interval_s = state_interval_s
        self._stop = threading.Event()
        self._log_once = LogOnce(log)
        self._started_s = time.monotonic()
        self._notifier = Notifier()
        self._health = Health(StreamTime(wall_ns))
        self._monitor = Monitor(
            outbox_path(config).parent,
            self._health,
            soft_limit_c=config.health.soft_limit_c,
            fps=config.camera.fps,
            root=root,
        )
        self._latencies = Latencies()
        self._live_view = LiveView()
        self._failure: DeviceError | None = None  # why `run` ends by itself

    def stop(self) -> None:
        """Ask `run` to return."""
        self._stop.set()

    def run(self) -> None:
        """Run until stopped, then publish `offline` and return, within two seconds.

        Raises `ConfigError` and `ModelError` at start. Later faults appear in the status, except that a
        driver that hangs for good raises `DeviceError`.
        """
        config = self._config
        password = read_password(config.mqtt)
        token = read_token(config.dashboard)
        self._notifier.status("loading models")
        models = open_daemon_models(config)
        switches = Switches(
            switches_path(config),
            parts=[part for part in PARTS if getattr(config, part).source != "none"],
            health=self._health,
        )
        with ExitStack() as stack:
            outbox = open_outbox(outbox_path(config), config.outbox, device=config.device.id)
            stack.callback(outbox.close)
            self._health.resume(outbox.newest_time)
            stack.callback(lambda: outbox.store_time(self._health.time.now()))
            publisher = self._open_publisher(outbox, password)
            stack.callback(publisher.close, CLOSE_S)
            writer = OutboxWriter(outbox, publisher, self._health)
            stack.callback(writer.close)
            status = self._open_status(publisher, models, switches)
            announcer = self._open_announcer(models, publisher, writer)
            self._health.subscribe(FaultReporter(status, announcer).report)
            scene = LiveScene(self._open_scene(models), announcer)
            workers = self._open_workers(models, scene, switches)
            status.publish("starting")
            clear_stale_states(publisher, self._policy, watches_fatigue=config.watches_fatigue)
            self._start(stack, publisher, writer, workers.values())
            DeviceSwitch(
                workers,
                switches,
                publisher=publisher,
                status=status,
                health=self._health,
                live_view=self._live_view,
            ).start()
            stack.callback(switches.close)
            if config.inference.backend != "cpu":
                accelerator = Accelerator(models.classifiers, self._health, status.publish)
                accelerator.start()
                stack.callback(accelerator.close)
            self._notifier.ready()
            status.publish()
            brokers = ", ".join(map(str, config.mqtt.addresses))
            log.info("running as %s, broker %s; %s", config.device.id, brokers, sentence(config.device))
            statistics = self._open_statistics(outbox, publisher, models, switches)
            page = self._open_page(token, publisher, switches, status, statistics)
            stack.callback(page.close)
            self._run_clock(scene, publisher, status, statistics, page)
            self._notifier.stopping()
            status.publish("stopping")
        if self._failure is not None:
            raise self._failure

    def _open_publisher(self, outbox: Outbox, password: str | None) -> Publisher:
        return Publisher(
            self._config.mqtt,
            device=self._config.device.id,
            outbox=outbox,
            policy=self._policy,
            password=password,
            on_acked=partial(self._latencies.add, "publish"),
            on_state=partial(report_connection, self._health),
            on_progress=partial(self._health.progress, "mqtt", limit_s=MQTT_LIMIT_S),
        )

    def _open_status(self, publisher: Publisher, models: DaemonModels, switches: Switches) -> StatusTopic:
        return StatusTopic(
            publisher,
            self._health,
            models.classifiers,
            device=self._config.device,
            is_paused=switches.are_all_off,
            show_line=self._notifier.status,
        )

    def _open_statistics(
        self, outbox: Outbox, publisher: Publisher, models: DaemonModels, switches: Switches
    ) -> Statistics:
        return Statistics(
            self._health,
            self._monitor,
            self._latencies,
            policy=self._policy,
            outbox=outbox,
            publisher=publisher,
            switches=switches,
            classifiers=models.classifiers,
            started_s=self._started_s,
        )

    def _open_announcer(self, models: DaemonModels, publisher: Publisher, writer: OutboxWriter) -> Announcer:
        return Announcer(
            publisher,
            writer,
            self._health,
            policy=self._policy,
            classifiers={**models.classifiers, **models.faces.classifiers},
            fusion_model=pool_name(models.pool),
            state_interval_s=self._state_interval_s,
        )

    def _open_scene(self, models: DaemonModels) -> Scene:
        return Scene(
            self._config.fusion,
            fatigue=self._config.fatigue if self._config.watches_fatigue else None,
            pool=models.pool,
            # Fatigue may leave a restricted context, so no emotion of a person may be part of it there.
            uses_emotions_for_fatigue=not self._policy.restricted,
        )

    def _open_workers(
        self, models: DaemonModels, scene: LiveScene, switches: Switches
    ) -> dict[str, DeviceWorker]:
        return open_workers(
            self._config,
            models,
            scene,
            switches=switches,
            gate=self._monitor.gate,
            live_view=self._live_view,
            health=self._health,
            latencies=self._latencies,
            on_stuck=self._give_up,
        )

    def _give_up(self, error: DeviceError) -> None:
        """End `run`, so that systemd starts a new process: only that frees the device."""
        self._failure = error
        self._stop.set()

    def _start(
        self,
        stack: ExitStack,
        publisher: Publisher,
        writer: OutboxWriter,
        workers: Iterable[DeviceWorker],
    ) -> None:
        """Start the threads: delivery first, so that it takes what the devices report."""
        if self._config.mqtt.discovery:
            discovery = DiscoveryPublisher(self._config, publisher)
            discovery.start()
            stack.callback(discovery.close)
        publisher.start()
        writer.start()
        self._monitor.start()
        stack.callback(self._monitor.close)
        for worker in workers:
            worker.start()
            stack.callback(worker.close)

    def _open_page(
        self,
        token: str | None,
        publisher: Publisher,
        switches: Switches,
        status: StatusTopic,
        statistics: Statistics,
    ) -> Dashboard:
        view = PageView(
            self._config,
            publisher=publisher,
            switches=switches,
            live_view=self._live_view,
            health=self._health,
            statistics=statistics,
            status=status,
        )
        return Dashboard(self._config.dashboard, view, self._health, token)

    def _run_clock(
        self,
        scene: LiveScene,
        publisher: Publisher,
        status: StatusTopic,
        statistics: Statistics,
        page: Dashboard,
    ) -> None:
        """Once a second: update the scene, ping the watchdog, publish statistics; start the page once."""
        interval_s = self._config.mqtt.stats_interval_s
        next_stats_s = time.monotonic() + interval_s
        has_page = False
        while not self._stop.wait(min(1.0, self._notifier.watchdog_s or 1.0)):
            scene.update()
            self._health.check_time()
            if state := publisher.payloads.get("state"):
                self._live_view.add_emotion(state["emotion"], time.monotonic_ns())
            status.set_preview(self._live_view.state(time.monotonic_ns()).preview_s > 0)
            if stuck := self._health.stuck():
                # Without a ping systemd restarts the daemon, whose worker hangs.
                self._notifier.status(f"no progress in {', '.join(stuck)}")
            else:
                self._notifier.alive()
            if interval_s and time.monotonic() >= next_stats_s:
                next_stats_s += interval_s
                self._publish_stats(publisher, statistics)
            if not has_page and (statistics.has_input or statistics.uptime_s > PAGE_DELAY_S):
                has_page = True
                page.start()

    def _publish_stats(self, publisher: Publisher, statistics: Statistics) -> None:
        try:
            publisher.publish_stats(statistics.payload())
        except Exception as error:  # recognition and delivery do not depend on numbers
            reason = f"{type(error).__name__}: {error}"
            self._log_once.report("stats", reason, "statistics not published: %s", reason)
        else:
            self._log_once.clear("stats")
