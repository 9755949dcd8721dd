"""Keeps a modality going on the CPU while the accelerator that was asked for does not work."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge.errors import DeviceError, ModelError
from edge.inference.card import Card
from edge.inference.classifier import TfliteClassifier
from edge.values import Float32

log = logging.getLogger(__name__)

RETRY_S = 60.0


class FallbackClassifier:
    """Answers on the CPU until `retry` has opened the wanted backend, and again when that one fails.

    So a driver that takes long, hangs or crashes never delays the first answer. `classify` belongs to one
    thread, `retry` to another.
    """

    def __init__(self, open_on: Callable[[str], TfliteClassifier], wanted: str) -> None:
        self._open_on = open_on
        self._wanted = wanted
        self._cpu = self._current = open_on("cpu")
        self._due_s = float("inf") if wanted == "cpu" else float("-inf")
        self._faulty = wanted
        self.fault: DeviceError | None = None
        self.embedding: Float32 | None = None  # as `TfliteClassifier` has it, of whichever answered last

    @property
    def card(self) -> Card:
        """The card of the model."""
        return self._current.card

    @property
    def name(self) -> str:
        """The model and the variant that runs now."""
        return self._current.name

    @property
    def backend(self) -> str:
        """The backend that answers now."""
        return self._current.backend

    @property
    def passed_over(self) -> dict[str, str]:
        """The backends that do not run now, though asked for or tried by `auto`, each with its reason."""
        tried = {trial.backend: trial.reason for trial in self._current.trials}
        if self.fault is not None:
            tried[self._faulty] = self.fault.reason
        return {backend: reason for backend, reason in tried.items() if backend != self.backend}

    def classify(self, features: Float32) -> Float32:
        """Return `p` (7,), from the CPU when the accelerator has just failed."""
        current = self._current
        try:
            p = current.classify(features)
        except DeviceError as error:
            self._current = self._cpu
            self._faulty, self.fault = current.backend, error
            current = self._cpu
            p = current.classify(features)
        self.embedding = current.embedding
        return p

    def retry(self, now_s: float) -> None:
        """Try the wanted backend where the CPU stands in for it, at most every `RETRY_S` seconds."""
        if self._current is not self._cpu or now_s < self._due_s:
            return
        self._due_s = now_s + RETRY_S
        try:
            opened = self._open_on(self._wanted)
        except DeviceError as error:
            self._faulty, self.fault = self._wanted, error
            return
        except ModelError as error:  # the variant for the accelerator is spoilt; the CPU's has passed
            self._faulty, self.fault = self._wanted, DeviceError(str(error), reason="op_unsupported")
            return
        if opened.backend != "cpu":
            self._current = opened
            self.fault = None
        elif self.fault is None:  # `auto` finds nothing better than the CPU, and nothing was lost
            self._cpu = self._current = opened
            self._due_s = float("inf")
