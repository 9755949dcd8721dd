"""Tries a backend in a child process, so that a driver that crashes or hangs does not end this process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from edge.config import child_environment
from edge.errors import DeviceError, EdgeError, ModelError
from edge.inference.backend_selection import best_ms
from edge.inference.engines import open_here

TRIAL_S = 60  # compiling the shaders takes a Jetson 30 s


def try_backend(path: Path, backend: str, *, threads: int = 1, seconds: int = TRIAL_S) -> float:
    """Open `path` on `backend` in a child process, run it, and return the time of a run in ms.

    Raises the error of the child. A crash is a `DeviceError` (abi_mismatch while loading, op_unsupported
    while running), and so is a trial that takes longer than `seconds` (no_device).
    """
    command = [sys.executable, "-m", "edge.inference.trial", str(path), backend, str(threads), str(seconds)]
    done = subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, env=child_environment(), check=False
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    last = reports[-1] if reports else {"stage": "loading"}
    if done.returncode == 0:
        return float(last["ms"])
    if last["stage"] == "failed":
        if last["exit_code"] == ModelError.exit_code:
            raise ModelError(last["message"])
        raise DeviceError(last["message"], reason=last["reason"])
    where = f"inference.backend {backend}: {last['stage']} {path.name}"
    remedy = "update the driver and its library, or use cpu"
    if done.returncode == -signal.SIGALRM:
        raise DeviceError(f"{where} was not done after {seconds} s; {remedy}")
    how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
    raise DeviceError(
        f"{where} crashed ({how}); {remedy}",
        reason="op_unsupported" if last["stage"] == "running" else "abi_mismatch",
    )


def main(path: str, backend: str, threads: str, seconds: str) -> int:
    """Run the trial in the child; print each stage as a line of JSON, which a crash leaves behind."""
    # The alarm also ends a child whose parent has ended.
    signal.alarm(int(seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w") as parent:
        os.dup2(2, 1)  # keep the output of the driver out of the reports

        def report(**values: object) -> None:
            print(json.dumps(values), file=parent, flush=True)

        try:
            report(stage="loading")
            model = open_here(Path(path), backend, threads=int(threads))
            report(stage="running")
            zeros = [np.zeros(info.shape, np.float32) for info in model.inputs]
            report(stage="done", ms=best_ms(lambda: model.run(*zeros)))
        except EdgeError as error:
            reason = getattr(error, "reason", "")
            report(stage="failed", message=str(error), reason=reason, exit_code=error.exit_code)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
