"""The sender's position in the outbox: no event is in flight twice, none blocks the head for ever."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge.delivery.mqtt.send_queue import SendQueue
from edge.delivery.mqtt.tuning import TUNING
from edge.delivery.outbox.queue import Outbox
from edge.policy import Policy
from tests.helpers.brokers import make_event

BIG = 1 << 20


def take(queue: SendQueue, limit: int) -> list[int]:
    return [row.sequence for row in queue.take(limit)]


def take_carefully(queue: SendQueue) -> list[int]:
    """Take everything after a lost connection: one event at first, the others once it is accepted."""
    first = take(queue, 10)
    assert len(first) == 1
    assert take(queue, 10) == []
    queue.settle(first[0], None, now_s=0)
    return [*first, *take(queue, 10)]


def test_takes_in_order_and_again_after_a_restart(outbox: Outbox) -> None:
    """Each event is handed out once per connection; a new connection gets the unanswered ones."""
    outbox.append_many([make_event(n) for n in range(5)])
    queue = SendQueue(outbox)
    assert take(queue, 3) == [1, 2, 3]
    assert take(queue, 3) == [4, 5]
    assert take(queue, 3) == []
    assert not queue.is_idle
    queue.settle(2, None, now_s=0)
    queue.record(TUNING.confirm_s)
    queue.restart()
    assert take_carefully(queue) == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("after_s", "again"), [(TUNING.confirm_s - 0.01, [1, 2, 3]), (TUNING.confirm_s, [3])]
)
def test_connection_that_ends_right_after_an_acknowledgement(
    outbox: Outbox, after_s: float, again: list[int]
) -> None:
    """A killed broker may have lost the events that it acknowledged last: they are sent again."""
    outbox.append_many([make_event(n) for n in range(3)])
    queue = SendQueue(outbox)
    take(queue, 3)
    queue.settle(1, None, now_s=0)
    queue.settle(2, None, now_s=0)
    queue.record(after_s)
    assert outbox.counts().waiting == len(again)
    queue.restart()
    assert take_carefully(queue) == again


@pytest.mark.parametrize("limit", [1, 3, 64])
def test_withheld_events_become_dead_letters(outbox: Outbox, limit: int) -> None:
    """A restricted device never hands out an emotion, however many wait in front of a permitted event."""
    for start in range(0, 2500, 5):
        emotions = [make_event(start + n) for n in range(4)]
        outbox.append_many([*emotions, replace(make_event(start + 4), type="fatigue.changed")])
    queue = SendQueue(outbox, policy=Policy(restricted=True))
    assert [*take(queue, limit), *take(queue, 2500)] == list(range(5, 2501, 5))
    assert outbox.counts().refused == 2000
    assert {letter.reason for letter in outbox.refused()} == {"withheld"}


def test_only_withheld_events_leave_an_idle_queue(outbox: Outbox) -> None:
    """When no event is permitted, nothing is handed out and nothing waits."""
    outbox.append_many([make_event(n) for n in range(2500)])
    queue = SendQueue(outbox, policy=Policy(restricted=True))
    assert take(queue, 1) == []
    assert queue.is_idle
    assert outbox.counts().refused == 2500


def test_disconnect_confirms_acknowledged_events(outbox: Outbox) -> None:
    """After a disconnect by the device, nothing is sent again on the next connection."""
    outbox.append(make_event(1))
    queue = SendQueue(outbox)
    take(queue, 1)
    queue.settle(1, None, now_s=0)
    queue.record(float("inf"))
    assert outbox.counts().waiting == 0


def test_lost_connections_blame_no_event(outbox: Outbox) -> None:
    """However often a connection ends with events in flight, all of them are sent again, in order."""
    outbox.append_many([make_event(n) for n in range(3)])
    queue = SendQueue(outbox)
    for _ in range(100):
        take(queue, 10)
        queue.restart()
    assert take_carefully(queue) == [1, 2, 3]
    assert outbox.counts().refused == 0


def test_refused_events_go_one_at_a_time_after_a_lost_connection(outbox: Outbox) -> None:
    """A broker that closes the connection after a refusal refuses each event; an accepted one ends that."""
    outbox.append_many([make_event(n) for n in range(5)])
    queue = SendQueue(outbox)
    take(queue, 10)
    for sequence in (1, 2):
        queue.restart()
        assert take(queue, 10) == [sequence]
        queue.settle(sequence, "not_authorized", now_s=0)
    assert take_carefully(queue) == [3, 4, 5]


def test_disk_that_fails_is_waited_for(tmp_path: Path) -> None:
    """While the outbox cannot be read there is nothing to send; acknowledgements are kept until it works."""
    directory = tmp_path / "state"
    outbox = Outbox(directory / "outbox.db", device="kitchen", max_events=10, max_bytes=BIG)
    outbox.append_many([make_event(n) for n in range(3)])
    queue = SendQueue(outbox)
    assert take(queue, 2) == [1, 2]
    queue.settle(1, None, now_s=0)
    outbox.close()
    directory.rename(tmp_path / "away")
    directory.write_text("no directory")
    queue.record(TUNING.confirm_s)
    queue.settle(2, "not_authorized", now_s=0)
    assert take(queue, 2) == []
    directory.unlink()
    (tmp_path / "away").rename(directory)
    queue.record(TUNING.confirm_s)
    assert [row.sequence for row in outbox.waiting(10)] == [
        2,
        3,
    ]  # the refusal is tried again, as is its event
    outbox.close()
