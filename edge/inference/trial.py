"""Tries a backend in a process of its own, so that a driver that crashes or hangs takes nothing along."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from edge.errors import DeviceError, EdgeError, ModelError
from edge.inference.backend_selection import best_ms

PROBE_S = 60  # a Jetson compiles its shaders for half a minute


def probe(path: Path, backend: str, *, threads: int = 1, seconds: int = PROBE_S) -> float:
    """Open `path` on `backend` in a child, run it, and return how long a run takes in ms.

    Raises what the child raised, and `DeviceError` when it crashed (abi_mismatch while loading,
    op_unsupported while running) or was not done in `seconds` (no_device).
    """
    command = [sys.executable, "-m", "edge.inference.trial", str(path), backend, str(threads), str(seconds)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    last = told[-1] if told else {"stage": "loading"}
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
    """Be the child: tell each stage as a line of JSON, since a crash leaves no other message."""
    from edge.inference.backends import open_here

    # The alarm also ends a child whose parent is gone.
    signal.alarm(int(seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w") as parent:
        os.dup2(2, 1)  # what the driver prints is not for the parent

        def tell(**facts: object) -> None:
            print(json.dumps(facts), file=parent, flush=True)

        try:
            tell(stage="loading")
            model = open_here(Path(path), backend, threads=int(threads))
            tell(stage="running")
            zeros = [np.zeros(info.shape, np.float32) for info in model.inputs]
            tell(stage="done", ms=best_ms(lambda: model.run(*zeros)))
        except EdgeError as error:
            reason = getattr(error, "reason", "")
            tell(stage="failed", message=str(error), reason=reason, exit_code=error.exit_code)
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
