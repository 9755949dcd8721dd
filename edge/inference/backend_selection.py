"""The backend `auto`: the fastest one of the device that passes the checks of the model."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge.errors import DeviceError

log = logging.getLogger(__name__)

RUNS = 5
ENOUGH_NS = 500_000_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trial:
    """One backend that was tried: the time of its fastest run in ms, or None where it failed.

    `reason` is `fastest`, `slower`, or the reason of the `DeviceError`.
    """

    backend: str
    reason: str
    ms: float | None
    detail: str


def select_backend(
    backends: Sequence[str], time_on: Callable[[str], float], open_on: Callable[[str], T], what: str
) -> tuple[T, tuple[Trial, ...]]:
    """Time each backend in ms, open the fastest, and return it with the trial of each backend.

    A `DeviceError`, from timing or from opening with its checks, excludes a backend; the next one follows.
    A single backend is not timed. Raises the last `DeviceError` when all backends are excluded, and any other
    error of `time_on` and `open_on`.
    """
    if len(backends) == 1:
        return open_on(backends[0]), ()
    costs_ms: dict[str, float] = {}
    failed: dict[str, DeviceError] = {}
    for backend in backends:
        try:
            costs_ms[backend] = round(time_on(backend), 3)
        except DeviceError as error:
            failed[backend] = error
    for backend in sorted(costs_ms, key=lambda name: costs_ms[name]):
        try:
            opened = open_on(backend)
        except DeviceError as error:
            failed[backend] = error
            continue
        trials = tuple(_trial(name, backend, costs_ms, failed) for name in backends)
        for trial in trials:
            log.info("%s: auto: %s: %s (%s)", what, trial.backend, trial.reason, trial.detail)
        return opened, trials
    raise failed[backends[-1]]


def best_ms(run: Callable[[], object]) -> float:
    """Return the shortest of several runs in ms; other load on the machine can only lengthen a run."""
    run()
    costs_ns: list[int] = []
    while len(costs_ns) < RUNS and sum(costs_ns) < ENOUGH_NS:
        start_ns = time.perf_counter_ns()
        run()
        costs_ns.append(time.perf_counter_ns() - start_ns)
    return min(costs_ns) / 1e6


def _trial(backend: str, winner: str, costs_ms: dict[str, float], failed: dict[str, DeviceError]) -> Trial:
    if backend in failed:
        return Trial(backend, failed[backend].reason, None, str(failed[backend]))
    reason = "fastest" if backend == winner else "slower"
    return Trial(backend, reason, costs_ms[backend], f"{costs_ms[backend]} ms")
