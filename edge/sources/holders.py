"""Finds the programs that hold a device, so that an error for a busy device can name them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from edge.files import ROOT


def holders(*nodes: Path, root: Path = ROOT) -> list[tuple[int, str]]:
    """Return process id and command of each process that has one of `nodes` open and is visible to this user.

    The owner of a sound device is visible to all users, in /proc/asound.
    """
    wanted = {str(node.resolve()) for node in nodes}
    pids = {int(pid) for pid in _numbers(root / "proc") if wanted & _open_files(root / "proc" / pid / "fd")}
    pids |= {pid for node in nodes if (pid := _sound_owner(node, root))}
    return [(pid, _command(root, pid)) for pid in sorted(pids)]


def in_use(*nodes: Path, root: Path = ROOT) -> str:
    """Describe who holds one of `nodes`, with a remedy: `in use by 812 (motion); stop that program`."""
    found = holders(*nodes, root=root)
    if not found:
        return f"in use; stop the other program (`sudo fuser -v {' '.join(map(str, nodes))}` names it)"
    names = ", ".join(
        f"{pid} (this process)" if pid == os.getpid() else f"{pid} ({command or 'unknown'})"
        for pid, command in found
    )
    return f"in use by {names}; stop that program"


def pcm_node(card: int, device: int = 0) -> Path:
    """Return the node that records from an ALSA card."""
    return Path(f"/dev/snd/pcmC{card}D{device}c")


def _numbers(proc: Path) -> list[str]:
    return [name for name in os.listdir(proc) if name.isdigit()] if proc.is_dir() else []  # noqa: PTH208 - faster, for thousands of names


def _open_files(directory: Path) -> set[str]:
    files = set()
    with suppress(OSError):  # a process of another user, or one that has ended
        for link in os.scandir(directory):
            with suppress(OSError):
                files.add(os.readlink(link.path))  # noqa: PTH115 - faster, for every open file of the machine
    return files


def _sound_owner(node: Path, root: Path) -> int:
    """Read `owner_pid   : 812` of pcmC1D0c in /proc/asound/card1/pcm0c/sub0/status."""
    card, _, device = node.name.removeprefix("pcmC").partition("D")
    for status in (root / f"proc/asound/card{card}/pcm{device}").glob("sub*/status"):
        with suppress(OSError, ValueError):
            for line in status.read_text(encoding="ascii", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "owner_pid":
                    return int(value)
    return 0


def _command(root: Path, pid: int) -> str:
    with suppress(OSError):
        return (root / "proc" / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
    return ""
