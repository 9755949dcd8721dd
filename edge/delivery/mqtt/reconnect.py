"""The pause between two attempts to connect."""

from __future__ import annotations

import random

from edge.backoff import backoff_s
from edge.delivery.mqtt.tuning import TUNING, Tuning


class ReconnectBackoff:
    """Pauses that grow with each failure: up to 3 s after the first, up to 60 s later.

    With several brokers the pause grows only after each of them failed, and is divided by their number, so
    that each broker gets as many attempts as if it were the only one.
    """

    def __init__(self, tuning: Tuning = TUNING, *, brokers: int = 1) -> None:
        self._first_pause_s = tuning.first_pause_s
        self._max_pause_s = tuning.max_pause_s
        self._brokers = brokers
        self._failures = 0

    def next_s(self) -> float:
        """Return the pause after one more failure."""
        rounds = self._failures // self._brokers
        self._failures += 1
        if rounds:
            return backoff_s(rounds, max_s=self._max_pause_s) / self._brokers
        return random.uniform(*self._first_pause_s) / self._brokers

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self._failures = 0
