"""The numbers of the running daemon, for the topic `stats`, `/metrics` and the page."""

from __future__ import annotations

import time
from collections.abc import Mapping

from edge.delivery import messages
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.rows import Counts
from edge.delivery.publisher import Publisher
from edge.errors import OutboxError
from edge.health import Health
from edge.host.malloc import rss_bytes
from edge.host.monitor import Monitor
from edge.host.switches import Switches
from edge.inference.fallback import FallbackClassifier
from edge.latency import Latencies
from edge.page.snapshot import Snapshot
from edge.policy import Policy


class Statistics:
    """Reads the numbers from where they are counted; may be used from any thread.

    `started_s` is the monotonic time at which the daemon started.
    """

    def __init__(
        self,
        health: Health,
        monitor: Monitor,
        latencies: Latencies,
        *,
        policy: Policy,
        outbox: Outbox,
        publisher: Publisher,
        switches: Switches,
        classifiers: Mapping[str, FallbackClassifier],
        started_s: float,
    ) -> None:
        self._health = health
        self._monitor = monitor
        self._latencies = latencies
        self._policy = policy
        self._outbox = outbox
        self._publisher = publisher
        self._switches = switches
        self._classifiers = classifiers
        self._started_s = started_s

    @property
    def uptime_s(self) -> float:
        """Seconds since the daemon started."""
        return time.monotonic() - self._started_s

    @property
    def has_input(self) -> bool:
        """Whether the first frame or window of audio was processed."""
        return bool(self._health.counters["frames"] or self._health.counters["windows"])

    def payload(self) -> dict[str, object]:
        """Return the payload of `stats`."""
        return messages.stats(
            time=self._health.time.now(),
            uptime_s=self.uptime_s,
            counters=self._numbers(),
            latency_ms=self._latencies.quantiles_ms(),
            outbox=self._outbox_counts(),
        )

    def snapshot(self) -> Snapshot:
        """Return everything that `/metrics` and the page show."""
        return Snapshot(
            uptime_s=self.uptime_s,
            counters=self._numbers(),
            faults=self._health.reasons,
            outbox=self._outbox_counts(),
            is_connected=self._publisher.connection_state.connected,
            live_dropped=self._publisher.live_dropped,
            latency_ms=self._latencies.quantiles_ms(),
            backends={task: classifier.backend for task, classifier in self._classifiers.items()},
            switches={part: self._switches.is_on(part) for part in self._switches.parts},
            payloads=self._publisher.payloads,
        )

    def _numbers(self) -> dict[str, int | float]:
        """Return the counters that the policy permits, memory and conditions of the device."""
        counters = self._policy.counters(self._health.counters)
        return {**counters, "rss_bytes": rss_bytes(), **self._monitor.numbers()}

    def _outbox_counts(self) -> Counts | None:
        """Return the counts of the outbox; None while its disk fails."""
        try:
            return self._outbox.counts()
        except OutboxError:
            return None
