"""Measures how long the stages of the running daemon take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

KEPT = 256  # newest durations of a stage; at 10 frames a second, the last 26 s


class Latencies:
    """The newest durations of each stage (`see`, `hear`, `publish`); each stage is added to by one thread."""

    def __init__(self) -> None:
        self._stages: dict[str, deque[float]] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Add one duration."""
        self._stages.setdefault(stage, deque(maxlen=KEPT)).append(seconds)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the duration of the block, unless it raises."""
        start_s = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start_s)

    def quantiles_ms(self) -> dict[str, dict[str, float]]:
        """Return `p50` and `p95` of each measured stage, in milliseconds."""
        return {
            stage: {f"p{q}": round(1e3 * float(np.percentile(values, q)), 3) for q in (50, 95)}
            for stage, values in ((stage, list(kept)) for stage, kept in list(self._stages.items()))
        }
