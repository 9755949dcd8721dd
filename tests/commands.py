"""Runs `emotion-edge` as a process, as a user does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_edge(
    *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Return exit code and words of a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "edge", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        env=None if env is None else dict(env),
        check=False,
    )
