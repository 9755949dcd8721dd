"""The writer never blocks its caller; a failing disk is reported, and used again when it works."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edge.delivery.outbox.file import BUSY_S
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.writer import OutboxWriter
from edge.delivery.publisher import Publisher
from edge.errors import OutboxError
from edge.health import Health
from edge.policy import Policy
from edge.settings import MqttSettings
from tests.helpers.brokers import (
    Mosquitto,
    free_port,
    make_event,
    publishing,
    settings_of,
    wait_until,
    watching,
)

EVENT = "emotion/kitchen/event"


class Bench:
    """A writer with a real outbox and a real publisher, and the reasons that it reported."""

    def __init__(self, path: Path, publisher: Publisher, outbox: Outbox) -> None:
        self.path = path
        self.outbox = outbox
        self.reasons: list[str] = []
        self.health = Health()
        self.health.subscribe(lambda _, reason, __: self.reasons.append(reason or "recovered"))
        self.writer = OutboxWriter(outbox, publisher, self.health, check_s=0.05, locked_s=0.6)


@contextmanager
def recording(
    path: Path, broker: Mosquitto, *, max_events: int = 1000, max_age_s: float = 0
) -> Iterator[Bench]:
    """Run a writer while the block lasts."""
    with ExitStack() as stack:
        outbox = Outbox(path, device="kitchen", max_events=max_events, max_bytes=1 << 20, max_age_s=max_age_s)
        stack.callback(outbox.close)
        publisher = stack.enter_context(publishing(settings_of(broker), outbox))
        bench = Bench(path, publisher, outbox)
        bench.writer.start()
        stack.callback(bench.writer.close)
        yield bench


def test_events_that_come_together_are_one_commit(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Events of several threads within milliseconds are stored in few transactions, and sent once."""
    with watching(mosquitto, EVENT) as watcher, recording(tmp_path / "o.db", mosquitto) as bench:
        commits: list[int] = []
        append = bench.outbox.append_many
        bench.outbox.append_many = lambda events: commits.append(len(events)) or append(events)  # type: ignore[method-assign,func-returns-value]
        threads = [
            threading.Thread(
                target=lambda n=n: bench.writer.record([make_event(10 * n + k) for k in range(5)])
            )
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(watcher.on(EVENT)) == 40, "40 events")
        assert sorted(json.loads(p)["sequence"] for p in watcher.on(EVENT)) == list(range(1, 41))
        assert sum(commits) == 40
        assert len(commits) <= 6


def test_withheld_event_is_not_stored(tmp_path: Path) -> None:
    """`record` returns and stores only the events that the policy of the publisher permits."""
    with closing(Outbox(tmp_path / "o.db", device="kitchen", max_events=10, max_bytes=1 << 20)) as outbox:
        publisher = Publisher(
            MqttSettings(port=free_port()), device="kitchen", outbox=outbox, policy=Policy(restricted=True)
        )
        writer = OutboxWriter(outbox, publisher, Health())
        fault = replace(make_event(1), type="device.degraded")
        assert writer.record([make_event(0), fault]) == [fault]
        writer.start()
        writer.close()
        assert [row.id for row in outbox.waiting(10)] == [fault.id]
        publisher.close()


def test_close_stores_recorded_events(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The last events before a stop are in the outbox when `close` returns."""
    path = tmp_path / "o.db"
    mosquitto.stop()
    with recording(path, mosquitto) as bench:
        bench.writer.record([make_event(n) for n in range(9)])
    with closing(Outbox(path, device="kitchen", max_events=10, max_bytes=1 << 20)) as outbox:
        assert outbox.counts().waiting == 9


def test_locked_outbox_blocks_no_caller(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """While another process locks the outbox, events are published live, without a sequence."""
    with watching(mosquitto, EVENT) as watcher, recording(tmp_path / "o.db", mosquitto) as bench:
        with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started_s = time.monotonic()
            bench.writer.record([make_event(1)])
            assert time.monotonic() - started_s < BUSY_S, "the caller waited for the lock"
            wait_until(lambda: bench.health.reasons == ["outbox:locked"], "degraded")
            wait_until(lambda: watcher.on(EVENT), "the event, live")
            assert "sequence" not in json.loads(watcher.on(EVENT)[0])
            other.execute("ROLLBACK")
        wait_until(lambda: not bench.health.reasons, "recovered")
        bench.writer.record([make_event(2)])
        wait_until(lambda: len(watcher.on(EVENT)) == 2, "the next event")
        assert json.loads(watcher.on(EVENT)[1])["sequence"] == 1
        assert bench.reasons == ["locked", "recovered"]


def test_event_waits_for_a_short_lock(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """During a lock of half a second, such as that of `outbox purge`, the event waits and is stored."""
    with watching(mosquitto, EVENT) as watcher, recording(tmp_path / "o.db", mosquitto) as bench:
        with closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            bench.writer.record([make_event(1)])
            wait_until(lambda: bench.health.reasons == ["outbox:locked"], "degraded")
            other.execute("ROLLBACK")
        wait_until(lambda: watcher.on(EVENT), "the event")
        assert json.loads(watcher.on(EVENT)[0])["sequence"] == 1


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Mount a file system of `size` while the block lasts."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system needs root and the right to mount")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_full_disk(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A disk that other files fill: `disk_full`, live events; waiting events are sent later."""
    mosquitto.stop()
    with small_disk(tmp_path / "disk", "1m") as disk, recording(disk / "o.db", mosquitto) as bench:
        bench.writer.record([make_event(n) for n in range(50)])
        wait_until(lambda: bench.outbox.counts().waiting == 50, "50 events")
        filler = disk / "log"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        number = 50
        while "disk_full" not in bench.reasons:
            bench.writer.record([make_event(number, padding=20_000)])
            number += 1
            time.sleep(0.02)
            assert number < 500
        filler.unlink()
        wait_until(lambda: not bench.health.reasons, "recovered")
        mosquitto.start()
        with watching(mosquitto, EVENT) as watcher:
            bench.writer.record([make_event(1000)])
            wait_until(lambda: bench.outbox.counts().waiting == 0, "an empty outbox")
            assert bench.outbox.counts().refused == 0
            wait_until(lambda: b"event-1000" in b"".join(watcher.on(EVENT)), "the last event")


def test_outbox_opened_on_a_full_disk(tmp_path: Path) -> None:
    """SQLite reports other errors for its log there; the reason is `disk_full` all the same."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        with closing(Outbox(disk / "o.db", device="kitchen", max_events=10, max_bytes=1 << 20)) as outbox:
            outbox.append(make_event(0))
        with (disk / "log").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        with closing(Outbox(disk / "o.db", device="kitchen", max_events=10, max_bytes=1 << 20)) as outbox:
            with pytest.raises(OutboxError) as caught:
                outbox.append(make_event(1))
            assert caught.value.reason == "disk_full"
            (disk / "log").unlink()
            assert outbox.append(make_event(1)) == 2


def test_queue_larger_than_the_disk(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """On a disk of 1 MB the oldest events are dropped, counted and reported; the others are sent."""
    mosquitto.stop()
    with small_disk(tmp_path / "disk", "1m") as disk, recording(disk / "o.db", mosquitto) as bench:
        for start in range(0, 2000, 20):
            bench.writer.record([make_event(start + n, padding=700) for n in range(20)])
            wait_until(lambda: bench.outbox.counts().last_sequence == start + 20, "numbers for all")
        counts = bench.outbox.counts()
        assert counts.dropped > 0
        assert counts.waiting + counts.dropped == 2000
        assert set(bench.reasons) <= {"dropping", "recovered"}
        assert "dropping" in bench.reasons
        kept = [row.sequence for row in bench.outbox.waiting(2000)]
        assert kept == list(range(counts.dropped + 1, 2001))
        mosquitto.start()
        wait_until(lambda: bench.outbox.counts().waiting == 0, "an empty outbox")
        wait_until(lambda: not bench.health.reasons, "recovered")
        assert bench.outbox.counts().dropped == counts.dropped


def test_read_only_file_system(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Mounted read-only: `read_only`, live events; writable again: recovered, and nothing is lost."""
    mosquitto.stop()
    with small_disk(tmp_path / "disk", "4m") as disk, recording(disk / "o.db", mosquitto) as bench:
        bench.writer.record([make_event(1)])
        wait_until(lambda: bench.outbox.counts().waiting == 1, "one event")
        bench.outbox.close()  # the kernel refuses this mount while a file is open for writing

        # The checks of the writer open it again at once, hence several tries.
        def remount() -> bool:
            bench.outbox.close()
            return subprocess.run(["mount", "-o", "remount,ro", disk], check=False).returncode == 0

        wait_until(remount, "a read-only file system")
        wait_until(lambda: bench.health.reasons == ["outbox:read_only"], "degraded")
        bench.writer.record([make_event(2)])
        wait_until(lambda: bench.writer.is_idle, "the second event, in memory only")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        wait_until(lambda: not bench.health.reasons, "recovered")
        mosquitto.start()
        wait_until(lambda: bench.outbox.counts().waiting == 0, "an empty outbox")
        assert bench.outbox.counts().last_sequence == 1


def test_corrupt_file_is_reported_until_it_is_moved_away(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """A damaged outbox is set aside and replaced; `corrupt` is reported until the file is moved away."""
    path = tmp_path / "o.db"
    path.write_bytes(b"\xa5" * 8192)
    with watching(mosquitto, EVENT) as watcher, recording(path, mosquitto) as bench:
        bench.writer.record([make_event(1)])
        wait_until(lambda: watcher.on(EVENT), "the event")
        wait_until(lambda: bench.health.reasons == ["outbox:corrupt"], "degraded")
        assert bench.outbox.set_aside is not None
        bench.outbox.set_aside.rename(tmp_path / "evidence")
        wait_until(lambda: not bench.health.reasons, "recovered")


def test_dropped_events_are_reported_until_there_is_room(
    tmp_path: Path, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """At the bound there is one log line and `dropping`, until the broker is back."""
    mosquitto.stop()
    with recording(tmp_path / "o.db", mosquitto, max_events=10) as bench:
        for number in range(15):
            bench.writer.record([make_event(number)])
            wait_until(lambda: bench.outbox.counts().last_sequence == number + 1, "a number")
        wait_until(lambda: bench.health.reasons == ["outbox:dropping"], "degraded")
        mosquitto.start()
        wait_until(lambda: not bench.health.reasons, "recovered")
        assert bench.outbox.counts().dropped == 5
    assert bench.reasons == ["dropping", "recovered"]
    assert caplog.text.count("the oldest events are dropped") == 1


def test_event_that_is_no_json_ends_nothing(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """An event that JSON cannot represent is logged, and those around it are stored."""
    with watching(mosquitto, EVENT) as watcher, recording(tmp_path / "o.db", mosquitto) as bench:
        bad = make_event(1)
        bad = type(bad)(bad.id, bad.type, bad.time, 0, {"p": float("nan")})
        bench.writer.record([make_event(0), bad, make_event(2)])
        wait_until(lambda: len(watcher.on(EVENT)) == 2, "the two others")
        assert [json.loads(payload)["sequence"] for payload in watcher.on(EVENT)] == [1, 2]
