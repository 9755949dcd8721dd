"""Shows the running daemon to Prometheus.

What is said about the room comes from the payloads that went to the broker, so that nothing leaves here
which the policy keeps from leaving there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge import __version__
from edge.delivery.outbox.queue import Counts
from edge.host.conditions import THROTTLED
from edge.people.fatigue import LEVELS
from edge.policy import PERSONAL_COUNTERS
from edge.values import ABSENT, LABELS, SAMPLE_RATE_HZ, UNCERTAIN

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Counter of the daemon: metric without its `_total`, what it counts, and what its unit is worth.
COUNTERS = {
    "frames": ("frames", "pictures looked at", 1.0),
    "faces": ("face_sightings", "faces found, once in each picture", 1.0),
    "windows": ("windows", "windows of sound listened to", 1.0),
    "spoken_windows": ("spoken_windows", "windows with enough speech to be judged", 1.0),
    "audio_gap_samples": (
        "audio_lost_seconds",
        "sound that the driver lost",
        1 / SAMPLE_RATE_HZ,
    ),
    "frames_dropped": ("frames_dropped", "pictures lost since nobody was ready, or damaged", 1.0),
    "frames_spared": ("frames_spared", "pictures not looked at since the device was hot", 1.0),
    "events": ("events", "events that happened and may leave", 1.0),
    "commands_refused": ("commands_refused", "commands that were neither ON nor OFF", 1.0),
}
# Number of the device: gauge, and what it says.
GAUGES = {
    "temperature_c": ("temperature_celsius", "the hottest processor"),
    "frame_rate_factor": ("frame_rate_factor", "share of the frame rate that the temperature allows"),
    "disk_free_bytes": ("disk_free_bytes", "what may still be written to the disk of the outbox"),
    "clock_synchronised": ("clock_synchronised", "whether somebody sets the clock"),
}
FAULTS = "_faults"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon at one moment; `told` has the newest payload of each live topic that may leave.

    `outbox` is None while the disk is away; `latency_ms` has `p50` and `p95` of each stage.
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
    told: Mapping[str, Mapping[str, Any]]


class Metrics(Collector):
    """All metrics in a registry of their own, read from a snapshot at each scrape."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)  # memory, processor time, open files

    def text(self) -> bytes:
        """Return the exposition format, `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Say nothing, so that registering needs no snapshot."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield every metric as it is now."""
        now = self._snapshot()
        yield _gauge("build_info", "the daemon", [({"version": __version__}, 1)])
        yield _gauge("uptime_seconds", "since the daemon started", [({}, now.uptime_s)])
        yield from _counters(now.counters)
        yield from _device(now.counters)
        yield _gauge("fault", "1 for each thing that does not work", [(_split(f), 1) for f in now.faults])
        yield _gauge("mqtt_connected", "whether the broker is there", [({}, now.is_connected)])
        yield _counter("live_dropped", "messages about now that found no broker", [({}, now.live_dropped)])
        if now.outbox is not None:
            yield from _outbox(now.outbox)
        quantiles = [
            ({"stage": stage, "quantile": str(int(name[1:]) / 100)}, value / 1e3)
            for stage, values in now.latency_ms.items()
            for name, value in values.items()
        ]
        yield _gauge("latency_seconds", "how long a stage took, of its newest 256 runs", quantiles)
        backends = [({"modality": task, "backend": name}, 1) for task, name in now.backends.items()]
        yield _gauge("backend_info", "what each model runs on", backends)
        switches = [({"part": part}, is_on) for part, is_on in now.switches.items()]
        yield _gauge("enabled", "whether the camera or the microphone may be opened", switches)
        yield from _room(now.told)


def _counters(counters: Mapping[str, int | float]) -> Iterable[Metric]:
    for key, (name, what, worth) in COUNTERS.items():
        if key in counters or key not in PERSONAL_COUNTERS:  # 0 would not be true where they are withheld
            yield _counter(name, what, [({}, counters.get(key, 0) * worth)])
    faults = [
        ({"component": key.removesuffix(FAULTS)}, value)
        for key, value in list(counters.items())
        if key.endswith(FAULTS)
    ]
    yield _counter("faults", "failures, every attempt counted", faults)


def _device(numbers: Mapping[str, int | float]) -> Iterable[Metric]:
    """Yield what the device says of itself; what it does not say is left out."""
    for key, (name, what) in GAUGES.items():
        if key in numbers:
            yield _gauge(name, what, [({}, numbers[key])])
    if "throttled" in numbers:
        bits = int(numbers["throttled"])
        samples = [({"reason": name}, bool(bits & bit)) for name, bit in THROTTLED.items()]
        yield _gauge("throttled", "1 for each limit that a Raspberry Pi's firmware sets just now", samples)


def _outbox(counts: Counts) -> Iterable[Metric]:
    yield _gauge("outbox_waiting", "events not yet at the broker", [({}, counts.waiting)])
    yield _gauge("outbox_waiting_bytes", "and their size", [({}, counts.waiting_bytes)])
    yield _counter("outbox_refused", "events that the broker would not take", [({}, counts.refused)])
    yield _counter("outbox_dropped", "events that found no room in the outbox", [({}, counts.dropped)])
    yield _gauge("outbox_last_sequence", "the number of the newest event", [({}, counts.last_sequence)])


def _room(told: Mapping[str, Mapping[str, Any]]) -> Iterable[Metric]:
    """Yield what was told of the room: one emotion of nine is 1, the others are 0."""
    words = (*LABELS, UNCERTAIN, ABSENT)
    if state := told.get("state"):
        one = [({"emotion": word}, word == state["emotion"]) for word in words]
        yield _gauge("room_emotion", "1 for the emotion of the room", one)
        yield _gauge("room_confidence", "how sure that is, 0 to 1", [({}, state["confidence"])])
        yield _gauge("room_present", "whether anybody is seen or heard", [({}, state["present"])])
    if (group := told.get("group/state")) and group["counts"] is not None:
        counts = [({"emotion": word}, group["counts"].get(word, 0)) for word in words]
        yield _gauge("group_faces", "faces in view by emotion", counts)
    if tired := told.get("fatigue/state"):
        one = [({"level": word}, word == tired["level"]) for word in LEVELS]
        yield _gauge("fatigue_level", "1 for the level of whoever is worst off", one)
        yield _gauge(
            "fatigue_score", "0 rested, from 1/3 on tired, from 2/3 on drowsy", [({}, tired["score"])]
        )
        if tired["perclos"] is not None:
            yield _gauge("perclos", "share of a minute with closed eyes, theirs", [({}, tired["perclos"])])


def _split(reason: str) -> dict[str, str]:
    component, _, code = reason.partition(":")
    return {"component": component, "reason": code}


def _gauge(name: str, what: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    return _filled(GaugeMetricFamily(f"emotion_edge_{name}", _sentence(what)), samples)


def _counter(name: str, what: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    family = CounterMetricFamily(f"emotion_edge_{name}", _sentence(what))
    return _filled(family, samples, suffix="_total")


def _sentence(what: str) -> str:
    return what[0].upper() + what[1:]


def _filled(family: Metric, samples: Iterable[tuple[dict[str, str], float]], suffix: str = "") -> Metric:
    for labels, value in samples:
        family.add_sample(family.name + suffix, labels, float(value))
    return family
