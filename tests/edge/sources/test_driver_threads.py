"""Driver calls that do not return are abandoned, counted, and cleaned up when they return later."""

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
    """Yield the event that a hanging call waits for; set it at the end."""
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


def test_result_and_error_reach_the_caller() -> None:
    """The result is returned and the error raised on the caller's thread."""
    source = Late()
    assert call_with_timeout("camera", "x", lambda: source) is source
    with pytest.raises(DeviceError, match=r"^gone$") as caught:
        call_with_timeout("camera", "x", lambda: (_ for _ in ()).throw(DeviceError("gone", reason="busy")))
    assert caught.value.reason == "busy"
    assert not is_hanging()


def test_call_that_hangs_is_abandoned(comes_back: threading.Event) -> None:
    """The caller gets the reason `stuck` after the limit; the call counts as hanging until it returns."""
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


def test_source_that_opens_too_late_is_closed(comes_back: threading.Event) -> None:
    """A source that opens after the timeout is closed, so that the device can be opened again."""
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
    """Failures count only while a call hangs: the first one and two more."""
    monkeypatch.setattr(drivers, "LATE_S", 0.0)
    failures = FailureCounter("camera")
    assert [failures.add() for _ in range(5)] == [False] * 5
    thread = DriverThread("camera", partial(_wait_for, comes_back))
    thread.start()
    thread.leave(0.01)
    assert not failures.add()
    assert [FailureCounter("microphone").add() for _ in range(5)] == [False] * 5
    assert failures.add()
    comes_back.set()
    wait_until(lambda: not is_hanging(), "the call returns")
    assert not failures.add()


def test_slow_is_not_hanging(comes_back: threading.Event) -> None:
    """A call that was abandoned a moment ago may still return, so its failures do not count."""
    thread = DriverThread("camera", partial(_wait_for, comes_back))
    thread.start()
    thread.leave(0.01)
    failures = FailureCounter("camera")
    assert [failures.add() for _ in range(4)] == [False] * 4
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


def test_demo_exits_although_a_driver_hangs() -> None:
    """The driver also hangs at exit; the demo exits with code 5 anyway, as the daemon does."""
    done = subprocess.run(
        [sys.executable, "-c", HANGS_AT_EXIT], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 5
    assert done.stderr == ("emotion-edge: cam: its driver has not answered for 0.01 s; connect it again\n")
