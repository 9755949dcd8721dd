"""The outbox keeps every event that it accepted, numbers without a hole, and stays within its bounds."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.delivery.outbox.queue import Outbox
from edge.values import EmotionEvent
from tests.helpers.brokers import open_outbox
from tests.helpers.brokers import waiting_sequences as sequences

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make_event(number: int, *, padding: int = 0) -> EmotionEvent:
    data = {"subject": "room", "padding": "x" * padding}
    return EmotionEvent(id=f"event-{number}", type="emotion.changed", time=MOMENT, t_ns=number, data=data)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with closing(open_outbox(tmp_path / "outbox.sqlite3")) as opened:
        yield opened


def test_row_is_the_cloudevent_of_the_event(outbox: Outbox) -> None:
    """A waiting row has the JSON that is published, including its sequence."""
    event = make_event(1)
    outbox.append(event)
    (row,) = outbox.waiting(10)
    assert (row.sequence, row.id) == (1, "event-1")
    assert json.loads(row.payload) == event.to_cloudevent(device="kitchen", sequence=1)


def test_waiting_continues_after_a_sequence(outbox: Outbox) -> None:
    """A limit and a place to start from page through the events, oldest first."""
    outbox.append_many([make_event(n) for n in range(1, 6)])
    assert [row.sequence for row in outbox.waiting(2)] == [1, 2]
    assert [row.sequence for row in outbox.waiting(2, after=2)] == [3, 4]
    assert [row.sequence for row in outbox.waiting(2, after=5)] == []


@pytest.mark.parametrize("then", ["waits", "acknowledged", "refused"])
def test_same_id_again_changes_nothing(outbox: Outbox, then: str) -> None:
    """A second append of an id returns the first sequence, also when that event has left already."""
    outbox.append(make_event(1))
    outbox.append(make_event(2))
    if then == "acknowledged":
        outbox.acknowledge([1])
    if then == "refused":
        outbox.refuse(1, "not_authorized")
    before = outbox.counts()
    assert outbox.append(make_event(1)) == 1
    assert outbox.append_many([make_event(2), make_event(1)]) == [2, 1]
    assert outbox.counts() == before


def test_sequence_has_no_hole_over_deletes_and_restarts(tmp_path: Path) -> None:
    """Numbers go on by one when rows were acknowledged, refused or dropped and the file was opened again."""
    path = tmp_path / "outbox.sqlite3"
    given = []
    for start in range(0, 40, 4):
        with closing(open_outbox(path, max_events=3)) as outbox:
            given += outbox.append_many([make_event(start), make_event(start + 1)])
            outbox.refuse(given[-1], "no")
            given += [outbox.append(make_event(start + 2)), outbox.append(make_event(start + 3))]
            outbox.acknowledge(given)  # the newest, too: its number must not be given again
    assert given == list(range(1, 41))


def test_totals_survive_a_restart(tmp_path: Path) -> None:
    """Dropped, refused and waiting are counted in the file, not in the process."""
    path = tmp_path / "outbox.sqlite3"
    with closing(open_outbox(path, max_events=3)) as outbox:
        outbox.append_many([make_event(n) for n in range(5)])
        outbox.refuse(3, "not_authorized")
        before = outbox.counts()
    assert (before.waiting, before.dropped, before.refused, before.last_sequence) == (2, 2, 1, 5)
    with closing(open_outbox(path, max_events=3)) as outbox:
        assert outbox.counts() == before
        assert outbox.counts().waiting_bytes == sum(len(row.payload) for row in outbox.waiting(10))


@pytest.mark.parametrize(("appended", "dropped"), [(4, 0), (5, 0), (6, 1), (7, 2)])
def test_oldest_is_dropped_above_max_events(tmp_path: Path, appended: int, dropped: int) -> None:
    """One short and exactly at the bound keep all; one over drops and counts the oldest."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_events=5)) as outbox:
        for number in range(appended):
            outbox.append(make_event(number))
        assert sequences(outbox) == list(range(1 + dropped, appended + 1))
        assert outbox.counts().dropped == dropped


@pytest.mark.parametrize(("spare", "dropped"), [(1, 0), (0, 0), (-1, 1)])
def test_oldest_is_dropped_above_max_bytes(tmp_path: Path, spare: int, dropped: int) -> None:
    """Payload bytes one short of, exactly at, and one over the bound."""
    with closing(open_outbox(tmp_path / "measure.sqlite3")) as outbox:
        outbox.append_many([make_event(n) for n in range(3)])
        needed = outbox.counts().waiting_bytes
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_bytes=needed + spare)) as outbox:
        outbox.append_many([make_event(n) for n in range(3)])
        assert sequences(outbox) == [1, 2, 3][dropped:]
        assert outbox.counts().dropped == dropped
        assert outbox.counts().waiting_bytes <= needed + spare


def test_event_above_all_bytes_drops_itself_only(tmp_path: Path) -> None:
    """An event that can never fit is counted as dropped, and the others stay."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_bytes=5000)) as outbox:
        assert outbox.append(make_event(1)) == 1
        assert outbox.append(make_event(2, padding=5000)) == 2
        assert outbox.append(make_event(3)) == 3
        assert sequences(outbox) == [1, 3]
        assert outbox.counts().dropped == 1


def test_smaller_bound_after_restart_is_kept(tmp_path: Path) -> None:
    """A file that holds more than a new configuration allows shrinks at the next append."""
    path = tmp_path / "outbox.sqlite3"
    with closing(open_outbox(path)) as outbox:
        outbox.append_many([make_event(n) for n in range(10)])
    with closing(open_outbox(path, max_events=4)) as outbox:
        outbox.append(make_event(10))
        assert sequences(outbox) == [8, 9, 10, 11]


def test_refused_events_are_kept_with_reason_and_time(outbox: Outbox) -> None:
    """A dead letter leaves the queue, and can be read with why and when."""
    outbox.append_many([make_event(1), make_event(2)])
    payload = outbox.waiting(1)[0].payload
    outbox.refuse(1, "not_authorized")
    outbox.refuse(1, "again")  # it is no longer in the queue: nothing to do
    (letter,) = outbox.refused()
    assert (letter.sequence, letter.id, letter.payload, letter.reason) == (
        1, "event-1", payload, "not_authorized",
    )  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", letter.time)
    assert sequences(outbox) == [2]
    assert outbox.counts().refused == 1


def test_dead_letters_are_bounded_but_counted(tmp_path: Path) -> None:
    """Only the newest dead letters are kept; the count goes on."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_refused=3)) as outbox:
        for sequence in outbox.append_many([make_event(n) for n in range(5)]):
            outbox.refuse(sequence, "no")
        assert [letter.sequence for letter in outbox.refused()] == [5, 4, 3]
        assert outbox.counts().refused == 5


def test_unknown_sequences_are_ignored(outbox: Outbox) -> None:
    """An acknowledgement of an event that was dropped in the meantime is harmless."""
    outbox.append(make_event(1))
    outbox.acknowledge([7, 1, 1, -3])
    assert outbox.counts().waiting == outbox.counts().waiting_bytes == 0


def test_event_that_is_no_json_leaves_no_trace(outbox: Outbox) -> None:
    """A batch with a value that JSON cannot represent is rejected as a whole, and uses no sequence."""
    bad = EmotionEvent(id="bad", type="emotion.changed", time=MOMENT, t_ns=0, data={"p": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        outbox.append_many([make_event(1), bad])
    assert outbox.counts().waiting == 0
    assert outbox.append(make_event(2)) == 1


def test_threads_share_one_outbox(outbox: Outbox) -> None:
    """Appends from several threads each get a number of their own."""
    given: list[int] = []

    def append(start: int) -> None:
        given.extend(outbox.append(make_event(start + n)) for n in range(25))

    threads = [threading.Thread(target=append, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == sequences(outbox) == list(range(1, 101))


def test_directory_and_file_are_private(tmp_path: Path) -> None:
    """The outbox has emotions of people: no other user may read it."""
    path = tmp_path / "state" / "outbox.sqlite3"
    with closing(open_outbox(path)) as outbox:
        outbox.append(make_event(1))
        modes = {name.name: stat.S_IMODE(name.stat().st_mode) for name in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert set(modes) >= {"outbox.sqlite3", "outbox.sqlite3-wal"}
    assert set(modes.values()) == {0o600}


def test_close_leaves_no_log(tmp_path: Path) -> None:
    """A clean stop moves the log into the file; the high-water mark stays beside it."""
    outbox = open_outbox(tmp_path / "outbox.sqlite3")
    outbox.append(make_event(1))
    outbox.close()
    outbox.close()
    assert {file.name for file in tmp_path.iterdir()} == {"outbox.sqlite3", "outbox.sqlite3.mark"}


def hours(outbox: Outbox, since_s: float, count: int) -> None:
    """Let an outbox live for so many hours, with a look every five minutes."""
    for step in range(count * 12 + 1):
        outbox.expire(since_s + step * 300)


@pytest.mark.parametrize(("lived_h", "dropped"), [(23, 0), (25, 3)])
def test_events_older_than_max_age_are_dropped(tmp_path: Path, lived_h: int, dropped: int) -> None:
    """Shortly before a day all are there, shortly after it the old ones are gone and counted."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_age_s=86_400)) as outbox:
        outbox.append_many([make_event(n) for n in range(3)])
        hours(outbox, 1000.0, 2)
        outbox.append(make_event(3))
        hours(outbox, 1000.0 + 2 * 3600, lived_h - 2)
        assert outbox.counts().dropped == dropped
        assert sequences(outbox) == [1, 2, 3, 4][dropped:]


def test_age_counts_over_restarts_and_not_while_off(tmp_path: Path) -> None:
    """The age continues over restarts, whose monotonic clocks differ; the wall clock does not matter."""
    path = tmp_path / "outbox.sqlite3"
    for number, boot_s in enumerate((50_000.0, 3.0, 9e9)):
        with closing(open_outbox(path, max_age_s=86_400)) as outbox:
            if number == 0:
                outbox.append(make_event(1))
            assert outbox.counts().waiting == 1
            hours(outbox, boot_s, 11)
    with closing(open_outbox(path, max_age_s=86_400)) as outbox:
        assert outbox.counts().dropped == 1


def test_no_age_limit_keeps_everything(tmp_path: Path) -> None:
    """0 means off, and leaves no marks in the file."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_age_s=0)) as outbox:
        outbox.append(make_event(1))
        hours(outbox, 0.0, 100)
        assert outbox.counts().waiting == 1
        with closing(sqlite3.connect(outbox.path)) as reader:
            assert reader.execute("SELECT count(*) FROM marks").fetchone() == (0,)


def test_clock_that_jumps_back_drops_no_dead_letter(tmp_path: Path) -> None:
    """The events refused last are kept, also when the clock was set back in between."""
    with closing(open_outbox(tmp_path / "outbox.sqlite3", max_refused=2)) as outbox:
        outbox.append_many([make_event(n) for n in range(4)])
        outbox.refuse(1, "no")
        outbox.refuse(2, "no")
        with closing(sqlite3.connect(outbox.path)) as other:
            other.execute("UPDATE refused SET time = '2080-01-01T00:00:00.000Z'")
            other.commit()
        outbox.refuse(3, "no")
        assert [letter.sequence for letter in outbox.refused()] == [3, 2]
