"""`emotion-edge doctor --bundle FILE`: one archive with what a bug report needs.

It contains no image, audio, password, token or event payload; names of machines, people and brokers are
replaced. `README.txt` in the archive documents this for the user who sends it.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import subprocess
import tarfile
import time
from collections.abc import Sequence
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

from edge import __version__
from edge.commands.doctor.finding import Finding, report
from edge.commands.doctor.scrub import Scrubber, scrubber_of
from edge.commands.doctor.service import UNIT
from edge.config import DEFAULT_PATH, load_config, outbox_path, state_directory, to_toml
from edge.delivery.messages import outbox_counts
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.errors import EdgeError
from edge.host.conditions import read_conditions
from edge.settings import Config
from edge.sources.devices import list_devices

LOG_LINES = 500
LOG_S = 10.0
DEAD_LETTERS = 20
README = f"""Contents of this archive, written by `emotion-edge doctor --bundle`:

doctor.json      the findings of the doctor
config.toml      the effective configuration
versions.json    versions of this program, Python, the system and the libraries
devices.json     cameras, microphones, accelerators
conditions.json  temperature, power, disk, clock
outbox.json      counts of waiting, refused and dropped events with the reasons, not the events themselves
journal.txt      the last {LOG_LINES} log lines of {UNIT}, if this user may read them

The archive contains no images, audio, passwords, tokens or events. Host names, user names, addresses, serial
numbers and all text between braces in the log are replaced. Read the files before you send the archive.
"""


def write_bundle(path: Path, config_path: Path | None, findings: Sequence[Finding]) -> None:
    """Write the archive to a new file that only this user may read; raise `EdgeError` if that fails."""
    try:
        config = load_config(config_path)
        scrubber = scrubber_of(config)
    except EdgeError:  # the findings report it
        config = None
        scrubber = scrubber_of(None, raw=_text(config_path or DEFAULT_PATH))
    conditions = read_conditions(state_directory() if config is None else outbox_path(config).parent)
    devices = [dataclasses.asdict(device) for device in list_devices()]
    texts = {
        "README.txt": README,
        "doctor.json": _json(scrubber.all(report(findings))),
        "config.toml": scrubber.text(to_toml(config)) if config else "# not valid; see doctor.json\n",
        "versions.json": _json(_versions()),
        "devices.json": _json(scrubber.all(devices)),
        "conditions.json": _json(conditions.numbers()),
        "outbox.json": _json(scrubber.all(_outbox(config))),
        "journal.txt": _journal(scrubber),
    }
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, text in texts.items():
                member = tarfile.TarInfo(f"emotion-edge-bundle/{name}")
                data = text.encode(errors="replace")
                member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
                archive.addfile(member, io.BytesIO(data))
    except FileExistsError:
        raise EdgeError(f"{path}: already exists; give the name of a new file") from None
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}; give a path that this user may write") from None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _versions() -> dict[str, Any]:
    packages = {}
    for requirement in metadata.requires("emotion-edge") or []:
        name = requirement.split(";")[0]
        for mark in "<>=!~[ ":
            name = name.partition(mark)[0]
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    return {
        "emotion-edge": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "board": _board(),
        "kernel": platform.release(),
        "system": system,
        "packages": packages,
    }


def _board() -> str:
    return _text(Path("/proc/device-tree/model")).strip("\0\n")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _outbox(config: Config | None) -> dict[str, Any]:
    if config is None:
        return {"error": "no valid config"}
    try:
        with closing(DeadLetters(outbox_path(config))) as dead_letters:
            contents, refused = dead_letters.contents(), dead_letters.refused(DEAD_LETTERS)
    except EdgeError as error:
        return {"error": str(error)}
    reasons = [{"sequence": row.sequence, "reason": row.reason, "time": row.time} for row in refused]
    return {
        **outbox_counts(contents.counts),
        "kept_dead_letters": contents.dead_letters,
        "dead_letters": reasons,
    }


def _journal(scrubber: Scrubber) -> str:
    command = ["journalctl", "--unit", UNIT, "--lines", str(LOG_LINES), "--no-pager", "--no-hostname"]
    try:
        done = subprocess.run(
            [*command, "--output", "short-iso"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=LOG_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not readable: {type(error).__name__}\n"
    if done.returncode != 0:
        return f"not readable: {scrubber.text(done.stderr.strip())}\n"
    return "".join(f"{scrubber.text(line)}\n" for line in done.stdout.splitlines())
