"""`emotion-edge demo`: runs the daemon on an embedded broker and prints what an MQTT client receives."""

from __future__ import annotations

import json
import logging
import signal
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from edge.commands.listen import describe_event, describe_fatigue
from edge.config import load_config
from edge.daemon import Daemon
from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.subscriber import listen
from edge.errors import EXIT_FAILURE, EXIT_OK, BrokerError, EdgeError
from edge.settings import CameraSettings, Config, MicrophoneSettings, MqttSettings
from edge.sources.devices import list_cameras, list_microphones
from edge.sources.replay import clip_path

log = logging.getLogger(__name__)


def run_demo(*, seconds: float | None) -> int:
    """Run until Ctrl-C or for `seconds`; print every event that a subscriber receives.

    Returns 1 if no event arrived in `seconds`, else 0; raises the `EdgeError` that ended the daemon.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        tempfile.TemporaryDirectory(prefix="emotion-edge-") as directory,
        EmbeddedBroker(Path(directory) / "broker") as broker,
    ):
        config = demo_config(load_config(), broker, Path(directory))
        print(f"broker: mqtt://{broker.host}:{broker.port} (any MQTT client can connect)", flush=True)
        print(f"camera: {config.camera.source}\nmicrophone: {config.microphone.source}", flush=True)
        return _watch(config, stop, seconds)


def demo_config(config: Config, broker: EmbeddedBroker, directory: Path) -> Config:
    """Return `config` with the embedded broker, and with the shipped clip if there is no device."""
    clip = f"file:{clip_path()}?loop"
    devices = list_cameras() or list_microphones()
    camera = config.camera.source if devices or config.camera.source != "auto" else clip
    microphone = config.microphone.source if devices or config.microphone.source != "auto" else clip
    return config.model_copy(
        update={
            "mqtt": MqttSettings(host=broker.host, port=broker.port, stats_interval_s=10.0),
            "camera": CameraSettings(**{**config.camera.model_dump(), "source": camera}),
            "microphone": MicrophoneSettings(**{**config.microphone.model_dump(), "source": microphone}),
            "outbox": config.outbox.model_copy(update={"path": directory / "outbox.sqlite3"}),
        }
    )


def _watch(config: Config, stop: threading.Event, seconds: float | None) -> int:
    listener = listen(config.mqtt, f"{config.mqtt.prefix}/{config.device.id}/#")
    if not listener.wait_ready(10.0):
        listener.close()
        raise BrokerError("embedded broker: no confirmation of the subscription in 10 s; try again")
    daemon = Daemon(config)
    failures: list[EdgeError] = []

    def serve() -> None:
        try:
            daemon.run()
        except EdgeError as error:
            failures.append(error)
            stop.set()

    thread = threading.Thread(target=serve, name="daemon")
    thread.start()
    end_s = time.monotonic() + (seconds or float("inf"))
    events, console = 0, _MessagePrinter()
    try:
        while not stop.is_set() and (left_s := end_s - time.monotonic()) > 0:
            if (message := listener.receive(min(0.2, left_s))) is not None:
                events += console.print_message(message.topic, message.payload)
    finally:
        daemon.stop()
        thread.join(5.0)
        # What the daemon publishes while it stops.
        while (message := listener.receive(0.3)) is not None:
            console.print_message(message.topic, message.payload)
        listener.close()
    if failures:
        raise failures[0]
    print(f"{events} events received", flush=True)
    return EXIT_OK if events or stop.is_set() else EXIT_FAILURE


@dataclass
class _MessagePrinter:
    """Prints messages; remembers speaker and fatigue to print only their changes."""

    speaker: str | None = None
    fatigue: str = ""

    def print_message(self, topic: str, payload: bytes) -> bool:
        """Print at most one line for a message; return whether it is an event."""
        kind = topic.split("/", 2)[2]
        if kind == "event":
            event = json.loads(payload)
            self._print(event["time"], event["type"], describe_event(event["data"]))
            return True
        if kind == "availability":
            print(f"{kind}: {payload.decode()}", flush=True)
        elif kind == "status":
            status = json.loads(payload)
            print(f"{kind}: {status['state']} {' '.join(status['reasons'])}".rstrip(), flush=True)
        elif kind == "fatigue/state":
            state = json.loads(payload)
            # The numbers change with every blink: only a new level or reason is worth a line.
            fatigue = f"{state['level']} {' '.join(state['reasons'])}".rstrip()
            if fatigue != self.fatigue:
                self.fatigue = fatigue
                self._print(state["time"], "fatigue", describe_fatigue(state))
        elif kind == "state":
            state = json.loads(payload)
            if state["speaker"] != self.speaker:
                self.speaker = state["speaker"]
                self._print(state["time"], "speaking", self.speaker or "no one")
        return False

    def _print(self, time: str, kind: str, text: str) -> None:
        print(f"{time[11:23]}  {kind:<18} {text}", flush=True)
