"""Calls into drivers that do not return: left behind, counted, and cleaned up when they come back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from edge.errors import DeviceError
from edge.sources import driver_threads as drivers
from edge.sources.driver_threads import DriverThread, FailureCounter, call_with_timeout, is_hanging
from tests.helpers.brokers import wait_until


@pytest.fixture
def comes_back() -> Iterator[threading.Event]:
    """What a hanging call waits for; at the end no call hangs any more."""
    event = threading.Event()
    yield event
    event.set()
    wait_until(lambda: not is_hanging(), "the call returns")


class Late:
    """A source that remembers being closed."""

    def __init__(self) -> None:
        self.name = "late"
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def close(self) -> None:
        self.closed.set()


def test_answer_and_error_come_through() -> None:
    """What the call returns is returned, what it raises is raised, on the caller's own thread."""
    source = Late()
    assert call_with_timeout("camera", "x", lambda: source) is source
    with pytest.raises(DeviceError, match=r"^gone$") as caught:
        call_with_timeout("camera", "x", lambda: (_ for _ in ()).throw(DeviceError("gone", reason="busy")))
    assert caught.value.reason == "busy"
    assert not is_hanging()


def test_call_that_hangs_is_left_behind(comes_back: threading.Event) -> None:
    """The caller gets a `stuck` after the limit, and the call is counted until it returns."""
    started_s = time.monotonic()
    with pytest.raises(DeviceError, match=r"^mic: its driver has not answered for 0\.1 s; ") as caught:
        call_with_timeout("microphone", "mic", comes_back.wait, limit_s=0.1)
    assert time.monotonic() - started_s < 1
    assert caught.value.reason == "stuck"
    assert is_hanging("microphone")
    assert is_hanging()
    assert not is_hanging("camera")
    comes_back.set()
    wait_until(lambda: not is_hanging(), "the call returns")


def test_what_is_opened_too_late_is_closed(comes_back: threading.Event) -> None:
    """A device that opens after all is given back, or nobody could open it again."""
    source = Late()

    def slowly() -> Late:
        comes_back.wait()
        return source

    with pytest.raises(DeviceError):
        call_with_timeout("camera", "x", slowly, limit_s=0.05)
    assert not source.closed.is_set()
    comes_back.set()
    assert source.closed.wait(5)


def _wait_for(event: threading.Event) -> None:
    event.wait()


def test_the_third_failure_is_the_last(comes_back: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures count only while a call hangs: the one that it began with, and two more."""
    monkeypatch.setattr(drivers, "LATE_S", 0.0)
    strikes = FailureCounter("camera")
    assert [strikes.add() for _ in range(5)] == [False] * 5
    thread = DriverThread("camera", partial(_wait_for, comes_back))
    thread.start()
    thread.leave(0.01)
    assert not strikes.add()
    assert [FailureCounter("microphone").add() for _ in range(5)] == [False] * 5
    assert strikes.add()
    comes_back.set()
    wait_until(lambda: not is_hanging(), "the call returns")
    assert not strikes.add()


def test_slow_is_not_hanging(comes_back: threading.Event) -> None:
    """A call that was abandoned a moment ago may still come back: it is no strike yet."""
    thread = DriverThread("camera", partial(_wait_for, comes_back))
    thread.start()
    thread.leave(0.01)
    strikes = FailureCounter("camera")
    assert [strikes.add() for _ in range(4)] == [False] * 4
    assert is_hanging("camera")


HANGS_AT_EXIT = """
import atexit, threading
from edge.commands import demo
from edge.__main__ import main
from edge.sources.driver_threads import call_with_timeout

def hang(**_):
    call_with_timeout("camera", "cam", threading.Event().wait, limit_s=0.01)

atexit.register(threading.Event().wait)
demo.run_demo = hang
main(["demo"])
"""


def test_demo_leaves_although_a_driver_hangs() -> None:
    """What the driver does at exit never ends; the demo ends with 5 all the same, as the daemon does."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS_AT_EXIT], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 5
    assert done.stderr == ("emotion-edge: cam: its driver has not answered for 0.01 s; connect it again\n")
