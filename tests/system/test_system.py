"""The daemon as a black box: its own process, a real broker, a foreign client, the shipped clip."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import jsonschema
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.commands.demo import run_demo
from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.messages import load_schema
from edge.delivery.mqtt.connection import Message
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.delivery.subscriber import Listener, listen
from edge.inference.card import artifacts_directory
from edge.settings import MqttSettings
from edge.sources.replay import clip_path
from tests.helpers.brokers import wait_until

ROOT = Path(__file__).parents[2]
SCHEMA_OF = {
    "status": "status",
    "state": "state",
    "face/state": "face_state",
    "voice/state": "voice_state",
    "group/state": "group_state",
    "event": "event",
    "ha_event": "ha_event",
    "stats": "stats",
}


def environment(host: str, port: int, directory: Path, **more: str) -> dict[str, str]:
    """Return the environment of a daemon that plays the clip."""
    clip = f"file:{clip_path()}?loop"
    return {
        **os.environ,
        "EMOTION_EDGE__DEVICE__ID": "lab",
        "EMOTION_EDGE__MQTT__HOST": host,
        "EMOTION_EDGE__MQTT__PORT": str(port),
        "EMOTION_EDGE__CAMERA__SOURCE": clip,
        "EMOTION_EDGE__MICROPHONE__SOURCE": clip,
        "EMOTION_EDGE__OUTBOX__PATH": str(directory / "outbox.sqlite3"),
        "EMOTION_EDGE__DASHBOARD__BIND": "none",
        "EMOTION_EDGE__HEALTH__SOFT_LIMIT_C": "120",  # a busy laptop is hotter than a device on a wall may be
        **more,
    }


@contextmanager
def daemon(env: dict[str, str], *, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon while the block lasts; its output goes to `log`."""
    with ExitStack() as stack:
        file = stack.enter_context(log.open("ab")) if log else None
        process = subprocess.Popen([sys.executable, "-m", "edge", "run"], env=env, cwd=ROOT, stderr=file)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def collect(listener: Listener, until: object, seconds: float) -> list[Message]:
    """Receive until `until(messages)` holds; fail with what came when it never does."""
    messages: list[Message] = []
    end_s = time.monotonic() + seconds
    while not until(messages):  # type: ignore[operator]
        assert time.monotonic() < end_s, [m.topic for m in messages]
        if (message := listener.receive(0.5)) is not None:
            messages.append(message)
    return messages


def events(messages: list[Message]) -> list[dict[str, object]]:
    """Return the CloudEvents among the messages."""
    return [json.loads(m.payload) for m in messages if m.topic.endswith("/event")]


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mosquitto(directory: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real mosquitto on loopback that keeps what it acknowledged."""
    binary = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        pytest.skip("mosquitto is not installed: sudo apt install mosquitto")
    directory.mkdir(exist_ok=True)
    config = directory / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\nuser root\n"
        f"persistence_location {directory}/\nautosave_interval 1\nautosave_on_changes true\n"
    )
    process = subprocess.Popen([binary, "-c", str(config)], stderr=subprocess.DEVNULL)
    end_s = time.monotonic() + 10
    while not _answers(port):
        assert time.monotonic() < end_s, "mosquitto does not answer"
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def any_broker(kind: str, directory: Path) -> Iterator[int]:
    """Run one of the two real brokers; give its port."""
    if kind == "nats":
        with EmbeddedBroker(directory) as broker:
            yield broker.port
    else:
        port = free_port()
        with mosquitto(directory, port):
            yield port


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_every_payload_fits_its_schema_and_both_models_spoke(kind: str, tmp_path: Path) -> None:
    """A foreign client receives status, states and events of both models, and each fits its schema."""
    with (
        any_broker(kind, tmp_path / "broker") as port,
        closing(listen(MqttSettings(port=port), "emotion/lab/#")) as listener,
    ):
        assert listener.wait_ready(10)
        env = environment("127.0.0.1", port, tmp_path, EMOTION_EDGE__MQTT__STATS_INTERVAL_S="2")
        with daemon(env) as process:
            messages = collect(
                listener,
                lambda seen: (
                    any(e["type"] == "emotion.changed" and e["data"]["voice"] for e in events(seen))  # type: ignore[index]
                    and any(m.topic.endswith("/stats") for m in seen)
                ),
                40,
            )
            process.send_signal(signal.SIGTERM)
            stopped_s = time.monotonic()
            assert process.wait(5) == 0
            assert time.monotonic() - stopped_s < 2.5
        messages += collect(listener, lambda seen: seen and seen[-1].payload == b"offline", 5)
    for message in messages:
        subtopic = message.topic.removeprefix("emotion/lab/")
        if subtopic in SCHEMA_OF:
            jsonschema.validate(json.loads(message.payload), load_schema(SCHEMA_OF[subtopic]))
    assert {m.topic.removeprefix("emotion/lab/") for m in messages} >= {*SCHEMA_OF, "availability"}
    changed = next(e["data"] for e in events(messages) if e["type"] == "emotion.changed")
    assert changed["model"]["face"].startswith("face-cnn@")  # type: ignore[index]


def test_kill_9_makes_mosquitto_say_offline(tmp_path: Path) -> None:
    """After kill -9 the broker publishes the last will."""
    port = free_port()
    with (
        mosquitto(tmp_path / "broker", port),
        closing(listen(MqttSettings(port=port), "emotion/lab/availability")) as listener,
    ):
        assert listener.wait_ready(10)
        with daemon(environment("127.0.0.1", port, tmp_path)) as process:
            collect(listener, lambda seen: any(m.payload == b"online" for m in seen), 20)
            process.kill()
            collect(listener, lambda seen: any(m.payload == b"offline" for m in seen), 20)


@contextmanager
def durable_subscriber(port: int, received: list[dict[str, object]]) -> Iterator[None]:
    """Subscribe with a session that the broker keeps, so that no event is missed while it is disconnected."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="foreign", clean_session=False)
    client.on_connect = lambda client, *_: client.subscribe("emotion/lab/event", qos=1)
    client.on_message = lambda _client, _data, message: received.append(json.loads(message.payload))
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


def waiting(path: Path) -> int:
    """Return how many events the outbox of a running daemon holds."""
    with closing(DeadLetters(path)) as outbox:
        return outbox.contents().counts.waiting


def test_broker_stopped_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """Events that happen while the broker is away arrive afterwards, in order, without a gap."""
    port = free_port()
    received: list[dict[str, object]] = []

    def wait_for(count: int, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while len(received) < count:
            assert time.monotonic() < end_s, received
            time.sleep(0.05)

    with ExitStack() as stack:
        with mosquitto(tmp_path / "broker", port):
            stack.enter_context(durable_subscriber(port, received))
            stack.enter_context(daemon(environment("127.0.0.1", port, tmp_path)))
            wait_for(3, 40)
        wait_until(lambda: waiting(tmp_path / "outbox.sqlite3") >= 2, "events that wait for the broker")
        before = len(received)
        stack.enter_context(mosquitto(tmp_path / "broker", port))
        wait_for(before + 3, 80)
    numbers = list(dict.fromkeys(event["sequence"] for event in received))
    assert numbers == list(range(1, len(numbers) + 1))


def test_demo_prints_events_until_ctrl_c(tmp_path: Path) -> None:
    """`make run` prints events that arrived over MQTT, then its farewell, and exits with 0."""
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "demo"], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
    ) as process:
        assert process.stdout is not None
        assert any("presence.gained" in line for line in process.stdout), "it ended before an event"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "availability: offline" in rest


def test_demo_ends_by_itself_and_tells_that_nothing_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make run DURATION=...`: after that time it is over, with 1 where no event came."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("EMOTION_EDGE__DASHBOARD__BIND", "none")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert run_demo(seconds=0.01) == 1
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
            signal.signal(number, handler)
    assert "0 events received" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        ("version = 1\n[camera]\nfsp = 3\n", 3, "did you mean fps"),
        ("version = 1\n[camera]\nfps = 'x'\n", 3, "camera.fps"),
        ("version = 1\n[models]\nface = 'nobody'\n", 4, "no nobody.json in the package"),
    ],
)
def test_bad_config_is_one_sentence_and_its_code(tmp_path: Path, text: str, code: int, error: str) -> None:
    """What is wrong in the config is named, and the exit code is the documented one."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "edge", "run", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == code
    assert error in done.stderr
    assert "Traceback" not in done.stderr


def test_model_with_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    """One changed byte in a model file: one sentence that names it, exit code 4."""
    shutil.copytree(artifacts_directory(), tmp_path / "artifacts")
    model = tmp_path / "artifacts" / "voice-lstm.int8.tflite"
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    env = {**os.environ, "EMOTION_EDGE__MODELS__DIRECTORY": str(tmp_path / "artifacts")}
    done = subprocess.run(
        [sys.executable, "-m", "edge", "run"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=env,
        check=False,
    )
    assert done.returncode == 4
    assert "voice-lstm.int8.tflite: SHA-256 is" in done.stderr
    assert "Traceback" not in done.stderr


def test_systemd_is_told_ready(tmp_path: Path) -> None:
    """READY=1 and a STATUS arrive on a real notify socket."""
    address = tmp_path / "notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(str(address))
        server.settimeout(20)
        env = environment("127.0.0.1", free_port(), tmp_path, NOTIFY_SOCKET=str(address))
        with daemon(env):
            received: list[bytes] = []
            while b"READY=1" not in received:
                received.append(server.recv(4096))
    assert any(message.startswith(b"STATUS=") for message in received)
