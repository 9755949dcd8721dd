"""Runs the child process of a target; a crash or a hang is an answer, and a new child goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType

from tests.fuzz.worker import Answer, serve

START_S = 120.0  # for the child to import its libraries and to start its daemon


class Supervisor:
    """One target in a child process; `peak_mb` is the most memory that its reader had."""

    def __init__(self, name: str, *, hang_s: float) -> None:
        self.peak_mb = 0.0
        self._name = name
        self._hang_s = hang_s
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._reader = 0

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.send(None)
        if self._process is not None:
            self._process.join(10)
        self._end()

    def run(self, data: bytes) -> Answer:
        """Give one input to the child, which is started first where none runs."""
        self.start()
        assert self._pipe is not None
        assert self._process is not None
        try:
            self._pipe.send(data)
            if not self._pipe.poll(self._hang_s):
                self._end()
                return Answer("hang", f"no answer within {self._hang_s:.0f} s")
            answer: Answer = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(10)
            code = self._process.exitcode
            self._end()
            return Answer("crash", f"the process ended with {code}")
        self._measure()
        return answer

    def start(self) -> None:
        """Start the child where none runs."""
        if self._pipe is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(self._name, theirs))
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_S):
            self._end()
            raise TimeoutError(f"{self._name}: no start within {START_S:.0f} s")
        self._reader = self._pipe.recv()

    def _measure(self) -> None:
        with suppress(OSError):
            status = Path(f"/proc/{self._reader}/status").read_text().split()
            self.peak_mb = max(self.peak_mb, int(status[status.index("VmHWM:") + 1]) / 1e3)

    def _end(self) -> None:
        """End the child with everything that it started."""
        process, self._process, pipe, self._pipe = self._process, None, self._pipe, None
        if process is not None and process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join(10)
        if pipe is not None:
            pipe.close()
