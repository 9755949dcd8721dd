"""What a fuzz target is, and the canary that no output may contain."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

CANARY = "canary5f2c81"
CAMERA = f"rtsp://admin:{CANARY}@127.0.0.1:1/live"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one input; `output` is everything that was printed, logged or answered."""

    is_accepted: bool
    output: str


class Reader(Protocol):
    """The running reader of a target; `pid` is the process whose memory counts."""

    pid: int

    def run(self, data: bytes) -> Verdict:
        """Read one input; an exception is a finding."""


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of input."""

    name: str
    generate: Callable[[Random], bytes]
    open: Callable[[Path], AbstractContextManager[Reader]]
