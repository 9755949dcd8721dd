"""Prometheus metrics of the running daemon.

Metrics about the room come from the published payloads, so that the policy holds for them, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge import __version__
from edge.delivery.outbox.rows import Counts
from edge.host.conditions import THROTTLED
from edge.page.snapshot import Snapshot
from edge.people.fatigue import LEVELS
from edge.policy import PERSONAL_COUNTERS
from edge.values import ABSENT, LABELS, SAMPLE_RATE_HZ, UNCERTAIN

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Key of the counter: name of the metric without its `_total`, help text, factor to the unit of the metric.
COUNTERS = {
    "frames": ("frames", "frames processed", 1.0),
    "faces": ("face_sightings", "faces detected, counted in each frame", 1.0),
    "windows": ("windows", "audio windows processed", 1.0),
    "spoken_windows": ("spoken_windows", "audio windows with enough speech to classify", 1.0),
    "audio_gap_samples": ("audio_lost_seconds", "audio lost by the driver", 1 / SAMPLE_RATE_HZ),
    "frames_dropped": (
        "frames_dropped",
        "frames lost: damaged, or the pipeline was busy",
        1.0,
    ),
    "frames_spared": ("frames_spared", "frames skipped because the device was hot", 1.0),
    "events": ("events", "events emitted that the policy permits", 1.0),
    "commands_refused": ("commands_refused", "commands that were neither ON nor OFF", 1.0),
}
# Key of the number: name of the gauge, help text.
GAUGES = {
    "temperature_c": ("temperature_celsius", "temperature of the hottest processor"),
    "frame_rate_factor": ("frame_rate_factor", "share of the frame rate in use, below 1 while hot"),
    "disk_free_bytes": ("disk_free_bytes", "free space on the disk of the outbox"),
    "clock_synchronised": ("clock_synchronised", "1 while the clock is synchronised"),
}
FAULTS = "_faults"


class _Metrics(Collector):
    """Every metric of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        now = self._snapshot
        yield _gauge("build_info", "version of the daemon", [({"version": __version__}, 1)])
        yield _gauge("uptime_seconds", "time since the daemon started", [({}, now.uptime_s)])
        yield from _counters(now.counters)
        yield from _device(now.counters)
        yield _gauge("fault", "1 for each current fault", [(_split(fault), 1) for fault in now.faults])
        yield _gauge("mqtt_connected", "1 while a broker is connected", [({}, now.is_connected)])
        yield _counter("live_dropped", "live messages dropped without a broker", [({}, now.live_dropped)])
        if now.outbox is not None:
            yield from _outbox(now.outbox)
        quantiles = [
            ({"stage": stage, "quantile": str(int(name[1:]) / 100)}, value / 1e3)
            for stage, values in now.latency_ms.items()
            for name, value in values.items()
        ]
        yield _gauge("latency_seconds", "duration of a stage over its newest 256 runs", quantiles)
        backends = [({"modality": task, "backend": name}, 1) for task, name in now.backends.items()]
        yield _gauge("backend_info", "backend that runs each model", backends)
        switches = [({"part": part}, is_on) for part, is_on in now.switches.items()]
        yield _gauge("enabled", "1 while the camera or the microphone is switched on", switches)
        yield from _room(now.payloads)


def render_metrics(snapshot: Snapshot) -> bytes:
    """Return a snapshot, and the memory, processor time and open files of this process, as `CONTENT_TYPE`."""
    registry = CollectorRegistry()
    registry.register(_Metrics(snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _counters(counters: Mapping[str, int | float]) -> Iterable[Metric]:
    for key, (name, text, factor) in COUNTERS.items():
        if key in counters or key not in PERSONAL_COUNTERS:  # 0 would be wrong where the policy withholds it
            yield _counter(name, text, [({}, counters.get(key, 0) * factor)])
    faults = [
        ({"component": key.removesuffix(FAULTS)}, value)
        for key, value in list(counters.items())
        if key.endswith(FAULTS)
    ]
    yield _counter("faults", "failures by component, each attempt counted", faults)


def _device(numbers: Mapping[str, int | float]) -> Iterable[Metric]:
    """Yield the conditions of the device; those that it does not report are left out."""
    for key, (name, text) in GAUGES.items():
        if key in numbers:
            yield _gauge(name, text, [({}, numbers[key])])
    if "throttled" in numbers:
        bits = int(numbers["throttled"])
        samples = [({"reason": name}, bool(bits & bit)) for name, bit in THROTTLED.items()]
        yield _gauge("throttled", "1 for each limit that the firmware of a Raspberry Pi sets now", samples)


def _outbox(counts: Counts) -> Iterable[Metric]:
    yield _gauge("outbox_waiting", "events waiting for the broker", [({}, counts.waiting)])
    yield _gauge("outbox_waiting_bytes", "size of the waiting events", [({}, counts.waiting_bytes)])
    yield _counter("outbox_refused", "events refused by the broker", [({}, counts.refused)])
    yield _counter("outbox_dropped", "events dropped because the outbox was full", [({}, counts.dropped)])
    yield _gauge("outbox_last_sequence", "sequence number of the newest event", [({}, counts.last_sequence)])


def _room(payloads: Mapping[str, Mapping[str, Any]]) -> Iterable[Metric]:
    """Yield the published states of the room: of each set of labels one is 1, the others are 0."""
    labels = (*LABELS, UNCERTAIN, ABSENT)
    if state := payloads.get("state"):
        flags = [({"emotion": label}, label == state["emotion"]) for label in labels]
        yield _gauge("room_emotion", "1 for the emotion of the room", flags)
        yield _gauge("room_confidence", "confidence of that emotion, 0 to 1", [({}, state["confidence"])])
        yield _gauge("room_present", "1 while anybody is present", [({}, state["present"])])
    if (group := payloads.get("group/state")) and group["counts"] is not None:
        counts = [({"emotion": label}, group["counts"].get(label, 0)) for label in labels]
        yield _gauge("group_faces", "faces in view by emotion", counts)
    if fatigue := payloads.get("fatigue/state"):
        flags = [({"level": level}, level == fatigue["level"]) for level in LEVELS]
        yield _gauge("fatigue_level", "1 for the fatigue level of the most tired person", flags)
        text = "0 rested, from 1/3 on tired, from 2/3 on drowsy"
        yield _gauge("fatigue_score", text, [({}, fatigue["score"])])
        if fatigue["perclos"] is not None:
            text = "share of a minute with closed eyes, of the most tired person"
            yield _gauge("perclos", text, [({}, fatigue["perclos"])])


def _split(reason: str) -> dict[str, str]:
    component, _, code = reason.partition(":")
    return {"component": component, "reason": code}


def _gauge(name: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    return _filled(GaugeMetricFamily(f"emotion_edge_{name}", _sentence(text)), samples)


def _counter(name: str, text: str, samples: Iterable[tuple[dict[str, str], float]]) -> Metric:
    family = CounterMetricFamily(f"emotion_edge_{name}", _sentence(text))
    return _filled(family, samples, suffix="_total")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _filled(family: Metric, samples: Iterable[tuple[dict[str, str], float]], suffix: str = "") -> Metric:
    for labels, value in samples:
        family.add_sample(family.name + suffix, labels, float(value))
    return family
