"""The shipped models on the TFLite runtime that is installed: `make test` runs this file on both of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.commands.bench.stages import bench_backends
from edge.errors import DeviceError, ModelError
from edge.inference.backend_selection import select_backend
from edge.inference.backends import candidate_backends, load_model
from edge.inference.card import Card, artifacts_directory, load_card
from edge.inference.classifier import open_classifier
from edge.inference.interpreter import runtime
from edge.inference.tensors import Model, TensorInfo
from edge.settings import Config, InferenceSettings
from edge.values import Float32
from models.cards import made_input

ROOT = Path(__file__).parents[3]
NAMES = ("face-cnn", "voice-lstm", "eye-state", "mouth-state", "report-face", "report-voice")


def example(card: Card, seed: int = 0) -> Float32:
    """Return an input for the model of `card`."""
    return made_input(card.input.shape, card.input.range, seed=seed)


def model_of(name: str, variant: str = "int8", threads: int = 1) -> Model:
    """Open a shipped file on the CPU."""
    return load_model(artifacts_directory() / load_card(name).files[variant].file, threads=threads)


@pytest.mark.parametrize("variant", ["int8", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_file_passes_its_golden_vector(name: str, variant: str) -> None:
    """Hash, tensors and golden vector match on this runtime."""
    card = load_card(name)
    assert open_classifier(name, task=card.task, variant=variant).name == card.identity(variant)


@pytest.mark.parametrize("name", NAMES)
def test_int8_and_float16_agree(name: str) -> None:
    """Twenty inputs give close probabilities from both files, on this runtime."""
    card = load_card(name)
    inputs = [example(card, seed) for seed in range(20)]
    int8, float16 = (
        np.concatenate([model_of(name, variant).run(x)[0] for x in inputs]) for variant in ("int8", "float16")
    )
    assert np.abs(int8 - float16).mean() < 0.03


def test_pipeline_imports_on_this_runtime() -> None:
    """All imports of the daemon succeed, and exactly one runtime is loaded."""
    code = (
        "import sys, edge.daemon\nfrom edge.inference.interpreter import runtime\nruntime()\n"
        "assert len({'ai_edge_litert', 'tflite_runtime'} & set(sys.modules)) == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_interpreter_is_created_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening creates one interpreter with the given number of threads; running creates no other."""
    made: list[int] = []
    real = runtime().Interpreter

    def counted(**arguments: object) -> object:
        made.append(int(str(arguments["num_threads"])))
        return real(**arguments)

    monkeypatch.setattr(runtime(), "Interpreter", counted)
    model = model_of("report-voice", threads=2)
    for seed in range(3):
        model.run(example(load_card("report-voice"), seed))
    assert made == [2]


def test_reused_buffers_do_not_mix_runs() -> None:
    """The output for B does not depend on a run for A before it, and the output for A stays unchanged."""
    card = load_card("face-cnn")
    a, b = example(card, 1), example(card, 2)
    model = model_of("face-cnn")
    first = model.run(a)[0]
    kept = first.copy()
    second = model.run(b)[0]
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(second, model_of("face-cnn").run(b)[0])
    assert not np.array_equal(first, second)


def test_model_quantizes_by_its_tensor() -> None:
    """The engine gets the values of `TensorInfo.quantize`: rounded to even and clipped at both ends."""
    info = TensorInfo(0, (1, 7), np.dtype(np.int8), 0.5, 3)
    received: list[np.ndarray] = []

    class Echo:
        inputs: tuple[TensorInfo, ...] = (info,)
        outputs: tuple[TensorInfo, ...] = (info,)

        def invoke(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            received.extend(array.copy() for array in arrays)
            return list(arrays)

    values = np.array([[-1e9, -66, 0, 0.25, 0.75, 61.9, 1e9]], np.float32)
    Model(Echo(), backend="cpu").run(values)
    np.testing.assert_array_equal(received[0], info.quantize(values))
    assert received[0].tolist() == [[-128, -128, 3, 3, 5, 127, 127]]


def test_wrong_shape_is_refused() -> None:
    """One number too many: the error names the given and the expected shape."""
    with pytest.raises(ModelError, match=r"\(1, 41, 1\) given to a model that takes \(1, 40, 1\)"):
        model_of("report-voice").run(np.zeros((1, 41, 1), np.float32))


def test_file_without_a_model(tmp_path: Path) -> None:
    """A text file with the name of a model is refused in one sentence."""
    (tmp_path / "text.tflite").write_text("no model")
    with pytest.raises(ModelError, match=r"text\.tflite: not a TFLite model"):
        load_model(tmp_path / "text.tflite")


def test_unknown_backend() -> None:
    """An unknown backend is refused, with the list of the known ones."""
    with pytest.raises(ModelError, match="'npu': unknown; use auto or one of cpu, gpu, edgetpu, delegate:"):
        open_classifier("report-voice", task="voice", backend="npu")


def test_missing_edge_tpu() -> None:
    """No Coral on this machine: no_device."""
    if "edgetpu" in candidate_backends():
        pytest.skip("this machine has an Edge TPU")
    with pytest.raises(DeviceError, match="no Coral Edge TPU") as caught:
        open_classifier("report-voice", task="voice", backend="edgetpu")
    assert caught.value.reason == "no_device"


def test_bench_has_times_or_a_reason_for_each_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """p50 and p95 of both models where they run, reason and detail where they do not."""
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nowhere/icd.json")
    inference = InferenceSettings(backend="delegate:/nowhere/npu.so")
    figures = bench_backends(Config(inference=inference))
    assert set(figures) == {"cpu", "gpu", "edgetpu", "delegate:/nowhere/npu.so"}
    assert all(0 < model["p50_ms"] <= model["p95_ms"] for model in figures.pop("cpu").values())
    for backend, models in figures.items():
        assert set(models) == {"face_model", "voice_model"}
        for model in models.values():
            assert model["reason"] in {"no_device", "abi_mismatch"}
            assert f"inference.backend {backend}: " in model["detail"]


COSTS_MS = {"edgetpu": 0.1, "gpu": 0.5, "cpu": 5.0}


def refusing(*names: str) -> Callable[[str], DeviceError | None]:
    """Raise no_permission for the named backends."""

    def check(backend: str) -> None:
        if backend in names:
            raise DeviceError(f"{backend}: locked; unlock it", reason="no_permission")

    return check


@pytest.mark.parametrize(("not_timed", "not_opened"), [("edgetpu", ""), ("", "edgetpu")])
def test_auto_selects_the_fastest_that_works(not_timed: str, not_opened: str) -> None:
    """A backend can fail while it is timed or on its golden vector; each failure has its reason."""

    def time_on(backend: str) -> float:
        refusing(not_timed)(backend)
        return COSTS_MS[backend]

    def open_on(backend: str) -> str:
        refusing(not_opened)(backend)
        return backend

    chosen, trials = select_backend(("edgetpu", "gpu", "cpu"), time_on, open_on, "test")
    assert chosen == "gpu"
    assert [(trial.backend, trial.reason, trial.ms) for trial in trials] == [
        ("edgetpu", "no_permission", None),
        ("gpu", "fastest", 0.5),
        ("cpu", "slower", 5.0),
    ]


def test_auto_without_a_working_backend() -> None:
    """When all backends fail, the last error is raised."""
    with pytest.raises(DeviceError, match="gpu: locked"):
        select_backend(("edgetpu", "gpu"), COSTS_MS.__getitem__, refusing("edgetpu", "gpu"), "test")
