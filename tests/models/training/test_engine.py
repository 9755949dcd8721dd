"""The training engine computes the same as Keras, copies weights exactly, and resumes killed runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.values import Float32
from models.run import Progress, Run
from tests.helpers.networks import shaken

keras = pytest.importorskip("keras", reason="needs the [train] extra")
torch = pytest.importorskip("torch", reason="needs the [train] extra")

from keras import layers  # noqa: E402  # after the skips
from torch.nn import functional  # noqa: E402

from models.training.engine import Schedule, train  # noqa: E402
from models.training.torch_network import Network  # noqa: E402

# TensorFlow's tensors do not support the copy keyword of NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def face_network() -> Any:
    """Return a small residual CNN with every supported layer for images."""
    x = face = keras.Input((12, 10, 1))
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(layers.Add()([x, y])))
    return keras.Model(face, layers.Dense(7, activation="softmax")(x))


def voice_network() -> Any:
    """Return a small recurrent network with every supported layer for sequences."""
    x = voice = keras.Input((15, 6))
    x = layers.Conv1D(8, 5, strides=2, padding="same", use_bias=False)(x)
    x = layers.LSTM(5, return_sequences=True)(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), layers.LSTM(3)(x)])
    return keras.Model(voice, layers.Dense(7, activation="softmax")(x))


def examples_of(number: int) -> tuple[Float32, Float32]:
    """Return synthetic images whose brightness is their class."""
    random = np.random.default_rng([1, number])
    labels = random.integers(0, 7, 48)
    pictures = random.normal(labels[:, None, None, None] / 7, 0.05, (48, 12, 10, 1))
    return pictures.astype(np.float32), np.eye(7, dtype=np.float32)[labels]


@contextlib.contextmanager
def no_bar(_title: str) -> Iterator[Progress]:
    """Show no progress bar."""
    yield lambda _done, _total: None


def run_in(directory: Path, *, resume: bool = False, report: Callable[[str], None] = lambda _: None) -> Run:
    """Return a run that writes into `directory`."""
    return Run(directory, directory, epochs=None, resume=resume, report=report, bar=no_bar)


@pytest.mark.parametrize(("build", "shape"), [(face_network, (12, 10, 1)), (voice_network, (15, 6))])
def test_network_equals_keras(build: Callable[[], Any], shape: tuple[int, ...]) -> None:
    """The same weights and inputs give the same probabilities."""
    model = shaken(build())
    inputs = np.random.default_rng(2).random((5, *shape)).astype(np.float32)
    np.testing.assert_allclose(Network(model).predict(inputs), model.predict(inputs, verbose=0), atol=1e-5)


@pytest.mark.parametrize("build", [face_network, voice_network])
def test_weights_are_copied_exactly(build: Callable[[], Any]) -> None:
    """Weights that are pulled from Keras and pushed back are bit-identical."""
    model = shaken(build())
    before = model.get_weights()
    network = Network(model)
    model.set_weights([np.zeros_like(weight) for weight in before])
    after = network.push().get_weights()
    for weight, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_unknown_layer_is_named() -> None:
    """The error names the unsupported layer."""
    face = keras.Input((4, 4, 1))
    model = keras.Model(face, layers.Flatten(name="flat")(face))
    with pytest.raises(EdgeError, match="flat: Flatten"):
        Network(model)


def test_loss_falls_and_the_last_epoch_is_kept(tmp_path: Path) -> None:
    """The loss falls; without scores the history has all epochs and the last is saved."""
    schedule = Schedule(epochs=6, batch=16, rate=2e-2)
    train(face_network, examples_of, None, name="toy", schedule=schedule, run=run_in(tmp_path))
    history = json.loads((tmp_path / "toy.history.json").read_text())
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["loss"] < history[0]["loss"] - 0.05


@pytest.mark.parametrize("is_supported", [True, False])
def test_bfloat16_only_where_the_cpu_is_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_supported: bool
) -> None:
    """bfloat16 is used only with hardware support; otherwise the run reports it."""
    capabilities = {"avx2": True, "avx512_bf16": is_supported, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    seen, reported = set(), list[str]()
    linear = functional.linear

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = linear(*args, **kwargs)
        if torch.is_grad_enabled():
            seen.add(result.dtype)
        return result

    monkeypatch.setattr(functional, "linear", watched)
    schedule = Schedule(epochs=1, batch=16)
    run = run_in(tmp_path, report=reported.append)
    train(face_network, examples_of, None, name="small", schedule=schedule, run=run)
    assert seen == {torch.bfloat16 if is_supported else torch.float32}
    assert any("no bfloat16" in line for line in reported) == (not is_supported)


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """A run that is interrupted in the third epoch and resumed ends with identical weights."""
    schedule = Schedule(epochs=4, batch=16)

    def dying(number: int) -> tuple[Float32, Float32]:
        if number == 2:
            raise KeyboardInterrupt
        return examples_of(number)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = train(face_network, examples_of, None, name="toy", schedule=schedule, run=run_in(whole))
    with pytest.raises(KeyboardInterrupt):
        train(face_network, dying, None, name="toy", schedule=schedule, run=run_in(cut))
    reports: list[str] = []
    again = run_in(cut, resume=True, report=reports.append)
    found = train(face_network, examples_of, None, name="toy", schedule=schedule, run=again)
    assert "toy.state.pt: resumed after epoch 2" in reports
    for weight, other in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def test_best_epoch_is_kept(tmp_path: Path) -> None:
    """The epoch with the best score is saved."""
    marks = iter([0.2, 0.9, 0.4])
    schedule = Schedule(epochs=3, batch=16, rate=1e-2)
    seen: list[Float32] = []

    def scores(network: Network) -> dict[str, float]:
        seen.append(network.predict(examples_of(50)[0]))
        return {"score": next(marks)}

    model = train(face_network, examples_of, scores, name="toy", schedule=schedule, run=run_in(tmp_path))
    kept = model.predict(examples_of(50)[0], verbose=0)
    np.testing.assert_allclose(kept, seen[1], atol=1e-5)
    assert not np.allclose(kept, seen[2], atol=1e-5)


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    """The error has the numbers of examples and of examples per step."""
    with pytest.raises(EdgeError, match="48 training examples: fewer than one step of 64"):
        train(
            face_network, examples_of, None, name="toy", schedule=Schedule(1, batch=64), run=run_in(tmp_path)
        )
