"""converter -> models -> edge, and nothing on the device path knows TensorFlow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "edge": {"models", "converter", "tensorflow", "keras", "tf_keras"},
    "models": {"converter"},
    "converter": set[str](),
}


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_import_direction(package: str) -> None:
    """No file imports against the arrow."""
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & FORBIDDEN[package], path


def test_daemon_runs_without_tensorflow() -> None:
    """Importing everything that `emotion-edge` uses loads neither TensorFlow nor Keras."""
    code = (
        "import sys, edge.daemon, edge.commands.demo, edge.commands.analyze, edge.commands.bench.stages\n"
        "import edge.commands.analyze_report, models.__main__\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
