"""A disk, file, lock or process that fails is an error with a reason, and no stored event is lost."""

from __future__ import annotations

import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge.delivery.outbox.queue import Outbox
from edge.errors import EXIT_FAILURE, OutboxError
from tests.helpers.brokers import make_event, open_outbox
from tests.helpers.brokers import waiting_sequences as sequences


class FailingConnection(sqlite3.Connection):
    """A real connection on which the n-th statement fails as a bad disk does; 0 lets all pass."""

    countdown = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        FailingConnection.countdown -= 1
        if FailingConnection.countdown == 0:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return super().execute(*args)


@pytest.fixture
def failing_disk(monkeypatch: pytest.MonkeyPatch) -> type[FailingConnection]:
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3,
        "connect",
        lambda *args, **more: connect(*args, **more, factory=FailingConnection),
    )
    monkeypatch.setattr(FailingConnection, "countdown", 0)
    return FailingConnection


def test_every_failing_statement_leaves_whole_transactions(
    tmp_path: Path, failing_disk: type[FailingConnection]
) -> None:
    """Whichever statement fails, the batch is stored whole or not at all, and no sequence is skipped."""
    failures = 0
    for nth in range(1, 200):
        with closing(open_outbox(tmp_path / f"{nth}.sqlite3", max_events=3)) as outbox:
            outbox.append_many([make_event(1), make_event(2)])
            failing_disk.countdown = nth
            try:
                given = outbox.append_many([make_event(3), make_event(4)])
                outbox.acknowledge([2])
                outbox.refuse(3, "no")
                failed = False
            except OutboxError:
                failed = True
                failures += 1
            failing_disk.countdown = 0
            given = outbox.append_many([make_event(3), make_event(4)])
            assert given == [3, 4], f"statement {nth}"
            counts, rows = outbox.counts(), outbox.waiting(10)
            assert (counts.waiting, counts.waiting_bytes) == (
                len(rows),
                sum(len(row.payload) for row in rows),
            )
            assert counts.waiting + counts.dropped + counts.refused + _acknowledged(outbox) == 4
        if not failed:
            break
    else:
        pytest.fail("the injected fault never ran out of statements")
    assert failures > 20  # the loop above did reach into every part


def _acknowledged(outbox: Outbox) -> int:
    with closing(sqlite3.connect(outbox.path)) as reader:
        return int(reader.execute("SELECT count(*) FROM done").fetchone()[0])


def test_full_disk_is_an_error_and_survived(tmp_path: Path) -> None:
    """Under every limit on file sizes an append works or raises `OutboxError`; with room it works again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with closing(open_outbox(tmp_path / "outbox.sqlite3")) as outbox:
        given = [outbox.append(make_event(0))]
        refusals: list[OutboxError] = []
        try:
            for number in range(1, 60):
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096 * number, hard))
                try:
                    given.append(outbox.append(make_event(number, padding=3000)))
                except OutboxError as error:
                    refusals.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        given.append(outbox.append(make_event(1000)))
        assert given == sequences(outbox) == list(range(1, len(given) + 1))
    assert len(refusals) > 5
    assert all(str(outbox.path) in str(error) and error.exit_code == EXIT_FAILURE for error in refusals)
    assert len(given) > 5


def test_outbox_waits_for_its_directory(tmp_path: Path) -> None:
    """A path that cannot be made at boot stops nothing, and is used once it can be."""
    obstacle = tmp_path / "state"
    obstacle.write_text("a file where the directory should be")
    with closing(open_outbox(obstacle / "outbox.sqlite3")) as outbox:
        for call in (lambda: outbox.append(make_event(1)), outbox.counts, lambda: outbox.waiting(1)):
            with pytest.raises(OutboxError, match=re.escape("outbox.path")):
                call()
        obstacle.unlink()
        assert outbox.append(make_event(1)) == 1


@pytest.mark.parametrize("damage", ["garbage", "page"])
def test_corrupt_file_is_set_aside(tmp_path: Path, damage: str) -> None:
    """A damaged file is kept under a new name, byte for byte, and replaced by a new one."""
    path = tmp_path / "outbox.sqlite3"
    with closing(open_outbox(path)) as outbox:
        outbox.append_many([make_event(n, padding=500) for n in range(50)])
    content = bytearray(path.read_bytes())
    content[0 if damage == "garbage" else 4096 :] = b"\xa5" * len(
        content[0 if damage == "garbage" else 4096 :]
    )
    path.write_bytes(content)
    with closing(open_outbox(path)) as outbox:
        assert outbox.set_aside is not None
        assert re.fullmatch(r"outbox\.sqlite3\.corrupt-\d{8}T\d{6}\.\d{6}Z", outbox.set_aside.name)
        assert outbox.set_aside.read_bytes() == content
        assert outbox.append(make_event(100)) == 51


def test_corruption_while_running_repeats_no_sequence(tmp_path: Path) -> None:
    """A file that is corrupted while the daemon runs is replaced, and the sequence continues."""
    path = tmp_path / "outbox.sqlite3"
    with closing(open_outbox(path)) as outbox:
        outbox.append_many([make_event(n, padding=500) for n in range(50)])
        outbox.close()  # the next call opens it again, and finds this:
        path.write_bytes(b"\xa5" * 8192)
        assert outbox.append(make_event(100)) == 51
        assert outbox.set_aside is not None
        assert sequences(outbox) == [51]


WRITER = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from edge.delivery.outbox.queue import Outbox
from edge.values import EmotionEvent
outbox = Outbox(Path(sys.argv[1]), device="kitchen", max_events=100000, max_bytes=1 << 30)
start = outbox.counts().last_sequence
now = datetime.now(UTC)
for n in range(start, start + 100000, 3):
    batch = [EmotionEvent(id=f"{n + k}", type="emotion.changed", time=now, t_ns=0) for k in range(3)]
    given = outbox.append_many(batch)
    print(*given, flush=True)
    outbox.refuse(given[1], "no")
"""


def test_kill_9_loses_nothing_that_was_returned(tmp_path: Path) -> None:
    """A process killed while it writes, again and again: no returned number is lost, none skipped."""
    path = tmp_path / "outbox.sqlite3"
    promised = 0
    for kill_after in (1, 7, 20, 3, 40):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(kill_after)]
            os.kill(writer.pid, signal.SIGKILL)
            lines += writer.stdout.readlines()
        numbers = [int(word) for line in lines for word in line.split()]
        with closing(open_outbox(path, max_events=100_000, max_bytes=1 << 30)) as outbox:
            kept = sorted(sequences(outbox) + [letter.sequence for letter in outbox.refused()])
            last = outbox.counts().last_sequence
        assert numbers[0] == promised + 1
        assert last >= numbers[-1]
        assert kept == list(range(1, last + 1))
        assert last % 3 == 0  # a batch is all or none
        promised = last


def test_reasons_differ(tmp_path: Path) -> None:
    """What is wrong has a stable code, and the time that a caller waits for a lock is bounded."""
    path = tmp_path / "outbox.sqlite3"
    with closing(open_outbox(path)) as outbox:
        outbox.append(make_event(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            started_s = time.monotonic()
            with pytest.raises(OutboxError, match="another process holds it") as caught:
                outbox.append(make_event(2))
            assert time.monotonic() - started_s < 1.0
            assert caught.value.reason == "locked"
            assert sequences(outbox) == [1]  # reading still works
        assert outbox.append(make_event(2)) == 2
    with closing(open_outbox(tmp_path)) as directory, pytest.raises(OutboxError) as caught:
        directory.append(make_event(1))
    assert caught.value.reason == "not_writable"
