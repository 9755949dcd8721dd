"""An accelerator that comes and goes: the CPU answers meanwhile, and every 60 s there is a try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import DeviceError, ModelError
from edge.inference.card import artifacts_directory, golden_input, load_card
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.inference.fallback import RETRY_S, FallbackClassifier
from edge.inference.interpreter import InterpreterEngine
from edge.inference.tensors import Model

CARD = load_card("report-voice")
X = golden_input(CARD)


class Stick:
    """A real model on an accelerator that can be unplugged."""

    def __init__(self) -> None:
        path = artifacts_directory() / CARD.files["int8"].file
        self._engine = InterpreterEngine(path, threads=1)
        self.inputs, self.outputs = self._engine.inputs, self._engine.outputs
        self.plugged = True
        self.tries = 0

    def invoke(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if not self.plugged:
            raise RuntimeError("USB transfer failed")
        return self._engine.invoke(arrays)

    def open_on(self, backend: str) -> TfliteClassifier:
        """Open on the stick; on the CPU where that is asked for, or `auto` finds no stick."""
        if backend == "cpu":
            return open_classifier("report-voice", task="voice")
        self.tries += 1
        if self.plugged:
            return TfliteClassifier(CARD, Model(self, backend="edgetpu"), "int8")
        if backend == "auto":
            return open_classifier("report-voice", task="voice")
        raise DeviceError("inference.backend edgetpu: gone; connect it", reason="no_permission")


@pytest.fixture
def stick() -> Stick:
    """A stick that is plugged in."""
    return Stick()


def test_cpu_runs_first_and_the_first_retry_is_immediate(stick: Stick) -> None:
    """The first prediction does not wait for the accelerator; the first `retry` moves the model to it."""
    steady = FallbackClassifier(stick.open_on, "edgetpu")
    assert (steady.backend, stick.tries) == ("cpu", 0)
    steady.retry(0)
    assert (steady.backend, steady.fault, steady.passed_over) == ("edgetpu", None, {})


def test_cpu_is_not_retried(stick: Stick) -> None:
    """With `backend = "cpu"` no other backend is opened."""
    steady = FallbackClassifier(stick.open_on, "cpu")
    steady.retry(0)
    steady.retry(10 * RETRY_S)
    assert (steady.backend, stick.tries) == ("cpu", 0)


def test_unplugged_while_it_runs(stick: Stick) -> None:
    """The frame on which it fails is classified by the CPU, and `fault` has the reason."""
    steady = FallbackClassifier(stick.open_on, "edgetpu")
    steady.retry(0)
    before = steady.classify(X)
    stick.plugged = False
    np.testing.assert_array_equal(steady.classify(X), before)
    assert (steady.backend, steady.passed_over) == ("cpu", {"edgetpu": "no_device"})
    assert "failed while it ran (USB transfer failed)" in str(steady.fault)


def test_retries_are_a_minute_apart(stick: Stick) -> None:
    """No retry happens just before the minute, one at the minute; plugged in again, the accelerator runs."""
    stick.plugged = False
    steady = FallbackClassifier(stick.open_on, "edgetpu")
    for now_s, tries in ((0.0, 1), (RETRY_S - 0.001, 1), (RETRY_S, 2), (2 * RETRY_S - 0.001, 2)):
        steady.retry(now_s)
        assert stick.tries == tries
        assert steady.fault is not None
        assert (steady.fault.reason, steady.backend) == ("no_permission", "cpu")
    stick.plugged = True
    steady.retry(2 * RETRY_S)
    assert (steady.backend, steady.fault, stick.tries) == ("edgetpu", None, 3)


def test_auto_that_prefers_the_cpu_is_settled(stick: Stick) -> None:
    """`auto` that selects the CPU reports no fault and does not retry."""
    stick.plugged = False
    steady = FallbackClassifier(stick.open_on, "auto")
    steady.retry(0)
    steady.retry(RETRY_S)
    assert (steady.backend, steady.fault, stick.tries) == ("cpu", None, 1)


def test_auto_that_lost_its_accelerator_waits_for_it(stick: Stick) -> None:
    """After `auto` ran on an accelerator, losing it is a fault until it is back."""
    steady = FallbackClassifier(stick.open_on, "auto")
    steady.retry(0)
    stick.plugged = False
    steady.classify(X)
    steady.retry(RETRY_S)
    assert (steady.backend, steady.passed_over) == ("cpu", {"edgetpu": "no_device"})
    stick.plugged = True
    steady.retry(2 * RETRY_S)
    assert (steady.backend, steady.fault) == ("edgetpu", None)


def test_damaged_file_for_the_accelerator_is_a_fault(stick: Stick) -> None:
    """A variant with another hash is a fault, op_unsupported, and the CPU continues."""

    def open_on(backend: str) -> TfliteClassifier:
        if backend == "cpu":
            return stick.open_on(backend)
        raise ModelError("report-voice.edgetpu.tflite: SHA-256 is another; restore the file")

    steady = FallbackClassifier(open_on, "edgetpu")
    steady.retry(0)
    assert (steady.backend, steady.passed_over) == ("cpu", {"edgetpu": "op_unsupported"})
