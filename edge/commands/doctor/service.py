"""Finds the running daemon and takes over the environment of its systemd unit."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from edge.files import ROOT

UNIT = "emotion-edge.service"


def daemon_pid(root: Path = ROOT) -> int:
    """Return the process that runs `emotion-edge run`, or 0 if this user can see none."""
    for file in sorted((root / "proc").glob("[0-9]*/cmdline")):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # the process has ended
            continue
        is_ours = any(Path(word).name == "emotion-edge" for word in words[:3]) or words[1:3] == ["-m", "edge"]
        if is_ours and "run" in words and int(file.parent.name) != os.getpid():
            return int(file.parent.name)
    return 0


def adopt_service(root: Path = ROOT, environ: MutableMapping[str, str] = os.environ) -> None:
    """Copy the service's directories and settings into `environ`, as far as this user may read them.

    With this, `sudo emotion-edge doctor` checks what systemd runs, or would run. Variables that are set stay.
    """
    for cgroup in (root / "proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            if not cgroup.read_text(encoding="utf-8").rstrip().endswith(f"/{UNIT}"):
                continue
            for line in cgroup.with_name("environ").read_bytes().decode(errors="replace").split("\0"):
                name, _, value = line.partition("=")
                if name in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY") or name.startswith("EMOTION_EDGE_"):
                    environ.setdefault(name, value)
    if os.geteuid() == 0 and (root / "etc/systemd/system" / UNIT).exists():  # installed, but stopped
        for name, place in (("STATE_DIRECTORY", "var/lib"), ("CREDENTIALS_DIRECTORY", "etc")):
            if (root / place / "emotion-edge").is_dir():
                environ.setdefault(name, str(root / place / "emotion-edge"))
