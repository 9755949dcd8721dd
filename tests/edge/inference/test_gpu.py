"""The GPU path for real: SwiftShader, the software Vulkan device that Debian's chromium carries."""

from __future__ import annotations

import ctypes.util
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.delivery.embedded_broker import EmbeddedBroker
from edge.delivery.mqtt.connection import Message
from edge.delivery.subscriber import listen
from edge.errors import DeviceError
from edge.inference.backends import candidate_backends
from edge.inference.card import load_card
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.settings import MqttSettings
from models.cards import made_input
from tests.system.test_system import daemon, environment, events

DRIVER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
pytest.importorskip("ai_edge_litert.compiled_model", reason="tflite-runtime has no GPU path")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make SwiftShader this machine's only GPU."""
    if not DRIVER.exists() or ctypes.util.find_library("vulkan") is None:
        pytest.skip("no software GPU: sudo apt install chromium libvulkan1")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(DRIVER))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def on(name: str, backend: str, variant: str | None = None) -> TfliteClassifier:
    """Open a shipped model."""
    return open_classifier(name, task=load_card(name).task, backend=backend, variant=variant)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", ["face-cnn", "voice-lstm"])
def test_gpu_agrees_with_the_cpu(name: str) -> None:
    """The float16 file gives the same probabilities on both, to 0.001."""
    accelerated, cpu = on(name, "gpu"), on(name, "cpu", "float16")
    assert (accelerated.backend, accelerated.name) == ("gpu", cpu.name)
    answers = []
    for seed in range(3):
        x = made_input(cpu.card.input.shape, cpu.card.input.range, seed=seed)
        answers.append(accelerated.classify(x))
        np.testing.assert_allclose(answers[-1], cpu.classify(x), atol=1e-3)
    assert np.ptp(answers, axis=0).max() > 0.01


@pytest.mark.usefixtures("gpu")
def test_model_that_the_gpu_gets_wrong_is_refused() -> None:
    """The int8 face model runs there with wrong results: the golden vector detects it."""
    with pytest.raises(DeviceError, match=r"face-cnn \(int8\) on gpu: golden vector differs by") as caught:
        on("face-cnn", "gpu", "int8")
    assert caught.value.reason == "op_unsupported"


@pytest.mark.usefixtures("gpu")
def test_model_that_the_gpu_refuses() -> None:
    """The voice model of the report needs a texture that this driver refuses: its message is in the error."""
    with pytest.raises(DeviceError, match=r"cannot run report-voice\.float16\.tflite") as caught:
        on("report-voice", "gpu")
    assert caught.value.reason == "op_unsupported"


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Vulkan device: no_device, and the packages to install."""
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nowhere/icd.json")
    with pytest.raises(DeviceError, match="apt install libvulkan1") as caught:
        on("face-cnn", "gpu")
    assert caught.value.reason == "no_device"


@pytest.mark.usefixtures("gpu")
def test_auto_selects_the_fastest_with_the_reason_for_each() -> None:
    """A GPU emulated on the CPU is slower than the CPU, which `auto` measures."""
    assert candidate_backends()[-2:] == ("gpu", "cpu")
    classifier = on("voice-lstm", "auto")
    trials = {trial.backend: trial for trial in classifier.trials}
    assert classifier.backend == "cpu"
    assert (trials["gpu"].reason, trials["cpu"].reason) == ("slower", "fastest")
    assert trials["gpu"].ms is not None
    assert trials["cpu"].ms is not None
    assert trials["gpu"].ms > trials["cpu"].ms > 0


@pytest.mark.usefixtures("gpu")
def test_daemon_on_the_gpu(tmp_path: Path) -> None:
    """With `backend = "gpu"` both models move there, the events name it, and nothing is degraded."""
    topics = ("emotion/lab/status", "emotion/lab/event")
    seen: list[Message] = []

    def status() -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in seen if message.topic.endswith("/status")]

    def moved() -> bool:
        return bool(status()) and {part["backend"] for part in status()[-1]["backends"].values()} == {"gpu"}

    def is_reported() -> bool:
        data = [event["data"] for event in events(seen) if event["type"] == "emotion.changed"]
        return any(isinstance(d, dict) and d["backend"] == "gpu" and d["face"] for d in data)

    with (
        EmbeddedBroker(tmp_path / "broker") as broker,
        closing(listen(MqttSettings(port=broker.port), *topics)) as listener,
    ):
        assert listener.wait_ready(10)
        env = environment("127.0.0.1", broker.port, tmp_path, EMOTION_EDGE__INFERENCE__BACKEND="gpu")
        with daemon(env) as process:
            end_s = time.monotonic() + 90
            while not (moved() and is_reported()):
                assert time.monotonic() < end_s, status()
                if (message := listener.receive(0.5)) is not None:
                    seen.append(message)
            process.terminate()
            assert process.wait(10) == 0
    assert not any(payload["reasons"] for payload in status())
