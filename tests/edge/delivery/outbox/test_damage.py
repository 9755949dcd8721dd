"""Damage on the disk: what can be read is kept and sent, the rest is named, and no number is given twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge.commands.doctor.device import check_outbox
from edge.delivery.mqtt.send_queue import SendQueue
from edge.delivery.outbox.dead_letters import DeadLetters
from edge.delivery.outbox.faults import OutboxFaults
from edge.delivery.outbox.high_water_mark import BLOCK
from edge.delivery.outbox.queue import Outbox
from edge.delivery.outbox.write_ahead_log import FRAME_BYTES, HEADER_BYTES, PAGE_BYTES
from edge.errors import OutboxError
from edge.health import Health
from tests.helpers.brokers import make_event, open_outbox
from tests.helpers.brokers import waiting_sequences as sequences


def flip(path: Path, needle: bytes, offset: int, *, occurrence: int = 0) -> None:
    """Damage one byte, `offset` behind the start of an occurrence of `needle`."""
    content = bytearray(path.read_bytes())
    position = -1
    for _ in range(occurrence + 1):
        position = content.index(needle, position + 1)
    content[position + offset] ^= 0x80
    path.write_bytes(content)


def filled(path: Path, count: int = 5) -> None:
    """Make an outbox with waiting events and close it."""
    with closing(open_outbox(path)) as outbox:
        outbox.append_many([make_event(n) for n in range(1, count + 1)])


@pytest.mark.parametrize(
    ("needle", "occurrence", "is_refused"),
    [
        (b"event-3", 0, True),  # the id in the row
        (b"event-3", 1, True),  # the id in the payload
        (b'"subject":"room","number":3', 0, True),  # elsewhere in the payload
        (b"event-3", 2, False),  # the id in the index; the row itself is intact
    ],
)
def test_damaged_id_or_payload_is_a_dead_letter(
    tmp_path: Path, needle: bytes, occurrence: int, is_refused: bool
) -> None:
    """The others are sent at once, and the damaged event is never handed out; it is kept and counted."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    flip(path, needle, 2, occurrence=occurrence)
    with closing(open_outbox(path)) as outbox:
        queue = SendQueue(outbox)
        taken = [row.sequence for row in queue.take(10)]
        letters = outbox.refused()
        assert taken == ([1, 2, 4, 5] if is_refused else [1, 2, 3, 4, 5])
        assert [(letter.sequence, letter.reason) for letter in letters] == (
            [(3, "corrupt")] if is_refused else []
        )
        for sequence in taken:
            queue.settle(sequence, None, now_s=0)
        queue.record(float("inf"))
        counts = outbox.counts()
        assert (counts.waiting, counts.waiting_bytes, counts.refused) == (0, 0, len(letters))
        assert outbox.append(make_event(6)) == 6
        with closing(DeadLetters(path)) as dead_letters:
            assert len(list(dead_letters.export("refused"))) == len(letters)
            assert dead_letters.retry() == 0
        assert sequences(outbox) == [6]


def test_damage_while_running_is_found_before_sending(outbox: Outbox) -> None:
    """A payload that another process changes is not handed out."""
    outbox.append_many([make_event(n) for n in range(1, 4)])
    with closing(sqlite3.connect(outbox.path)) as other, other:
        other.execute("UPDATE events SET payload = CAST('{\"x\": 1}' AS BLOB) WHERE sequence = 2")
    assert sequences(outbox) == [1, 3]
    assert [letter.reason for letter in outbox.refused()] == ["corrupt"]


def test_read_that_fails_is_reported(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the waiting events cannot be read the status names it; it recovers when they can."""
    outbox.append(make_event(1))
    health = Health()
    faults = OutboxFaults(outbox, health)
    with monkeypatch.context() as patch:

        def fail(_limit: int, _after: int) -> list[object]:
            raise OutboxError("disk I/O error", reason="not_writable")

        patch.setattr(outbox, "_waiting", fail)
        assert SendQueue(outbox).take(5) == []
        faults.check(0.0)
        assert health.reasons == ["outbox:not_writable"]
    faults.check(1.0)
    assert health.reasons == []


def _set_total(name: str, value: object) -> Callable[[sqlite3.Connection], object]:
    return lambda database: database.execute("UPDATE totals SET value = ? WHERE name = ?", (value, name))


@pytest.mark.parametrize(
    "damage",
    [
        _set_total("waiting", -5),
        _set_total("waiting", 6),
        _set_total("waiting_bytes", "text"),
        _set_total("dropped", 1 << 60),
        _set_total("refused", b"blob"),
        _set_total("refused", 1.5),
        lambda database: database.execute("UPDATE totals SET name = 'waitinh' WHERE name = 'waiting'"),
        lambda database: database.execute("DELETE FROM totals WHERE name = 'dropped'"),
        lambda database: database.execute("UPDATE sqlite_sequence SET seq = 2"),
        lambda database: database.execute("UPDATE sqlite_sequence SET seq = 'five'"),
        lambda database: database.execute("UPDATE sqlite_sequence SET seq = 100000"),
        lambda database: database.execute("INSERT INTO marks VALUES ('late', 1)"),
    ],
)
def test_damaged_totals_are_set_aside(tmp_path: Path, damage: Callable[[sqlite3.Connection], object]) -> None:
    """Every event is kept in a new file, the numbers go on above the mark, and the status has `corrupt`."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    with closing(sqlite3.connect(path)) as other, other:
        damage(other)
    with closing(open_outbox(path)) as outbox:
        assert outbox.set_aside is not None
        assert sequences(outbox) == [1, 2, 3, 4, 5]
        assert outbox.append(make_event(6)) == 6
        health = Health()
        OutboxFaults(outbox, health).check(0.0)
        assert health.reasons == ["outbox:corrupt"]


def test_flipped_bits_of_a_page_lose_no_other_event(tmp_path: Path) -> None:
    """For 60 seeds: no traceback, no event changed, and no number given twice."""
    source = tmp_path / "source.sqlite3"
    with closing(open_outbox(source)) as outbox:
        outbox.append_many([make_event(n) for n in range(1, 41)])
        before = {row.sequence: row.payload for row in outbox.waiting(100)}
    for seed in range(60):
        path = tmp_path / str(seed) / "outbox.sqlite3"
        path.parent.mkdir()
        shutil.copy(source, path)
        shutil.copy(f"{source}.mark", f"{path}.mark")
        content = bytearray(path.read_bytes())
        chance = random.Random(seed)
        for _ in range(3):
            content[chance.randrange(100, len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        with closing(open_outbox(path)) as outbox:
            kept = {row.sequence: row.payload for row in outbox.waiting(100)}
            assert kept.items() <= before.items(), seed
            assert outbox.append(make_event(100)) > 40, seed
            if len(kept) < 40:
                assert outbox.set_aside is not None or outbox.counts().refused == 40 - len(kept), seed


WRITER = """
import sys, time
from pathlib import Path
from tests.helpers.brokers import make_event, open_outbox
outbox = open_outbox(Path(sys.argv[1]))
for n in range(1, 63):
    outbox.append(make_event(n))
print("done", flush=True)
time.sleep(60)
"""


def killed_writer(path: Path) -> None:
    """Make an outbox with 62 waiting events in its log, by a process that is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "done\n"
        os.kill(writer.pid, signal.SIGKILL)


@pytest.mark.parametrize("with_index", [True, False])
def test_damaged_log_after_kill_9(tmp_path: Path, with_index: bool) -> None:
    """For 20 seeds: damage that hides events from SQLite is reported, and nearly all events are kept."""
    source = tmp_path / "source" / "outbox.sqlite3"
    killed_writer(source)
    for seed in range(20):
        path = tmp_path / str(seed) / "outbox.sqlite3"
        shutil.copytree(source.parent, path.parent)
        log = Path(f"{path}-wal")
        if not with_index:
            Path(f"{path}-shm").unlink()
        content = bytearray(log.read_bytes())
        if seed:
            chance = random.Random(seed)
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            log.write_bytes(content)
        with closing(open_outbox(path)) as outbox:
            kept = sequences(outbox)
            damaged = [letter.sequence for letter in outbox.refused()]
            if seed == 0:
                assert outbox.set_aside is None  # a kill alone is no damage
                assert outbox.append(make_event(100)) == 63
            if outbox.set_aside is None:
                assert kept == list(range(1, 63)), seed
            else:
                assert Path(f"{outbox.set_aside}-wal").read_bytes() == content
                assert sorted(kept + damaged)[-1] >= 60, seed
                assert len(kept) >= 58, seed
                assert outbox.append(make_event(100)) == BLOCK + 1, seed


@pytest.mark.parametrize("damage", ["page", "zeros", "header", "cut", "gone"])
def test_lost_part_of_the_log_is_reported(tmp_path: Path, damage: str) -> None:
    """Whatever is lost with the log, the status has `corrupt`, and no number is given twice."""
    path = tmp_path / "outbox.sqlite3"
    killed_writer(path)
    log = Path(f"{path}-wal")
    content = bytearray(log.read_bytes())
    if damage == "page":
        content[20_000 : 20_000 + PAGE_BYTES] = bytes(PAGE_BYTES)
    elif damage == "zeros":
        content[-3 * PAGE_BYTES :] = bytes(3 * PAGE_BYTES)
    elif damage == "header":
        content[17] ^= 1
    else:
        del content[len(content) // 2 if damage == "cut" else 0 :]
    log.write_bytes(content)
    if damage == "gone":
        log.unlink()
    with closing(open_outbox(path)) as outbox:
        assert outbox.set_aside is not None
        if damage in ("page", "header"):
            assert len(sequences(outbox)) >= 60
        assert outbox.append(make_event(100)) == BLOCK + 1


@pytest.mark.parametrize("size", [20, 20_000, HEADER_BYTES + 7 * FRAME_BYTES + 1])
def test_log_that_is_cut_off_and_has_no_index_is_reported(tmp_path: Path, size: int) -> None:
    """A kill leaves whole transactions: a part of one is damage, and no number is given twice."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)  # so that the tables are in the database
    killed_writer(path)
    os.truncate(f"{path}-wal", size)
    Path(f"{path}-shm").unlink()
    with closing(open_outbox(path)) as outbox:
        assert outbox.set_aside is not None
        assert outbox.append(make_event(100)) == BLOCK + 5 + 1


@pytest.mark.parametrize("log", ["gone", "emptied"])
def test_log_that_is_lost_with_its_index(tmp_path: Path, log: str, caplog: pytest.LogCaptureFixture) -> None:
    """After a kill there was a log: without it the numbers go on above the mark, and a log line names it."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    killed_writer(path)
    Path(f"{path}-shm").unlink()
    if log == "gone":
        Path(f"{path}-wal").unlink()
    else:
        os.truncate(f"{path}-wal", 0)
    with closing(open_outbox(path)) as outbox:
        assert outbox.append(make_event(100)) > 62
    assert "its log is missing" in caplog.text


@pytest.mark.parametrize("count", [0, 5])
def test_process_that_is_killed_before_its_first_event(tmp_path: Path, count: int) -> None:
    """A restart between two events leaves no gap."""
    path = tmp_path / "outbox.sqlite3"
    filled(path, count)
    code = WRITER.replace("range(1, 63)", "()")
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
    with closing(open_outbox(path)) as outbox:
        assert outbox.append(make_event(100)) == count + 1


KILLED = """
import sys
from pathlib import Path
from tests.helpers.brokers import make_event, open_outbox
outbox = open_outbox(Path(sys.argv[1]))
for n in range(10_000):
    sequence = outbox.append(make_event(n, padding=n % 3000))
    print(sequence, flush=True)
    outbox.acknowledge([sequence - 5])
"""


def test_kill_9_at_any_moment_is_no_damage(tmp_path: Path) -> None:
    """After each of 12 kills the same file goes on, without a gap and without `corrupt`."""
    path, chance, last = tmp_path / "outbox.sqlite3", random.Random(5), 0
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 60)):
                writer.stdout.readline()
            os.kill(writer.pid, signal.SIGKILL)
        with closing(open_outbox(path)) as outbox:
            assert outbox.set_aside is None
            before, last = last, outbox.counts().last_sequence
            assert last >= before
            assert sequences(outbox)[-1] == last
            outbox.append(make_event(20_000 + last))
            last += 1


@pytest.mark.parametrize("damage", ["emptied", "without tables"])
def test_emptied_database_is_damage(tmp_path: Path, damage: str) -> None:
    """It is set aside, the status has `corrupt`, and the numbers go on above the mark."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    path.write_bytes(b"")
    if damage == "without tables":
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA user_version = 1")
    with closing(open_outbox(path)) as outbox:
        health = Health()
        OutboxFaults(outbox, health).check(0.0)
        assert health.reasons == ["outbox:corrupt"]
        assert outbox.append(make_event(9)) == 6


def test_emptied_database_with_a_damaged_mark_is_reported(tmp_path: Path) -> None:
    """Without a readable mark the numbers begin at 1, but the status has `corrupt`."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    path.write_bytes(b"")
    Path(f"{path}.mark").write_bytes(b"{")
    with closing(open_outbox(path)) as outbox:
        health = Health()
        OutboxFaults(outbox, health).check(0.0)
        assert health.reasons == ["outbox:corrupt"]


@pytest.mark.parametrize("same_boot", [True, False])
def test_deleted_database_whose_log_is_left_is_reported(tmp_path: Path, same_boot: bool) -> None:
    """The log without its database is set aside, and the status has `corrupt`, also after a power loss."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    killed_writer(path)
    path.unlink()
    if not same_boot:
        mark = Path(f"{path}.mark")
        mark.write_text(mark.read_text().replace('"boot": "', '"boot": "x'))
    with Path(f"{path}-wal").open("r+b") as log:
        log.seek(10_000)
        log.write(b"\xff" * 100)
    with closing(open_outbox(path)) as outbox:
        health = Health()
        OutboxFaults(outbox, health).check(0.0)
        assert health.reasons == ["outbox:corrupt"]
        assert Path(f"{outbox.set_aside}-wal").exists()
        assert outbox.append(make_event(100)) == BLOCK + 5 + 1


def test_deleted_database_does_not_begin_at_1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is no damage: the numbers go on above the mark, and the log has one line."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    path.unlink()
    with closing(open_outbox(path)) as outbox:
        assert outbox.append(make_event(9)) == 6
        assert outbox.set_aside is None
    assert [record.message for record in caplog.records] == [
        f"outbox.path {path}: a new database; the numbering of events goes on at 6"
    ]


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b'{"reserved": "x"}', b'{"reserved": -4}'])
def test_damaged_mark_changes_no_number(tmp_path: Path, content: bytes | None) -> None:
    """With an intact database the mark is only written again."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    mark = tmp_path / "outbox.sqlite3.mark"
    mark.unlink() if content is None else mark.write_bytes(content)
    with closing(open_outbox(path)) as outbox:
        assert outbox.append(make_event(6)) == 6
        assert outbox.set_aside is None
    assert json.loads(mark.read_bytes())["reserved"] >= 6


def test_mark_is_written_once_for_many_events(tmp_path: Path) -> None:
    """It is above every number that was given, and costs a write for a block only."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_events=10_000)) as outbox:
        mark, written = tmp_path / "outbox.sqlite3.mark", set()
        for start in range(0, 2 * BLOCK, 100):
            last = outbox.append_many([make_event(start + n) for n in range(100)])[-1]
            assert json.loads(mark.read_bytes())["reserved"] >= last
            written.add(mark.read_bytes())
    assert len(written) <= 4


def test_interrupted_replacement_is_completed(tmp_path: Path) -> None:
    """A crash between setting aside and the new file loses nothing: the next start completes it."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    path.rename(tmp_path / "outbox.sqlite3.recovered")
    Path(f"{path}-wal").write_bytes(b"the log of the damaged file")
    with closing(open_outbox(path)) as outbox:
        assert sequences(outbox) == [1, 2, 3, 4, 5]
        assert outbox.append(make_event(6)) > 5


def test_file_of_the_version_before_keeps_its_events(tmp_path: Path) -> None:
    """Without checksums: every event that agrees with its payload waits; one that does not is `corrupt`."""
    path = tmp_path / "outbox.sqlite3"
    with closing(open_outbox(path)) as outbox:
        outbox.append_many([make_event(n) for n in range(1, 6)])
        outbox.refuse(5, "not_authorized")
    Path(f"{path}.mark").unlink()
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("ALTER TABLE events DROP COLUMN checksum")
        old.execute("ALTER TABLE refused DROP COLUMN checksum")
        old.execute("UPDATE events SET id = 'other' WHERE sequence = 2")
    with closing(open_outbox(path)) as outbox:
        assert sequences(outbox) == [1, 3, 4]
        assert [(letter.sequence, letter.reason) for letter in outbox.refused()] == [
            (5, "not_authorized"),
            (2, "corrupt"),
        ]
        with closing(DeadLetters(path)) as dead_letters:
            assert dead_letters.retry() == 1
        assert sequences(outbox) == [1, 3, 4, 5]
        assert outbox.append(make_event(6)) == 6
        assert outbox.set_aside is None


def test_doctor_names_a_damaged_outbox(tmp_path: Path) -> None:
    """Damaged totals, a damaged file that was set aside and damaged events each fail the check."""
    path = tmp_path / "outbox.sqlite3"
    filled(path)
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE totals SET value = -1")
    assert "damaged" in check_outbox(path).detail
    with closing(open_outbox(path)) as outbox:
        assert outbox.set_aside is not None
    found = check_outbox(path)
    assert found.state == "failed"
    assert "corrupt-" in found.detail
    outbox.set_aside.rename(tmp_path / "evidence")
    assert check_outbox(path).state == "ok"
