"""Runs a conversion in a child process, so that a crash of TensorFlow becomes an error message."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from converter.source import source_kind
from edge.errors import EdgeError, ModelError
from edge.inference.child_processes import die_with_parent
from edge.inference.features import Features

KINDS = ("float32", "float16", "dynamic", "int8", "int16x8")
INTEGERS = ("int8", "int16x8")
RECURRENT = ("unroll", "step", "fused")
RANGES = ("minmax", "percentile")
IO = ("float", "integer")


@dataclass(frozen=True, slots=True)
class Stage:
    """The current step of a conversion, and the fraction that is done, 0..1."""

    text: str
    done: float


Report = Callable[[Stage], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One conversion of `source` to `target`; integer kinds also need `calibrate`, a directory of examples.

    `recurrent` of None unrolls, and fuses layers that are too long to unroll. `io` of None means integers for
    the integer kinds, else floats.
    """

    source: Path
    target: Path
    kind: str
    calibrate: Path | None = None
    count: int = 200
    features: Features | None = None
    recurrent: str | None = None
    ranges: str = "minmax"
    io: str | None = None


def convert(job: Job, *, report: Report) -> None:
    """Convert in a child process and move the finished file to its target; a failure leaves no file.

    Raises `ModelError` or `EdgeError` with the message of the child; a native crash is a `ModelError`.
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
    """Raise `EdgeError` for contradictory options and `ModelError` for a bad source, before the slow part."""
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
        raise EdgeError(f"--to {job.kind} needs --calibrate DIR, a directory of a hundred or more examples")
    if job.io == "integer" and job.kind not in INTEGERS:
        raise EdgeError(f"--io integer: {job.kind} computes in floats; use --to {' or '.join(INTEGERS)}")
    if job.ranges == "percentile" and job.kind != "int8":
        raise EdgeError(f"--ranges percentile: {job.kind} has no ranges to narrow; use --to int8")


def _run_child(job: Job, part: Path, report: Report) -> None:
    request = TypeAdapter(Job).dump_json(replace(job, target=part)).decode()
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with (
        tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "converter.conversion"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            preexec_fn=die_with_parent(),
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(request)
            child.stdin.close()
            failure = None
            for line in child.stdout:
                message = _parse(line)
                if "stage" in message:
                    report(Stage(message["stage"], message["done"]))
                failure = message if "error" in message else failure
            code = child.wait()
        except BaseException:
            child.kill()  # on Ctrl-C the child must stop writing
            raise
        if failure is not None:
            raise (ModelError if failure["model"] else EdgeError)(failure["error"])
        if code or not part.is_file():
            errors.seek(0)
            raise ModelError(f"{job.source}: {_crash(code, errors.read())}; try --to float32, or simplify it")


def _parse(line: str) -> dict[str, Any]:
    """Parse one line of the child; return {} for a line that TensorFlow printed."""
    try:
        message = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}


def _crash(code: int, errors: str) -> str:
    if code < 0:
        return f"TensorFlow crashed while converting ({signal.Signals(-code).name})"
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"the conversion failed ({lines[-1].strip()[:200] if lines else f'exit code {code}'})"
