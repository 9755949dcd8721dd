"""Turns a trained model into a TFLite file, in a child process whose crash is only one sentence here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converter.source import source_kind
from edge.errors import EdgeError, ModelError

KINDS = ("float32", "float16", "dynamic", "int8", "int16x8")
INTEGERS = ("int8", "int16x8")
RECURRENT = ("unroll", "step", "fused")
RANGES = ("minmax", "percentile")
IO = ("float", "integer")


@dataclass(frozen=True, slots=True)
class Stage:
    """What a conversion is at, and how much of it is done, 0..1."""

    text: str
    done: float


Report = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One conversion: `source` to `target`; integers also need examples to calibrate with.

    `recurrent` of None unrolls, and above the bound of the unrolling fuses. `io` of None is integer where
    the kind is.
    """

    source: Path
    target: Path
    kind: str
    calibrate: Path | None = None
    count: int = 200
    features: dict[str, Any] | None = None
    recurrent: str | None = None
    ranges: str = "minmax"
    io: str | None = None


def convert(job: Job, *, report: Report) -> None:
    """Convert in a child process and give the finished file its name; on any failure nothing is left.

    Raises the child's error as `ModelError` or `EdgeError`, one sentence, a native crash included.
    """
    check(job)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=job.target.parent, prefix=".convert-") as scratch:
            part = Path(scratch) / job.target.name
            _run_child(job, part, report)
            part.replace(job.target)
    except OSError as error:
        raise EdgeError(
            f"{job.target}: cannot be written ({error.strerror}); check space and permissions"
        ) from None


def check(job: Job) -> None:
    """Raise before anything slow is started: for options that do not go together, or no model."""
    for option, value, allowed in (
        ("--to", job.kind, KINDS),
        ("--recurrent", job.recurrent, (None, *RECURRENT)),
        ("--ranges", job.ranges, RANGES),
        ("--io", job.io, (None, *IO)),
    ):
        if value not in allowed:
            raise EdgeError(f"{option} {value}: unknown; use one of {', '.join(filter(None, allowed))}")
    source_kind(job.source)
    if job.kind in INTEGERS and job.calibrate is None:
        raise EdgeError(f"--to {job.kind} needs --calibrate DIR, a directory with a hundred or more examples")
    if job.io == "integer" and job.kind not in INTEGERS:
        raise EdgeError(f"--io integer: {job.kind} computes in floats; use --to {' or '.join(INTEGERS)}")
    if job.ranges == "percentile" and job.kind != "int8":
        raise EdgeError(f"--ranges percentile: {job.kind} has no range to narrow; use --to int8")


def _run_child(job: Job, part: Path, report: Report) -> None:
    message = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(job).items()}
    message["target"] = str(part)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with (
        tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "converter.conversion"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(message))
            child.stdin.close()
            failure = None
            for line in child.stdout:
                said = _parse(line)
                if "stage" in said:
                    report(Stage(said["stage"], said["done"]))
                failure = said if "error" in said else failure
            code = child.wait()
        except BaseException:
            child.kill()  # Ctrl-C: the child must not go on writing
            raise
        if failure is not None:
            raise (ModelError if failure["model"] else EdgeError)(failure["error"])
        if code or not part.is_file():
            complaints.seek(0)
            raise ModelError(
                f"{job.source}: {_crash(code, complaints.read())}; try --to float32, or simplify it"
            )


def _parse(line: str) -> dict[str, Any]:
    """Read one line of the child; TensorFlow prints lines of its own, which say nothing to us."""
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _crash(code: int, complaints: str) -> str:
    if code < 0:
        return f"TensorFlow crashed while converting ({signal.Signals(-code).name})"
    lines = [line for line in complaints.splitlines() if line.strip()]
    return f"the conversion failed ({lines[-1].strip()[:200] if lines else f'exit code {code}'})"
