"""Keeps a model running on the CPU while the configured accelerator does not work."""

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
    """Runs on the CPU until `retry` has opened the wanted backend, and again when that one fails.

    A driver that is slow, hangs or crashes never delays the first prediction. One thread calls `classify`,
    another one `retry`.
    """

    def __init__(self, open_on: Callable[[str], TfliteClassifier], wanted: str) -> None:
        self._open_on = open_on
        self._wanted = wanted
        self._cpu = self._current = open_on("cpu")
        self._due_s = float("inf") if wanted == "cpu" else float("-inf")
        self._faulty = wanted
        self.fault: DeviceError | None = None
        self.embedding: Float32 | None = None  # of the last input, as in `TfliteClassifier`

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
        """The backend that runs now."""
        return self._current.backend

    @property
    def passed_over(self) -> dict[str, str]:
        """The backends that were configured or tried by `auto` and do not run now, each with its reason."""
        tried = {trial.backend: trial.reason for trial in self._current.trials}
        if self.fault is not None:
            tried[self._faulty] = self.fault.reason
        return {backend: reason for backend, reason in tried.items() if backend != self.backend}

    def classify(self, features: Float32) -> Float32:
        """Return `p` (labels,), from the CPU where the accelerator fails."""
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
        """Try the wanted backend while the CPU replaces it, at most once in `RETRY_S` seconds."""
        if self._current is not self._cpu or now_s < self._due_s:
            return
        self._due_s = now_s + RETRY_S
        try:
            opened = self._open_on(self._wanted)
        except DeviceError as error:
            self._faulty, self.fault = self._wanted, error
            return
        except ModelError as error:  # the variant for the accelerator is damaged; that of the CPU has passed
            self._faulty, self.fault = self._wanted, DeviceError(str(error), reason="op_unsupported")
            return
        if opened.backend != "cpu":
            self._current = opened
            self.fault = None
        elif self.fault is None:  # `auto` selected the CPU, and no accelerator failed
            self._cpu = self._current = opened
            self._due_s = float("inf")
