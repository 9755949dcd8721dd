"""What other threads put in comes out in the order that a connection needs."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from edge.delivery.mqtt.mailbox import Mailbox, Outgoing
from edge.delivery.mqtt.topics import Topics

TOPICS = Topics("emotion", "kitchen")


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mailbox that holds at most two live messages."""
    made = Mailbox(TOPICS, max_live=2)
    yield made
    made.wake.close()


def taken(mailbox: Mailbox) -> list[tuple[str, bytes]]:
    """Take everything; return subtopics and payloads."""
    messages = iter(mailbox.take, None)
    return [(TOPICS.subtopic(message.topic), message.payload) for message in messages]


def test_connection_sends_status_first_and_online_last(mailbox: Mailbox) -> None:
    """Every connection sends all retained topics again, then live messages; subscriptions too."""
    mailbox.put_retained(TOPICS.full("state"), b"1")
    mailbox.put_retained("homeassistant/status", b"2")
    mailbox.put_retained(TOPICS.status, b"3")
    mailbox.subscribe("a", lambda _payload, _retained: None)
    mailbox.put_live(Outgoing(TOPICS.event, b"4"))
    retained = [
        ("status", b"3"),
        ("state", b"1"),
        ("homeassistant/status", b"2"),
        ("availability", b"online"),
    ]
    for live in ([("event", b"4")], []):
        mailbox.begin_connection()
        assert mailbox.take_subscriptions() == ["a"]
        assert taken(mailbox) == [*retained, *live]
        assert mailbox.is_empty


def test_newest_payload_replaces_an_older_one(mailbox: Mailbox) -> None:
    """Of a retained topic only the newest payload waits, and `states` has its JSON object."""
    for number in range(3):
        mailbox.put_retained(TOPICS.status, b"%d" % number, {"number": number})
    assert mailbox.states() == {TOPICS.status: {"number": 2}}
    assert taken(mailbox) == [("status", b"2")]


def test_oldest_live_message_is_dropped_and_counted(mailbox: Mailbox) -> None:
    """At the bound nothing is dropped, one over it the oldest."""
    for number in range(3):
        assert mailbox.live_dropped == 0
        mailbox.put_live(Outgoing(TOPICS.event, b"%d" % number))
    assert mailbox.live_dropped == 1
    assert taken(mailbox) == [("event", b"1"), ("event", b"2")]


def test_unacknowledged_messages_go_back_to_the_head(mailbox: Mailbox) -> None:
    """What a lost connection did not deliver comes before newer messages, in its own order."""
    mailbox = Mailbox(TOPICS, max_live=3)
    mailbox.put_live(Outgoing(TOPICS.event, b"3"))
    mailbox.put_back([Outgoing(TOPICS.event, b"1"), Outgoing(TOPICS.event, b"2")])
    assert [payload for _, payload in taken(mailbox)] == [b"1", b"2", b"3"]
    mailbox.wake.close()


def test_cleared_topic_is_forgotten_unless_it_is_used_again(mailbox: Mailbox) -> None:
    """A topic that was cleared at the broker is not sent at the next connect."""
    for subtopic, payload in (("state", b""), ("status", b""), ("status", b"again")):
        mailbox.put_retained(TOPICS.full(subtopic), payload)
    for subtopic in ("state", "status", "unknown"):
        mailbox.forget_cleared(TOPICS.full(subtopic))
    mailbox.begin_connection()
    assert taken(mailbox) == [("status", b"again"), ("availability", b"online")]


def test_only_offline_is_left(mailbox: Mailbox) -> None:
    """`offline` is the only message that is left, also for a later connection."""
    mailbox.put_retained(TOPICS.status, b"1")
    mailbox.put_live(Outgoing(TOPICS.event, b"2"))
    mailbox.queue_only_offline()
    assert taken(mailbox) == [("availability", b"offline")]


def test_close_ends_a_wait_and_wakes_the_thread(mailbox: Mailbox) -> None:
    """After `close` nothing waits; `clear` makes the next poll wait again."""
    assert not mailbox.is_closing
    mailbox.close(deadline_s=5.0)
    started_s = time.monotonic()
    mailbox.wait_closing(10.0)
    assert time.monotonic() - started_s < 5.0
    assert (mailbox.is_closing, mailbox.deadline_s) == (True, 5.0)
    poll = select.poll()
    poll.register(mailbox.wake, select.POLLIN)
    assert poll.poll(0)
    mailbox.wake.clear()
    assert not poll.poll(0)
