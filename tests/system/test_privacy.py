"""In restricted contexts no personal emotion reaches a foreign client, a scraper or the page."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.commands.bench.stages import draw_crowd
from edge.config import parse_config
from edge.delivery.home_assistant.entities import discovery_payload
from edge.delivery.outbox.queue import open_outbox
from edge.pipeline import open_face_pipeline
from edge.policy import EVENTS, GROUP_MIN_FACES, TOPICS, sentence
from edge.settings import Config
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from edge.values import LABELS, EmotionEvent, encode
from tests.helpers.brokers import Mosquitto, Watcher, free_port, make_event, running, wait_until, watching
from tests.helpers.daemons import living

ROOT = "emotion/lab"
DISCOVERY = "homeassistant/device/lab/config"
PERSONAL = [topic for topic, leaves in TOPICS.items() if not leaves]
STORED = ["state", "face/state", "voice/state", "group/state", "fatigue/state"]
TOKEN = "a-long-random-word"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip that shows the face of the shipped one six times."""
    path = tmp_path_factory.mktemp("crowd") / "crowd.mp4"
    frames = list(read_video_frames(clip_path(), 0.2))[5:15]
    (face, *_) = open_face_pipeline(Config()).detector.detect(frames[0].pixels)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5, (1280, 960))
    for frame in frames:
        writer.write(cv2.cvtColor(draw_crowd(frame.pixels, face, 6), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def config_of(directory: Path, clip: Path, port: int, *, context: str, bind: str) -> Config:
    """Return a configuration with a crowd as camera and the shipped clip as microphone."""
    token = directory / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    return parse_config(
        {
            "device": {"id": "lab", "context": context},
            "camera": {"source": f"file:{clip}?loop", "fps": 5.0},
            "microphone": {"source": f"file:{clip_path()}?loop"},
            "mqtt": {"port": port, "stats_interval_s": 1.0},
            "outbox": {"path": str(directory / "outbox.db")},
            "dashboard": {"bind": bind, "token_file": str(token)},
            "health": {"soft_limit_c": 120.0},
        }
    )


def leave_a_home_behind(watcher: Watcher, config: Config) -> None:
    """Store in the broker and in the outbox what a device at home had left there."""
    for topic in STORED:
        watcher.publish(f"{ROOT}/{topic}", encode({"emotion": "anger", "counts": {"anger": 1}}), retain=True)
    at_home = config.model_copy(update={"device": config.device.model_copy(update={"context": "home"})})
    watcher.publish(DISCOVERY, encode(discovery_payload(at_home)), retain=True)
    assert config.outbox.path is not None
    with closing(open_outbox(config.outbox.path, config.outbox, device="lab")) as outbox:
        for number, kind in enumerate(EVENTS):
            event = make_event(number)
            data = {"subject": "room", "emotion": "anger"} if kind == "emotion.changed" else event.data
            outbox.append(EmotionEvent(f"old-{kind}", kind, event.time, 0, data))
        outbox.append(EmotionEvent("letter", "emotion.changed", event.time, 0, {"emotion": "anger"}))
        outbox.refuse(len(EVENTS) + 1, "not_authorized")


def ask(bind: str, path: str) -> str:
    """Return the metrics, or the first message of the page's stream."""
    request = urllib.request.Request(f"http://127.0.0.1:{bind.rpartition(':')[2]}{path}")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=10) as response:
        return str((response.readline() if path == "/stream" else response.read()).decode())


def is_served(bind: str) -> bool:
    """Return whether the page answers."""
    try:
        return bool(ask(bind, "/metrics"))
    except OSError:
        return False


def emotions_in(text: str) -> set[str]:
    """Return the labels that stand in a text."""
    return {label for label in LABELS if label in text}


@pytest.mark.parametrize(("context", "host"), [("education", "127.0.0.1"), ("workplace", "0.0.0.0")])
def test_nothing_personal_leaves(context: str, host: str, crowd: Path, tmp_path: Path) -> None:
    """A device moves from home to a restricted context; then only group counts and its own state leave it.

    The broker is offline at first. Retained messages of the home are cleared, its events in the outbox are
    not sent. The page shows no more than the broker receives, and boxes only on the device itself.
    """
    broker = Mosquitto(tmp_path)
    bind = f"{host}:{free_port()}"
    config = config_of(tmp_path, crowd, broker.port, context=context, bind=bind)
    with running(broker), watching(broker) as before:
        leave_a_home_behind(before, config)
    with living(config, state_interval_s=1.5), running(broker), watching(broker, "#") as watcher:
        grouped, stats = f"{ROOT}/group/state", f"{ROOT}/stats"
        wait_until(lambda: sum(bool(p.get("counts")) for p in parsed(watcher, grouped)) > 3, "counts")
        wait_until(lambda: any(p["counters"].get("windows") for p in parsed(watcher, stats)), "sound")
        wait_until(lambda: is_served(bind), "the page")
        page = json.loads(ask(bind, "/stream").removeprefix("data: "))
        metrics = ask(bind, "/metrics")
        check_what_was_heard(watcher)
        status = json.loads(watcher.on(f"{ROOT}/status")[-1])
    assert (status["context"], status["acknowledged_basis"]) == (context, None)
    assert set(page["payloads"]) <= {"status", "group/state", "fatigue/state"}
    assert emotions_in(json.dumps({**page, "payloads": {**page["payloads"], "group/state": None}})) == set()
    assert bool(page["boxes"]) == (host == "127.0.0.1")
    assert ["privacy", sentence(config.device)] in page["facts"]
    assert "edge_room" not in metrics
    assert "face_sightings" not in metrics
    assert config.outbox.path is not None
    with closing(open_outbox(config.outbox.path, config.outbox, device="lab")) as outbox:
        letters = {letter.id: letter.reason for letter in outbox.refused()}
    withheld = {f"old-{kind}": "withheld" for kind, leaves in EVENTS.items() if not leaves}
    assert letters == {**withheld, "letter": "not_authorized"}
    with running(broker), watching(broker, "#") as later:
        later.publish("end", "")
        later.wait_for("end", b"")
        kept = {m.topic.removeprefix(f"{ROOT}/") for m in later.seen if m.retained}
    assert not kept & set(PERSONAL)


def parsed(watcher: Watcher, topic: str) -> list[dict[str, Any]]:
    """Return what was seen on a topic; `{}` where it was cleared."""
    return [json.loads(payload or b"{}") for payload in watcher.on(topic)]


def check_what_was_heard(watcher: Watcher) -> None:
    """Assert that every message since the daemon came is one of those that may leave."""
    cleared = {m.topic: n for n, m in enumerate(watcher.seen) if not m.payload}
    assert cleared.keys() >= {f"{ROOT}/{topic}" for topic in PERSONAL if topic in STORED}
    ours = [m for n, m in enumerate(watcher.seen) if m.payload and n >= cleared.get(m.topic, 0)]
    fresh = [m for m in ours if not m.retained]
    topics = {m.topic.removeprefix(f"{ROOT}/") for m in fresh}
    assert topics - {DISCOVERY} <= {topic for topic, leaves in TOPICS.items() if leaves}
    kinds = {json.loads(payload)["type"] for payload in watcher.on(f"{ROOT}/event")}
    assert {"device.degraded", "fatigue.changed"} <= kinds
    assert all(EVENTS[kind] for kind in kinds)
    for message in fresh:
        if message.topic == f"{ROOT}/group/state":
            check_group(json.loads(message.payload))
        elif message.topic != DISCOVERY:
            assert emotions_in(message.payload.decode()) == set(), message
    announced = json.loads([m.payload for m in fresh if m.topic == DISCOVERY][-1])["components"]
    personal = {"emotion", "confidence", "presence", "event"}
    assert all(announced[key].keys() == {"platform"} for key in personal)


def check_group(group: dict[str, Any]) -> None:
    """Assert that counts are withheld, or those of a group."""
    if group["counts"] is not None:
        assert group["faces"] == sum(group["counts"].values())
        assert group["faces"] >= GROUP_MIN_FACES
