"""Home Assistant: its own schemas take the announcement, its templates read our payloads, brokers keep it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.__main__ import main
from edge.delivery import messages
from edge.delivery.home_assistant.discovery import DiscoveryPublisher, discovery_topic
from edge.delivery.home_assistant.entities import discovery_payload, entity_ids
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.rows import Counts
from edge.delivery.publisher import Publisher
from edge.people.fatigue import FatigueState
from edge.policy import allowed
from edge.settings import CameraSettings, Config, Context, DeviceSettings, MqttSettings
from edge.values import ABSENT, LABELS, UNCERTAIN, SubjectState, encode
from tests.helpers.brokers import BRISK, Broker, free_port, settings_of, wait_until, watching

ROOT = Path(__file__).parents[4]
TOPIC = "homeassistant/device/kitchen/config"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
ANGRY = SubjectState("room", "anger", 0.6123, dict.fromkeys(LABELS, 0.1), None, None, t_ns=1)
NO_SPEAKER = SubjectState("room", ABSENT, 0.0, {}, None, None, t_ns=1)


# Returns what Home Assistant makes of the announcement, and of a payload for each subtopic.
HomeAssistant = Callable[[Config, dict[str, Any]], dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def home_assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HomeAssistant]:
    """Run Home Assistant's Python once for all tests: importing it takes two seconds."""
    python = ROOT / ".venv-ha" / "bin" / "python"
    if not (ROOT / ".venv-ha" / "test.stamp").exists():
        pytest.skip("Home Assistant is not installed: it needs Python 3.13, then `make .venv-ha/test.stamp`")
    errors = tmp_path_factory.mktemp("home-assistant") / "stderr"
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, ROOT / "tests" / "helpers" / "home_assistant.py"]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def ask(config: Config, payloads: dict[str, Any]) -> dict[str, dict[str, Any]]:
            root = f"{config.mqtt.prefix}/{config.device.id}"
            messages = {f"{root}/{key}": encode(value).decode() for key, value in payloads.items()}
            print(
                json.dumps({"config": discovery_payload(config), "messages": messages}),
                file=stdin,
                flush=True,
            )
            line = stdout.readline()
            assert line, errors.read_text()
            answer: dict[str, dict[str, Any]] = json.loads(line)
            return answer

        yield ask


BUSY = {"frames": 9, "audio_gap_samples": 8000, "temperature_c": 61.3, "disk_free_bytes": 12_345_678_901}


def payloads(
    config: Config, state: SubjectState, *, faces: int, status: str, outbox: Counts | None
) -> dict[str, Any]:
    """Return one real payload for each topic that Home Assistant reads."""
    tired = FatigueState("room", "drowsy" if faces else ABSENT, reasons=("perclos",) if faces else ())
    return {
        "state": messages.state(state, faces=faces, present=faces > 0, fatigue=None, time=NOW),
        "group/state": messages.group_state({"anger": faces} if faces else None, time=NOW),
        "fatigue/state": messages.fatigue_state(tired, [], time=NOW),
        "status": messages.status(
            status, reasons=["camera:lost"], since=NOW, version="1", backends={}, device=config.device
        ),
        "stats": messages.stats(
            time=NOW,
            uptime_s=61.4,
            counters={"rss_bytes": 123_456_789} | (BUSY if faces else {}),
            latency_ms={},
            outbox=outbox,
        ),
        "camera/enabled/state": messages.enabled(False),
        "microphone/enabled/state": messages.enabled(True),
    }


def test_home_assistant_accepts_and_understands_every_entity(home_assistant: HomeAssistant) -> None:
    """Its schemas keep every key, and its templates turn the payloads into the right states."""
    config = Config(device=DeviceSettings(id="room-12"))
    counts = Counts(waiting=3, waiting_bytes=1, refused=2, dropped=1, last_sequence=9)
    busy = home_assistant(config, payloads(config, ANGRY, faces=2, status="degraded", outbox=counts))
    assert {key: entity["value"] for key, entity in busy.items() if key != "event"} == {
        "emotion": "anger",
        "confidence": "61.2",
        "presence": "ON",
        "faces": "2",
        "fatigue": "drowsy",
        "fatigue_alarm": "ON",
        "problem": "ON",
        "memory": "123.5",
        "temperature": "61.3",
        "disk_free": "12.35",
        "uptime": "61",
        "frames": "9",
        "lost_audio": "0.5",
        "events_waiting": "3",
        "events_refused": "2",
        "events_dropped": "1",
        "camera": "OFF",
        "microphone": "ON",
    }
    assert json.loads(busy["emotion"]["attributes"])["anger"] == 0.1
    assert json.loads(busy["faces"]["attributes"]) == {"anger": 2}
    assert json.loads(busy["fatigue_alarm"]["attributes"]) == {"reasons": ["perclos"]}
    assert json.loads(busy["fatigue"]["attributes"])["yawns"] == 0
    assert json.loads(busy["problem"]["attributes"]) == {"state": "degraded", "reasons": ["camera:lost"]}
    for entity in busy.values():
        # This release makes the id from the names; later ones take the wish, which is the same.
        assert entity["lost"] == ["default_entity_id"]
        assert entity["availability"] == "emotion/room-12/availability"
    assert {entity["entity_id"] for entity in busy.values()} == entity_ids(config)
    # `None` is how Home Assistant spells unknown.
    idle = home_assistant(config, payloads(config, NO_SPEAKER, faces=0, status="paused", outbox=None))
    wanted = {"emotion": ABSENT, "presence": "OFF", "faces": "None", "problem": "OFF", "frames": "0"}
    wanted |= {"fatigue": ABSENT, "fatigue_alarm": "OFF"}
    wanted |= {"temperature": "None", "disk_free": "None"}
    wanted |= dict.fromkeys(("events_waiting", "events_refused", "events_dropped"), "None")
    assert {key: idle[key]["value"] for key in wanted} == wanted


@pytest.mark.parametrize("device", ["a--b-", "-7-", "--"])
def test_odd_device_names_make_the_same_entity_ids_there(device: str, request: pytest.FixtureRequest) -> None:
    """For any device id, the announced entity id is the one that Home Assistant uses."""
    config = Config(device=DeviceSettings(id=device))
    if device == "--":  # nothing is left of such a name; the wish is then the only one
        assert "sensor.emotion_edge_emotion" in entity_ids(config)
        return
    home_assistant: HomeAssistant = request.getfixturevalue("home_assistant")
    answer = home_assistant(config, {})
    assert {entity["entity_id"] for entity in answer.values()} == entity_ids(config)


def test_values_that_a_sensor_may_take_are_all_listed() -> None:
    """An enum sensor refuses a value that is not among its options."""
    components = discovery_payload(Config())["components"]
    assert components["emotion"]["options"] == [*LABELS, UNCERTAIN, ABSENT]
    level = messages.load_schema("fatigue_state")["$defs"]["level"]["enum"]
    assert components["fatigue"]["options"] == level
    assert components["event"]["event_types"] == list(messages.EVENT_TYPES)
    for component in components.values():
        assert not {"unknown", "unavailable"} & set(component.get("options", []))


@pytest.mark.parametrize("context", ["education", "workplace"])
def test_restricted_context_announces_no_person_and_removes_who_was_there(
    context: Context, home_assistant: HomeAssistant
) -> None:
    """Only permitted topics have entities; the others are announced as removed."""
    config = Config(device=DeviceSettings(context=context))
    policy = allowed(config.device)
    components = discovery_payload(config)["components"]
    removed = {key for key, component in components.items() if set(component) == {"platform"}}
    assert removed == {"emotion", "confidence", "presence", "event"}
    for key in components.keys() - removed:
        for name in ("state_topic", "command_topic", "json_attributes_topic"):
            if topic := components[key].get(name):
                assert policy.permits_topic(topic.removeprefix("emotion/room/"))
    assert set(home_assistant(config, {})) == components.keys() - removed


def test_what_the_device_lacks_is_not_announced() -> None:
    """No switch for a camera that is not there, no statistics where none are sent."""
    config = Config(camera=CameraSettings(source="none"), mqtt=MqttSettings(stats_interval_s=0))
    components = discovery_payload(config)["components"]
    assert components["camera"] == {"platform": "switch"}
    assert components["microphone"]["command_topic"] == "emotion/room/microphone/enabled/set"
    assert components["memory"] == {"platform": "sensor"}


def test_stale_values_expire_after_some_that_failed_to_come() -> None:
    """The state comes every 30 s, statistics every interval: the limit is more than two of them."""
    components = discovery_payload(Config(mqtt=MqttSettings(stats_interval_s=100)))["components"]
    assert components["emotion"]["expire_after"] == 90
    assert components["memory"]["expire_after"] == 230


@contextmanager
def announcing(broker: Broker, outbox: Outbox, *, birth_spread_s: float = 0.0) -> Iterator[Publisher]:
    """Run a publisher that announces the device while the block lasts."""
    config = Config(device=DeviceSettings(id="kitchen"), mqtt=settings_of(broker))
    publisher = Publisher(config.mqtt, device="kitchen", outbox=outbox, tuning=BRISK)
    discovery = DiscoveryPublisher(config, publisher, birth_spread_s=birth_spread_s)
    discovery.start()
    publisher.start()
    try:
        yield publisher
    finally:
        discovery.close()
        publisher.close()


def test_announced_before_online_at_every_connect(broker: Broker, outbox: Outbox) -> None:
    """Home Assistant knows the entities when they become available, after a reconnect, too."""
    availability = "emotion/kitchen/availability"
    # One subscription: NATS keeps the order within each, not between two.
    with watching(broker, "#") as watcher, announcing(broker, outbox) as publisher:
        watcher.wait_for(availability, b"online")
        topics = [message.topic for message in watcher.seen if message.topic in (TOPIC, availability)]
        assert topics == [TOPIC, availability]
        assert json.loads(watcher.on(TOPIC)[0])["device"]["name"] == "kitchen"
        with watching(broker, client_id="emotion-edge-kitchen"):  # takes the connection over
            wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
        wait_until(lambda: watcher.on(availability).count(b"online") == 2, "a second connect")
        assert [message.topic for message in watcher.seen if message.topic in (TOPIC, availability)][
            -1
        ] == availability
        assert len(watcher.on(TOPIC)) == 2
        with watching(broker, TOPIC) as later:
            wait_until(lambda: later.seen, "the announcement")
            assert later.seen[0].retained


def test_announced_again_at_a_birth_but_not_at_a_retained_one(broker: Broker, outbox: Outbox) -> None:
    """Two `online` in a row are answered once, within the spread; `offline` and a retained one are not."""
    with watching(broker, TOPIC, "emotion/kitchen/availability") as watcher:
        watcher.publish("homeassistant/status", "online", retain=True)
        with announcing(broker, outbox, birth_spread_s=0.3) as publisher:
            watcher.wait_for("emotion/kitchen/availability", b"online")
            echoes = []
            publisher.subscribe("echo", lambda *message: echoes.append(message))

            def has_echo() -> bool:
                watcher.publish("emotion/kitchen/echo", "x")
                return bool(echoes)

            wait_until(has_echo, "all subscriptions")
            for word in ("offline", "online", "online"):
                watcher.publish("homeassistant/status", word)
            wait_until(lambda: len(watcher.on(TOPIC)) == 2, "a second announcement")
            echoes.clear()
            wait_until(has_echo, "an answer after the answer")
            assert len(watcher.on(TOPIC)) == 2
            assert watcher.on(TOPIC)[0] == watcher.on(TOPIC)[1]


def test_removed_with_one_command_until_a_restart(
    broker: Broker, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A running daemon receives the removal; neither a reconnect nor a birth announces the device again."""
    for name, value in {"DEVICE__ID": "kitchen", "MQTT__PORT": str(broker.port)}.items():
        monkeypatch.setenv(f"EMOTION_EDGE__{name}", value)
    with watching(broker, TOPIC, "emotion/kitchen/availability") as watcher:
        with announcing(broker, outbox, birth_spread_s=0.0) as publisher:
            watcher.wait_for("emotion/kitchen/availability", b"online")
            assert main(["discovery", "remove"]) == 0
            assert f"{TOPIC}: removed" in capsys.readouterr().out
            watcher.wait_for(TOPIC, b"")
            wait_until(lambda: watcher.on(TOPIC).count(b"") >= 2, "the daemon's own removal")
            watcher.publish("homeassistant/status", "online")
            with watching(broker, client_id="emotion-edge-kitchen"):
                wait_until(lambda: not publisher.connection_state.connected, "a lost connection")
            wait_until(lambda: publisher.connection_state.connected, "a new connection")
            wait_until(
                lambda: watcher.on("emotion/kitchen/availability").count(b"online") == 2, "a second `online`"
            )
            assert watcher.on(TOPIC)[-1] == b""
            assert len([payload for payload in watcher.on(TOPIC) if payload]) == 1
        with announcing(broker, outbox):
            wait_until(lambda: watcher.on(TOPIC)[-1] != b"", "the announcement of the next life")


def test_remove_works_without_the_daemon_and_fails_without_a_broker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The announcement of an earlier daemon is removed; without a broker the exit code is 6."""
    monkeypatch.setenv("EMOTION_EDGE__DEVICE__ID", "kitchen")
    monkeypatch.setenv("EMOTION_EDGE__MQTT__PORT", str(broker.port))
    with watching(broker) as other:
        other.publish(TOPIC, "{}", retain=True)
        assert main(["discovery", "remove"]) == 0
    with watching(broker, TOPIC) as watcher:
        watcher.publish(TOPIC, "end")
        watcher.wait_for(TOPIC, b"end")
        assert watcher.on(TOPIC) == [b"end"]
    monkeypatch.setenv("EMOTION_EDGE__MQTT__PORT", str(free_port()))
    assert main(["discovery", "remove"]) == 6
    assert "needs the broker" in capsys.readouterr().err


def test_show_prints_what_is_announced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints the payload; the prefixes of the config are in it."""
    monkeypatch.setenv("EMOTION_EDGE__MQTT__PREFIX", "site/emotion")
    monkeypatch.setenv("EMOTION_EDGE__MQTT__DISCOVERY_PREFIX", "ha")
    assert main(["discovery", "show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    config = Config(mqtt=MqttSettings(prefix="site/emotion", discovery_prefix="ha"))
    assert shown == discovery_payload(config)
    assert discovery_topic(config) == "ha/device/room/config"
    assert shown["components"]["emotion"]["state_topic"] == "site/emotion/room/state"
