"""Writes small files atomically: after a crash the file has either its old or its new content."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path("/")  # below it lie /sys, /dev and /proc; tests pass another directory


def write_text(path: Path, text: str, *, mode: int = 0o644) -> Path:
    """Replace the content of `path`, synced to disk; create missing directories. Raises `OSError`."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(mode)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
    _sync_directory(path.parent)
    return path


def write_json(path: Path, value: Mapping[str, Any], *, mode: int = 0o644) -> Path:
    """Do as `write_text` with `value` as indented JSON."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode=mode)


def _sync_directory(directory: Path) -> None:
    """Make the new name of a file survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
