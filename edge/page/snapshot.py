"""The daemon at one moment: what `/metrics`, the page and the `stats` topic report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.delivery.outbox.rows import Counts


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Numbers and states of the daemon at one moment.

    `faults` are `component:reason`; `outbox` is None while the disk does not answer; `latency_ms` has `p50`
    and `p95` of each stage; `payloads` has the newest payload of each state topic that the policy permits.
    """

    uptime_s: float
    counters: Mapping[str, int | float]
    faults: Iterable[str]
    outbox: Counts | None
    is_connected: bool
    live_dropped: int
    latency_ms: Mapping[str, Mapping[str, float]]
    backends: Mapping[str, str]
    switches: Mapping[str, bool]
    payloads: Mapping[str, Mapping[str, Any]]
