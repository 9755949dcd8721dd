"""What others build on: the running daemon keeps the contract that AsyncAPI, flows and dashboards rely on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.__main__ import main
from edge.commands.integrations import INTEGRATIONS, render_integration
from edge.delivery.home_assistant.entities import entity_ids
from edge.delivery.messages import load_schema
from edge.settings import Config
from edge.sources.replay import clip_path
from tests.helpers.brokers import Mosquitto, Watcher, free_port, wait_until, watching
from tests.system.test_system import daemon, environment

# MQTT 5 reports a refusal by itself.
ONLY_311 = {"emotion/{device}/probe"}
METRIC = re.compile(r"\b(?:emotion_edge|process)_[a-z_]+")


def channels(action: str) -> dict[str, tuple[str, bool]]:
    """Return for each address with this action the name of its schema, and whether it is retained."""
    document = load_schema("asyncapi")
    found = {}
    for key, operation in document["operations"].items():
        if operation["action"] == action:
            channel = document["channels"][key]
            (name,) = channel["messages"]
            found[channel["address"]] = (name, operation["bindings"]["mqtt"]["retain"])
    return found


def address_of(topic: str) -> str:
    """Return the address of a topic of the device `lab`."""
    return topic.replace("/lab/", "/{device}/")


@contextmanager
def living(
    broker: Mosquitto, directory: Path, watcher: Watcher, **more: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a daemon with a dashboard until it has face and voice results; yield it and its address."""
    bind = f"127.0.0.1:{free_port()}"
    settings = {"DASHBOARD__BIND": bind, "MQTT__STATS_INTERVAL_S": "2", **more}
    env = environment(broker.host, broker.port, directory)
    env |= {f"EMOTION_EDGE__{key}": value for key, value in settings.items()}
    with daemon(env) as process:
        wait_until(lambda: watcher.on("emotion/lab/stats"), "statistics")
        wait_until(lambda: is_served(bind), "the dashboard")
        yield process, bind


def is_served(bind: str) -> bool:
    """Return whether the metrics are served."""
    try:
        return bool(fetch(bind))
    except OSError:
        return False


def fetch(bind: str) -> str:
    """Return the metrics."""
    with urllib.request.urlopen(f"http://{bind}/metrics", timeout=10) as response:
        return str(response.read().decode())


def state_of(watcher: Watcher, topic: str) -> Any:
    """Return the newest payload of a topic of the device, parsed; None before the first."""
    seen = watcher.on(f"emotion/lab/{topic}")
    return json.loads(seen[-1]) if seen else None


def windows_of(watcher: Watcher) -> int:
    """Return the number of audio windows in the newest statistics, which omit a counter of 0."""
    return int((state_of(watcher, "stats") or {"counters": {}})["counters"].get("windows", 0))


def has_clip_open(pid: int) -> bool:
    """Return whether the process holds the file that stands for camera and microphone."""
    clip = clip_path().resolve()
    return any(link.exists() and link.resolve() == clip for link in Path(f"/proc/{pid}/fd").iterdir())


def test_all_that_is_sent_is_described_and_all_that_is_described_is_sent(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    """Every message of a daemon's life has a channel, fits its schema, and leaves no channel out."""
    sent = channels("send")
    with watching(mosquitto, "emotion/#", "homeassistant/device/#") as watcher:
        with living(mosquitto, tmp_path, watcher) as (process, bind):
            wait_until(lambda: watcher.on("emotion/lab/event"), "an event", timeout_s=40)
            for address in channels("receive"):
                is_birth = address == "homeassistant/status"
                watcher.publish(address.replace("{device}", "lab"), "online" if is_birth else "OFF")
            for part in ("camera", "microphone"):
                watcher.wait_for(f"emotion/lab/{part}/enabled/state", b"OFF")
            discovery = "homeassistant/device/lab/config"
            wait_until(lambda: len(watcher.on(discovery)) == 2, "the answer to the birth")
            grafana = json.loads(render_integration("grafana", Config()))
            check_grafana(grafana, fetch(bind))
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        watcher.wait_for("emotion/lab/availability", b"offline")
        ours = [message for message in watcher.seen if not message.topic.endswith("/set")]
        assert {address_of(message.topic) for message in ours} == sent.keys() - ONLY_311
        for message in ours:
            name, _ = sent[address_of(message.topic)]
            schema = load_schema(name)
            text = message.payload.decode()
            payload = text if schema.get("type") == "string" else json.loads(text)
            jsonschema.Draft202012Validator(schema).validate(payload)
    with watching(mosquitto, "emotion/#", "homeassistant/#") as later:
        later.publish("emotion/end", "")
        later.wait_for("emotion/end", b"")
        stored = {address_of(message.topic) for message in later.seen if message.retained}
        assert stored == {address for address, (_, is_retained) in sent.items() if is_retained}


def check_grafana(dashboard: dict[str, Any], metrics: str) -> None:
    """Assert that each metric and label that a dashboard asks for is there."""
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics, re.M))
    labels: dict[str, set[str]] = {}
    for name, found in re.findall(r"^(\w+)\{(.*)\} \S+$", metrics, re.M):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', found))
    queries = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= 12
    for query in queries:
        (name,) = set(METRIC.findall(query["expr"]))
        assert name in families, name
        assert ("rate(" in query["expr"] or "increase(" in query["expr"]) == (families[name] == "counter")
        if name == "emotion_edge_fault":  # has samples while something is wrong
            labels[name] = {"component", "reason"}
        wanted = set(re.findall(r"{{(\w+)}}", query["legendFormat"]))
        wanted |= set(re.findall(r"(\w+)=~?\"", query["expr"]))
        # Prometheus adds these two.
        assert wanted - {"job", "instance"} <= labels.get(name, set()), (name, wanted)
    for variable in dashboard["templating"]["list"]:
        (name,) = METRIC.findall(variable["query"]["query"])
        assert name in families


def test_node_red_flow_uses_topics_that_exist_and_leads_somewhere() -> None:
    """It uses topics that the device publishes or subscribes; each wire ends at a node."""
    flow = json.loads(render_integration("node-red", Config()))
    by_id = {node["id"]: node for node in flow}
    assert len(by_id) == len(flow)
    ways = {"mqtt in": channels("send"), "mqtt out": channels("receive")}
    seen = set()
    for node in flow:
        for wire in (target for output in node.get("wires", []) for target in output):
            assert wire in by_id
        if node["type"] in ways:
            address = re.sub("/(room|[+])/", "/{device}/", node["topic"], count=1)
            assert address in ways[node["type"]]
            assert by_id[node["broker"]]["type"] == "mqtt-broker"
            seen.add(address)
        if node["type"] == "inject":
            jsonschema.validate(node["payload"], load_schema("enabled"))
        if node["type"] == "mqtt out":
            assert node["retain"] == "false"
    assert set(ways["mqtt out"]) - {"homeassistant/status"} <= seen
    rules = {rule["v"] for node in flow if node["type"] == "switch" for rule in node["rules"]}
    assert rules <= set(load_schema("event")["properties"]["type"]["enum"])


def test_home_assistant_card_shows_entities_that_are_announced() -> None:
    """Every id of the card is a default entity id of the discovery payload."""
    card = render_integration("home-assistant-card", Config())
    shown = set(re.findall(r"- ([a-z_]+\.[a-z0-9_]+)$", card, re.M))
    assert shown <= entity_ids(Config())
    assert {"sensor.room_emotion", "switch.room_camera"} <= shown


@pytest.mark.parametrize("name", INTEGRATIONS)
def test_integration_is_printed_for_the_configured_device(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Topics and entity ids are those of the device, and nothing of the sample is left over."""
    monkeypatch.setenv("EMOTION_EDGE__DEVICE__ID", "room-12")
    monkeypatch.setenv("EMOTION_EDGE__MQTT__PREFIX", "site/mood")
    assert main(["integration", name]) == 0
    printed = capsys.readouterr().out
    assert "emotion/" not in printed
    assert not re.search(r"\.room_(?!12_)", printed)
    if name == "node-red":
        assert "site/mood/room-12/camera/enabled/set" in printed
        assert "site/mood/+/event" in printed
    if name == "home-assistant-card":
        assert "sensor.room_12_emotion" in printed


def test_switched_off_devices_are_closed_and_stay_so(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """OFF closes the camera, the voice continues; both off is `paused`, also after a restart."""
    root = "emotion/lab"
    with watching(mosquitto, f"{root}/#") as watcher:
        with living(mosquitto, tmp_path, watcher) as (process, _):
            wait_until(lambda: (state_of(watcher, "face/state") or {}).get("count"), "a face")
            assert has_clip_open(process.pid)
            watcher.publish(f"{root}/camera/enabled/set", b"x" * 1_000_000)
            watcher.publish(f"{root}/camera/enabled/set", b"\x00\xff#+/")
            watcher.publish(f"{root}/camera/enabled/set", "OFF")
            watcher.wait_for(f"{root}/camera/enabled/state", b"OFF")
            wait_until(lambda: state_of(watcher, "face/state")["count"] == 0, "no face", timeout_s=2)
            windows = windows_of(watcher)
            wait_until(lambda: windows_of(watcher) > windows, "another audio window")
            watcher.publish(f"{root}/microphone/enabled/set", "OFF")
            wait_until(lambda: state_of(watcher, "status")["state"] == "paused", "`paused`")
            wait_until(lambda: not has_clip_open(process.pid), "closed devices")
            wait_until(
                lambda: state_of(watcher, "state")["emotion"] == "absent", "an absent room", timeout_s=2
            )
            wait_until(
                lambda: state_of(watcher, "voice/state")["emotion"] == "absent", "no voice", timeout_s=2
            )
            process.kill()
        # Retained by a careless client: a daemon that starts must ignore it.
        watcher.publish(f"{root}/camera/enabled/set", "ON", retain=True)
        before = len(watcher.seen)
        with living(mosquitto, tmp_path, watcher) as (process, _):
            wait_until(
                lambda: f"{root}/stats" in [message.topic for message in watcher.seen[before:]],
                "statistics of the second life",
            )
            assert state_of(watcher, "status")["state"] == "paused"
            assert not has_clip_open(process.pid)
            watcher.publish(f"{root}/camera/enabled/set", "ON")
            wait_until(lambda: state_of(watcher, "status")["state"] == "running", "`running`")
            wait_until(lambda: state_of(watcher, "face/state")["count"] == 1, "a face")
            assert has_clip_open(process.pid)
        states = [json.loads(payload)["state"] for payload in watcher.on(f"{root}/status")]
        assert "degraded" not in states
