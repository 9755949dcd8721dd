"""The metrics: what Prometheus reads from a snapshot of the daemon."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from edge.delivery.outbox.rows import Counts
from edge.page.metrics import render_metrics
from edge.page.snapshot import Snapshot


def snapshot(**more: Any) -> Snapshot:
    """Return a snapshot with the given values, and empty ones elsewhere."""
    plain: dict[str, Any] = {
        "uptime_s": 1.5,
        "counters": {},
        "faults": [],
        "outbox": None,
        "is_connected": True,
        "live_dropped": 0,
        "latency_ms": {},
        "backends": {},
        "switches": {},
        "payloads": {},
    }
    return Snapshot(**{**plain, **more})


def read(text: bytes) -> dict[tuple[str, str], float]:
    """Parse an exposition as Prometheus does; return the value of each sample by name and labels."""
    return {
        (sample.name, " ".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_each_number_has_its_metric() -> None:
    """Each number of a snapshot has its metric, in seconds and bytes."""
    payloads = {
        "state": {"emotion": "fear", "confidence": 0.7, "present": True},
        "group/state": {"counts": {"fear": 2}},
        "fatigue/state": {"level": "tired", "score": 0.4, "perclos": 0.13},
    }
    now = snapshot(
        counters={"frames": 7, "audio_gap_samples": 8000, "camera_faults": 3},
        faults=["camera:no_device"],
        outbox=Counts(waiting=4, waiting_bytes=900, refused=1, dropped=2, last_sequence=11),
        latency_ms={"see": {"p50": 5.0, "p95": 8.0}},
        backends={"face": "gpu"},
        switches={"camera": True, "microphone": False},
        payloads=payloads,
    )
    got = read(render_metrics(now))
    wanted = {
        ("frames_total", ""): 7,
        ("audio_lost_seconds_total", ""): 0.5,
        ("faults_total", "component=camera"): 3,
        ("fault", "component=camera reason=no_device"): 1,
        ("outbox_waiting", ""): 4,
        ("outbox_refused_total", ""): 1,
        ("outbox_dropped_total", ""): 2,
        ("latency_seconds", "quantile=0.95 stage=see"): 0.008,
        ("backend_info", "backend=gpu modality=face"): 1,
        ("enabled", "part=microphone"): 0,
        ("room_emotion", "emotion=fear"): 1,
        ("room_emotion", "emotion=anger"): 0,
        ("room_confidence", ""): 0.7,
        ("group_faces", "emotion=fear"): 2,
        ("fatigue_level", "level=tired"): 1,
        ("fatigue_level", "level=alert"): 0,
        ("fatigue_score", ""): 0.4,
        ("perclos", ""): 0.13,
    }
    assert {(f"emotion_edge_{name}", labels): value for (name, labels), value in wanted.items()}.items() <= (
        got.items()
    )
    assert sum(value for (name, _), value in got.items() if name == "emotion_edge_room_emotion") == 1


def test_metrics_have_only_what_was_published() -> None:
    """Where the policy withholds the room and a small group, no metric has them."""
    text = render_metrics(snapshot(payloads={"group/state": {"counts": None}}))
    assert b"emotion_edge_uptime_seconds" in text
    assert b"edge_room" not in text
    assert b"edge_group" not in text
