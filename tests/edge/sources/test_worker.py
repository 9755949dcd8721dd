"""A worker's device is open exactly while it is switched on; a device that is off is not degraded."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from edge.errors import DeviceError
from edge.health import Health
from edge.sources.worker import Worker
from tests.helpers.brokers import wait_until


class Tape:
    """A device that yields numbers until it is closed."""

    name = "tape"

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[int]:
        number = 0
        while not self.closed.wait(0.001):
            yield number
            number += 1

    def close(self) -> None:
        self.closed.set()


class Recorder:
    """Opens tapes or fails, and records what happens in which order."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self.log: list[str] = []
        self.error: DeviceError | None = None
        self.health = Health()
        self.health.subscribe(lambda *change: self.log.append(" ".join(change).strip()))

    def open(self) -> Tape:
        if self.error is not None:
            raise self.error
        self.tapes.append(Tape())
        return self.tapes[-1]

    def handle(self, _item: int) -> None:
        self.log.append("item")

    def forget(self) -> None:
        self.log.append("off")

    def worker(self, *, is_on: bool = True) -> Worker[int]:
        return Worker(
            "camera",
            self.open,
            self,
            self.health,
            is_on=is_on,
        )


@pytest.fixture
def recorder() -> Recorder:
    """The opener and handler of a worker."""
    return Recorder()


def test_switched_off_closes_and_on_opens_again(recorder: Recorder) -> None:
    """Off closes the device, `forget` is called after the last item, on opens the device again."""
    worker = recorder.worker()
    worker.start()
    wait_until(lambda: "item" in recorder.log, "an item")
    worker.switch(False)
    assert recorder.tapes[0].closed.is_set(), "closed before the switch returns"
    wait_until(lambda: "off" in recorder.log, "the end of the last item")
    assert recorder.log[-1] == "off"
    assert recorder.health.reasons == []
    worker.switch(True)
    wait_until(lambda: recorder.log[-1] == "item", "an item of the second tape")
    worker.close()
    assert len(recorder.tapes) == 2
    assert all(tape.closed.is_set() for tape in recorder.tapes)


def test_off_from_the_start_opens_nothing(recorder: Recorder) -> None:
    """A device that is off at start is not opened, and its worker makes progress."""
    worker = recorder.worker(is_on=False)
    worker.start()
    wait_until(lambda: recorder.log == ["off"], "the worker to idle")
    worker.close()
    assert recorder.tapes == []
    assert recorder.health.stuck() == []


def test_off_ends_the_fault_and_the_wait_for_a_device(recorder: Recorder) -> None:
    """A missing device is not a fault while it is off, and is opened at once when switched on."""
    recorder.error = DeviceError("camera.source: gone", reason="no_device")
    worker = recorder.worker()
    worker.start()
    wait_until(lambda: recorder.health.reasons == ["camera:no_device"], "the fault")
    worker.switch(False)
    wait_until(lambda: recorder.health.reasons == [], "no fault")
    recorder.error = None
    worker.switch(True)
    wait_until(lambda: "item" in recorder.log, "an item")
    worker.close()


def test_off_while_the_driver_opens(recorder: Recorder) -> None:
    """A device that is switched off while it opens is closed without reading an item."""
    opening, go_on = threading.Event(), threading.Event()

    def open_slowly() -> Tape:
        opening.set()
        go_on.wait(10)
        return recorder.open()

    worker = Worker("camera", open_slowly, recorder, recorder.health)
    worker.start()
    assert opening.wait(10)
    worker.switch(False)
    go_on.set()
    wait_until(lambda: recorder.tapes and recorder.tapes[0].closed.is_set(), "a closed device")
    worker.close()
    assert "item" not in recorder.log
