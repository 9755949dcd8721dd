"""The doctor's stages for the device itself: permissions, outbox, disk, clock, power, temperature."""

from __future__ import annotations

import grp
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge.commands.doctor.stages import Finding, failed
from edge.config import outbox_path
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.errors import EdgeError
from edge.files import ROOT
from edge.host.conditions import Conditions, read_conditions
from edge.host.monitor import DISK_LOW_BYTES
from edge.settings import Config
from edge.sources.devices import edge_tpu_nodes

# What a part opens, and the group that Debian gives such nodes, where the node's own has no name.
NODES = {
    "camera": (("dev/video*", "video"), ("dev/media*", "video"), ("dev/dma_heap/*", "video")),
    "microphone": (("dev/snd/pcm*c", "audio"),),
    "accelerator": (("dev/dri/renderD*", "render"),),
}
SUPPLY = "use the supply and the cable that came with the board, and less on its USB ports"


def examine_device(config: Config, *, root: Path = ROOT) -> Iterator[Finding]:
    """Look at what the daemon needs of the device, as the user who asks."""
    yield from permissions(config, root)
    path = outbox_path(config)
    yield examine_outbox(path)
    yield from examine_conditions(read_conditions(path.parent, root=root), config.health.soft_limit_c)


def permissions(config: Config, root: Path) -> Iterator[Finding]:
    """Name the device nodes that this user may not open, by the part that wants them."""
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
            yield Finding("permissions", part, "skipped", "no device node" if wanted[part] else "not wanted")
        elif refused:
            groups = ",".join(sorted({_group(node) or usual for node, usual in refused}))
            detail = f"may not open {', '.join(str(node) for node, _ in refused)}"
            remedy = f"`sudo usermod -aG {groups} $USER`, then log in again"
            yield Finding("permissions", part, "failed", detail, remedy)
        else:
            who = "root may open all" if os.geteuid() == 0 else "may open all"
            yield Finding("permissions", part, "ok", f"{who} {len(nodes)} device nodes")


def _may_open(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK, effective_ids=True)


def _group(node: Path) -> str:
    try:
        name = grp.getgrgid(node.stat().st_gid).gr_name
    except (KeyError, OSError):
        return ""
    return "" if name == "root" else name


def examine_outbox(path: Path) -> Finding:
    """Write beside the outbox, and count what is in it; nothing stays, no outbox is made."""
    directory = next(there for there in (path.parent, *path.parent.parents) if there.exists())
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"doctor")
            os.fsync(file.fileno())
    except OSError as error:
        remedy = f"`sudo chown -R $USER {directory}`, or make room, or set outbox.path"
        return Finding("outbox", str(path), "failed", f"{directory}: {error.strerror}", remedy)
    if not path.exists():
        return Finding("outbox", str(path), "ok", "the daemon will make it")
    try:
        with closing(DeadLetters(path)) as letters:
            counts = letters.contents().counts
    except EdgeError as error:
        return failed("outbox", str(path), error)
    detail = f"{counts.waiting} waiting, {counts.refused} refused, {counts.dropped} dropped"
    return Finding("outbox", str(path), "ok", detail)


def examine_conditions(now: Conditions, soft_limit_c: float) -> Iterator[Finding]:
    """Judge disk, clock, power and temperature; what the device does not say is skipped."""
    unknown = "this device does not say"
    free = now.disk_free_bytes
    if free is None:
        yield Finding("disk", "", "skipped", unknown)
    elif free < DISK_LOW_BYTES:
        remedy = "make room: `sudo apt clean`, `sudo journalctl --vacuum-size=50M`"
        yield Finding("disk", "", "failed", f"{free / 1e6:.0f} MB free", remedy)
    else:
        yield Finding("disk", "", "ok", f"{free / 1e9:.1f} GB free")
    if now.is_clock_synchronised is None:
        yield Finding("clock", "", "skipped", unknown)
    elif now.is_clock_synchronised:
        yield Finding("clock", "", "ok", "synchronised")
    else:
        remedy = "`sudo timedatectl set-ntp true`; events would have a wrong time"
        yield Finding("clock", "", "failed", "nobody sets it", remedy)
    if now.throttled is None:
        yield Finding("power", "", "skipped", unknown)
    elif "under_voltage" in now.limits:
        yield Finding("power", "", "failed", "under-voltage now", SUPPLY)
    elif "under_voltage" in now.limits_since_boot:
        yield Finding("power", "", "failed", "under-voltage at some time since the boot", SUPPLY)
    else:
        yield Finding("power", "", "ok", "no under-voltage since the boot")
    if now.temperature_c is None:
        yield Finding("temperature", "", "skipped", unknown)
    elif now.temperature_c >= soft_limit_c:
        remedy = "give it air, shade or a fan; health.soft_limit_c is the limit"
        yield Finding("temperature", "", "failed", f"{now.temperature_c} °C, limit {soft_limit_c:g}", remedy)
    else:
        yield Finding("temperature", "", "ok", f"{now.temperature_c} °C, limit {soft_limit_c:g}")
