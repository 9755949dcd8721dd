"""Moves the models to the accelerator while the CPU runs them, and back to it after a failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from edge.health import Health
from edge.inference.fallback import FallbackClassifier

log = logging.getLogger(__name__)

TICK_S = 0.5
LIMIT_S = 180.0  # for one round: a trial takes at most 60 s per model, opening it follows


class Accelerator:
    """Retries on its own thread, since a driver may hang; it calls `on_change` there after each move."""

    def __init__(
        self, classifiers: Mapping[str, FallbackClassifier], health: Health, on_change: Callable[[], None]
    ) -> None:
        self._classifiers = classifiers
        self._health = health
        self._on_change = on_change
        self._stop = threading.Event()

    def start(self) -> None:
        """Start the thread; it ends with the process even when a driver hangs."""
        threading.Thread(target=self._run, name="accelerator", daemon=True).start()

    def close(self) -> None:
        """Stop retrying."""
        self._stop.set()

    def _run(self) -> None:
        current = backends(self._classifiers)
        while not self._stop.wait(TICK_S):
            self._health.progress("accelerator", limit_s=LIMIT_S)
            for classifier in self._classifiers.values():
                classifier.retry(time.monotonic())
                if (now := backends(self._classifiers)) != current:
                    current = now
                    where = (f"{facts['backend']} ({task})" for task, facts in current.items())
                    log.info("models run on %s", ", ".join(where))
                    self._on_change()
            self._report_fault()

    def _report_fault(self) -> None:
        fault = next((model.fault for model in self._classifiers.values() if model.fault), None)
        if fault is None:
            self._health.clear("accelerator")
        elif f"accelerator:{fault.reason}" not in self._health.reasons:
            self._health.fault("accelerator", fault.reason, f"{fault}; running on the CPU")


def backends(classifiers: Mapping[str, FallbackClassifier]) -> dict[str, dict[str, object]]:
    """Return for each task the backend that runs and those passed over, as in the status message."""
    return {
        task: {"backend": classifier.backend, "passed_over": classifier.passed_over}
        for task, classifier in classifiers.items()
    }
