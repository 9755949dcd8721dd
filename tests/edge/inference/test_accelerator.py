"""The daemon as a black box while its accelerator crashes, and afterwards works."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.mqtt.connection import Message
from edge.delivery.subscriber import listen
from edge.settings import MqttSettings
from tests.helpers.libraries import CRASHES_ON_LOAD, DELEGATE, build
from tests.system.test_system import ROOT, collect, environment, events


def has_event(kind: str) -> Callable[[list[Message]], bool]:
    """Look for an event of a type."""
    return lambda seen: any(event["type"] == kind for event in events(seen))


def has_face(seen: list[Message]) -> bool:
    """Look for a face that was classified."""
    states = (json.loads(message.payload) for message in seen if message.topic.endswith("/face/state"))
    return any(state["count"] for state in states)


def test_daemon_survives_a_crashing_library_and_moves_to_a_good_one(tmp_path: Path) -> None:
    """The daemon is degraded and runs on the CPU; after a successful retry it recovers on the library."""
    library = build(tmp_path / "npu.so", CRASHES_ON_LOAD)
    code = (
        "import sys, edge.inference.fallback\nfrom edge.__main__ import main\n"
        "edge.inference.fallback.RETRY_S = 1.0\nsys.exit(main(['run']))"
    )
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), "emotion/lab/#")) as listener,
    ):
        assert listener.wait_ready(10)
        env = environment(
            "127.0.0.1", broker.port, tmp_path, EMOTION_EDGE__INFERENCE__BACKEND=f"delegate:{library}"
        )
        process = subprocess.Popen([sys.executable, "-c", code], env=env, cwd=ROOT)
        try:
            seen = collect(listener, has_event("device.degraded"), 40)
            seen += collect(listener, has_face, 40)
            build(tmp_path / "new.so", DELEGATE).replace(library)
            seen += collect(listener, has_event("device.recovered"), 40)
            seen += collect(listener, has_face, 40)
        finally:
            process.terminate()
            assert process.wait(10) == 0
    status = [json.loads(message.payload) for message in seen if message.topic.endswith("/status")]
    degraded = next(payload for payload in status if payload["state"] == "degraded")
    assert degraded["reasons"] == ["accelerator:abi_mismatch"]
    assert degraded["backends"]["face"] == {
        "backend": "cpu",
        "passed_over": {f"delegate:{library}": "abi_mismatch"},
    }
    recovered = {"backend": f"delegate:{library}", "passed_over": {}}
    assert status[-1]["backends"] == {"face": recovered, "voice": recovered}
    assert status[-1]["reasons"] == []
