"""Runs commands: in a process of their own, or in this one where the start is not tested."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_edge(
    *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; return exit code and output."""
    return subprocess.run(
        [sys.executable, "-m", "edge", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
        env=None if env is None else dict(env),
        check=False,
    )


def run_here(main: Callable[[Sequence[str]], int], *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process (TensorFlow takes seconds to import); return exit code and output."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in a process of its own: those of libraries are no errors there
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:  # argparse
            code = int(leaving.code or 0)
    return subprocess.CompletedProcess([*map(str, words)], code, out.getvalue(), errors.getvalue())


def convert_here(patch: pytest.MonkeyPatch) -> None:
    """Make `emotion-convert` convert in this process and not in a child of its own."""
    pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
    from converter import conversion, jobs

    def convert(job: jobs.Job, part: Path, report: jobs.Report) -> None:
        part.write_bytes(conversion.convert_here(replace(job, target=part), report))

    patch.setattr(jobs, "_run_child", convert)
