"""The daemon as a black box while its accelerator crashes, and afterwards works."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from libraries import CRASHES_ON_LOAD, DELEGATE, build
from test_system import ROOT, collect, environment, events

from edge.broker import EmbeddedBroker
from edge.config import MqttSettings
from edge.link import Message
from edge.listen import listen


def test_daemon_outlives_a_crashing_library_and_takes_the_good_one(tmp_path: Path) -> None:
    """Loudly degraded on the CPU; when the library works at a later try, recovered and on it."""
    library = build(tmp_path / "npu.so", CRASHES_ON_LOAD)
    code = (
        "import sys, edge.fallback\nfrom edge.__main__ import main\n"
        "edge.fallback.RETRY_S = 1.0\nsys.exit(main(['run']))"
    )
    topics = ("emotion/lab/status", "emotion/lab/event")
    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), *topics)) as listener,
    ):
        assert listener.wait_ready(10)
        env = environment(
            "127.0.0.1", broker.port, tmp_path, EMOTION_EDGE__INFERENCE__BACKEND=f"delegate:{library}"
        )
        process = subprocess.Popen([sys.executable, "-c", code], env=env, cwd=ROOT)

        def wait_for(kind: str) -> list[Message]:
            return collect(listener, lambda seen: any(e["type"] == kind for e in events(seen)), 40)

        try:
            seen = [*wait_for("device.degraded"), *wait_for("emotion.changed")]
            build(tmp_path / "new.so", DELEGATE).replace(library)
            seen += [*wait_for("device.recovered"), *wait_for("emotion.changed")]
        finally:
            process.terminate()
            assert process.wait(10) == 0
    status = [json.loads(m.payload) for m in seen if m.topic.endswith("/status")]
    degraded = next(payload for payload in status if payload["state"] == "degraded")
    assert degraded["reasons"] == ["accelerator:abi_mismatch"]
    assert degraded["backends"]["face"] == {
        "backend": "cpu",
        "passed_over": {f"delegate:{library}": "abi_mismatch"},
    }
    changed = [e["data"]["backend"] for e in events(seen) if e["type"] == "emotion.changed"]  # type: ignore[index]
    assert (changed[0], changed[-1]) == ("cpu", f"delegate:{library}")
