"""`systemd/install.sh`, run as root from a directory with hostile files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUBS = {"apt-get": "exit 0", "apt-cache": "exit 1", "id": "echo 0", "udevadm": "exit 0"}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Copy the script, with a program directory of its own, to a checkout without a project."""
    target = tmp_path / "checkout" / "systemd" / "install.sh"
    target.parent.mkdir(parents=True)
    text = (ROOT / "systemd" / "install.sh").read_text(encoding="utf-8")
    target.write_text(text.replace("program=/opt/emotion-edge", f"program={tmp_path}/program"))
    for name, line in STUBS.items():
        stub = tmp_path / "bin" / name
        stub.parent.mkdir(exist_ok=True)
        stub.write_text(f"#!/bin/sh\n{line}\n")
        stub.chmod(0o755)
    return target


def test_nothing_is_imported_from_the_current_directory(tmp_path: Path, script: Path) -> None:
    """Modules that lie in the current directory under names that the script imports are not run."""
    planted = tmp_path / "planted"
    planted.mkdir()
    for name in ("numpy", "pip", "venv", "ensurepip", "sys", "sitecustomize"):
        (planted / f"{name}.py").write_text(f"open({str(tmp_path / 'run')!r}, 'a').write({name!r})\n")
    done = subprocess.run(
        ["/bin/sh", "../checkout/systemd/install.sh"],
        cwd=planted,
        env={
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(planted),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    # It came as far as pip, which finds no project in this checkout.
    assert "is not installable" in done.stderr or "not appear to be a Python project" in done.stderr
    assert script.is_file()
