"""Checks the device itself: permissions, outbox, disk, clock, power, temperature."""

from __future__ import annotations

import glob
import grp
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge.commands.doctor.finding import Finding, failed
from edge.config import outbox_path
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.errors import EdgeError
from edge.files import ROOT
from edge.host.conditions import Conditions, read_conditions
from edge.host.monitor import DISK_LOW_BYTES
from edge.settings import Config
from edge.sources.devices import edge_tpu_nodes

# The nodes that each part opens, and Debian's group for them, for nodes whose own group has no name.
NODES = {
    "camera": (("dev/video*", "video"), ("dev/media*", "video"), ("dev/dma_heap/*", "video")),
    "microphone": (("dev/snd/pcm*c", "audio"),),
    "accelerator": (("dev/dri/renderD*", "render"),),
}
POWER_REMEDY = "use the board's own power supply and cable, and unplug USB devices"
NOT_REPORTED = "not reported by this device"


def check_device(config: Config, *, root: Path = ROOT) -> Iterator[Finding]:
    """Check what the daemon needs of the device, with the permissions of the current user."""
    yield from check_permissions(config, root)
    path = outbox_path(config)
    yield check_outbox(path)
    yield from check_conditions(read_conditions(path.parent, root=root), config.health.soft_limit_c)


def check_permissions(config: Config, root: Path) -> Iterator[Finding]:
    """Report by part the device nodes that this user may not open."""
    wanted = {
        "camera": config.camera.source != "none",
        "microphone": config.microphone.source != "none",
        "accelerator": config.inference.backend != "cpu",
    }
    for part, patterns in NODES.items():
        nodes = [(node, usual) for pattern, usual in patterns for node in sorted(root.glob(pattern))]
        if part == "accelerator":
            nodes += [(node, "plugdev") for node in edge_tpu_nodes(root)]
        refused = [(node, usual) for node, usual in nodes if not _may_open(node)]
        if not nodes or not wanted[part]:
            yield Finding(
                "permissions",
                part,
                "skipped",
                "no device node" if wanted[part] else "not used by this config",
            )
        elif refused:
            groups = ",".join(sorted({_group(node) or usual for node, usual in refused}))
            detail = f"this user may not open {', '.join(str(node) for node, _ in refused)}"
            remedy = f"`sudo usermod -aG {groups} $USER`, then log in again"
            yield Finding("permissions", part, "failed", detail, remedy)
        else:
            who = "root" if os.geteuid() == 0 else "this user"
            yield Finding("permissions", part, "ok", f"{who} may open all {len(nodes)} device nodes")


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK, effective_ids=True)


def _group(node: Path) -> str:
    try:
        name = grp.getgrgid(node.stat().st_gid).gr_name
    except (KeyError, OSError):
        return ""
    return "" if name == "root" else name


def check_outbox(path: Path) -> Finding:
    """Write a temporary file to the outbox's directory and count the events; create no outbox."""
    directory = next(there for there in (path.parent, *path.parent.parents) if there.exists())
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"doctor")
            os.fsync(file.fileno())
    except OSError as error:
        remedy = f"`sudo chown -R $USER {directory}`, or free disk space, or set outbox.path"
        return Finding("outbox", str(path), "failed", f"{directory}: {error.strerror}", remedy)
    if not path.exists():
        return Finding("outbox", str(path), "ok", "does not exist yet; the daemon creates it")
    try:
        with closing(DeadLetters(path)) as dead_letters:
            counts = dead_letters.contents().counts
    except EdgeError as error:
        return failed("outbox", str(path), error)
    detail = f"{counts.waiting} waiting, {counts.refused} refused, {counts.dropped} dropped"
    set_aside = sorted(path.parent.glob(f"{glob.escape(path.name)}.corrupt-*"))
    if set_aside:
        detail = f"a damaged outbox was set aside as {set_aside[-1]}; {detail}"
        return Finding("outbox", str(path), "failed", detail, "check the disk, then move that file away")
    return Finding("outbox", str(path), "ok", detail)


def check_conditions(now: Conditions, soft_limit_c: float) -> Iterator[Finding]:
    """Check disk, clock, power and temperature; a value that the device does not report is skipped."""
    yield check_disk(now.disk_free_bytes)
    yield check_clock(now.is_clock_synchronised)
    yield check_power(now)
    yield check_temperature(now.temperature_c, soft_limit_c)


def check_disk(free_bytes: int | None) -> Finding:
    """Fail when the disk of the outbox is nearly full."""
    if free_bytes is None:
        return Finding("disk", "", "skipped", NOT_REPORTED)
    if free_bytes < DISK_LOW_BYTES:
        remedy = "free disk space: `sudo apt clean`, `sudo journalctl --vacuum-size=50M`"
        return Finding("disk", "", "failed", f"{free_bytes / 1e6:.0f} MB free", remedy)
    return Finding("disk", "", "ok", f"{free_bytes / 1e9:.1f} GB free")


def check_clock(is_synchronised: bool | None) -> Finding:
    """Fail when no time server sets the clock, because events would carry a wrong time."""
    if is_synchronised is None:
        return Finding("clock", "", "skipped", NOT_REPORTED)
    if is_synchronised:
        return Finding("clock", "", "ok", "synchronised")
    remedy = "`sudo timedatectl set-ntp true`; otherwise events carry a wrong time"
    return Finding("clock", "", "failed", "not synchronised", remedy)


def check_power(now: Conditions) -> Finding:
    """Fail on an under-voltage, now or since the boot."""
    if now.throttled is None:
        return Finding("power", "", "skipped", NOT_REPORTED)
    if "under_voltage" in now.limits:
        return Finding("power", "", "failed", "under-voltage now", POWER_REMEDY)
    if "under_voltage" in now.limits_since_boot:
        return Finding("power", "", "failed", "under-voltage at some time since the boot", POWER_REMEDY)
    return Finding("power", "", "ok", "no under-voltage since the boot")


def check_temperature(temperature_c: float | None, soft_limit_c: float) -> Finding:
    """Fail when the processor is at `health.soft_limit_c`, where the daemon processes fewer frames."""
    if temperature_c is None:
        return Finding("temperature", "", "skipped", NOT_REPORTED)
    detail = f"{temperature_c} °C, limit {soft_limit_c:g}"
    if temperature_c >= soft_limit_c:
        remedy = "add ventilation, shade or a fan; health.soft_limit_c is the limit"
        return Finding("temperature", "", "failed", detail, remedy)
    return Finding("temperature", "", "ok", detail)
