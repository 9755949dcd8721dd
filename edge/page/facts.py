"""Describes the device in short phrases, for the list at the end of the page."""

from __future__ import annotations

from collections.abc import Mapping

from edge.host.conditions import names_of
from edge.page.live_view import LiveState
from edge.page.snapshot import Snapshot

STAGES = ("see", "hear", "publish")  # in the order of the flow


def describe(snapshot: Snapshot, live: LiveState) -> list[list[str]]:
    """Return (name, phrase) of each part of the device; a name is that of the part's faults."""
    facts = []
    if "camera" in snapshot.switches:
        facts.append(["camera", f"{live.fps:.1f} frames a second" if snapshot.switches["camera"] else "off"])
    if "microphone" in snapshot.switches:
        facts.append(["microphone", _level(live) if snapshot.switches["microphone"] else "off"])
    facts.append(["accelerator", ", ".join(f"{name} ({task})" for task, name in snapshot.backends.items())])
    medians = [
        f"{stage} {snapshot.latency_ms[stage]['p50']:.0f} ms"
        for stage in STAGES
        if stage in snapshot.latency_ms
    ]
    facts.append(["latency", ", ".join(medians) or "not measured yet"])
    if snapshot.outbox is None:
        facts.append(["outbox", "not writable"])
    else:
        counts = snapshot.outbox
        facts.append(
            ["outbox", f"{counts.waiting} waiting, {counts.refused} refused, {counts.dropped} dropped"]
        )
    facts += _conditions(snapshot.counters)
    minutes = int(snapshot.uptime_s // 60)
    facts.append(["uptime", f"{minutes // 1440} d {minutes // 60 % 24} h {minutes % 60} min"])
    return facts


def _conditions(numbers: Mapping[str, int | float]) -> list[list[str]]:
    """Return the conditions of the device; those that it does not report are left out."""
    facts = []
    if "temperature_c" in numbers:
        factor = numbers.get("frame_rate_factor", 1)
        slowed = f", camera slowed to {factor:.0%}" if factor < 1 else ""
        facts.append(["device", f"{numbers['temperature_c']:.0f} °C{slowed}"])
    if "throttled" in numbers:
        limits = names_of(int(numbers["throttled"]))
        facts.append(["power", ", ".join(name.replace("_", " ") for name in limits) or "good"])
    if "rss_bytes" in numbers:
        facts.append(["memory", f"{numbers['rss_bytes'] / 1e6:.0f} MB"])
    if "disk_free_bytes" in numbers:
        facts.append(["disk", f"{numbers['disk_free_bytes'] / 1e9:.1f} GB free"])
    if "clock_synchronised" in numbers:
        facts.append(["clock", "synchronised" if numbers["clock_synchronised"] else "not synchronised"])
    return facts


def _level(live: LiveState) -> str:
    return "no audio" if live.level_db is None else f"listening, {live.level_db:.0f} dB"
