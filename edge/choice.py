"""The backend `auto`: of those that a device has and that answer rightly, the fastest."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edge.errors import DeviceError

log = logging.getLogger(__name__)

RUNS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trial:
    """One backend that was tried: the best of some runs in ms, or the reason why it was not run.

    `reason` is `fastest`, `slower`, or that of the `DeviceError`.
    """

    backend: str
    reason: str
    ms: float | None
    detail: str


def choose(
    backends: Sequence[str], open_on: Callable[[str], T], run: Callable[[T], object], what: str
) -> tuple[T, tuple[Trial, ...]]:
    """Open on each backend, time some runs, and return the fastest with what became of all of them.

    A backend drops out by a `DeviceError` while it is opened or run. With one backend nothing is timed.
    Raises the last `DeviceError` when all drop out, and whatever else `open_on` raises.
    """
    if len(backends) == 1:
        return open_on(backends[0]), ()
    timed: dict[str, tuple[float, T]] = {}
    failed: dict[str, DeviceError] = {}
    for backend in backends:
        try:
            opened = open_on(backend)
            timed[backend] = (_best_ms(lambda opened=opened: run(opened)), opened)  # type: ignore[misc]
        except DeviceError as error:
            failed[backend] = error
    if not timed:
        raise failed[backends[-1]]
    winner = min(timed, key=lambda backend: timed[backend][0])
    trials = tuple(_trial(backend, winner, timed, failed) for backend in backends)
    for trial in trials:
        log.info("%s: auto: %s: %s (%s)", what, trial.backend, trial.reason, trial.detail)
    return timed[winner][1], trials


def _trial(
    backend: str, winner: str, timed: dict[str, tuple[float, T]], failed: dict[str, DeviceError]
) -> Trial:
    if backend in failed:
        return Trial(backend, failed[backend].reason, None, str(failed[backend]))
    ms = round(timed[backend][0], 3)
    return Trial(backend, "fastest" if backend == winner else "slower", ms, f"{ms} ms")


def _best_ms(run: Callable[[], object]) -> float:
    """Return the shortest of some runs: what else the machine does only ever adds to it."""
    run()
    costs_ns = []
    for _ in range(RUNS):
        start_ns = time.perf_counter_ns()
        run()
        costs_ns.append(time.perf_counter_ns() - start_ns)
    return min(costs_ns) / 1e6
