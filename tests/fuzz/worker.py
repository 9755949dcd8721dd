"""The child process of a target: reads inputs from a pipe and answers with what became of each."""

from __future__ import annotations

import os
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import pytest

from tests.fuzz.target import CANARY
from tests.fuzz.targets import TARGETS

Result = Literal["accepted", "refused", "traceback", "canary", "hang", "crash"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one input; `detail` is the text that shows a finding."""

    result: Result
    detail: str = ""


def serve(name: str, pipe: Connection) -> None:
    """Send the process whose memory counts, then an `Answer` for each input, until None comes."""
    os.setsid()  # so that the runner can end this process with its daemon and broker
    # What native libraries and brokers print is not counted.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as directory, TARGETS[name].open(Path(directory)) as reader:
        pipe.send(reader.pid)
        while (data := pipe.recv()) is not None:
            try:
                verdict = reader.run(data)
            except (Exception, pytest.fail.Exception):
                pipe.send(Answer("traceback", traceback.format_exc()))
                continue
            if CANARY in verdict.output:
                pipe.send(Answer("canary", verdict.output))
            elif "Traceback (most recent call last)" in verdict.output:
                pipe.send(Answer("traceback", verdict.output))
            else:
                pipe.send(Answer("accepted" if verdict.is_accepted else "refused"))
