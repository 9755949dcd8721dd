"""How long a session waits for the network, and its unacknowledged messages."""

from __future__ import annotations

import pytest

from edge.delivery.mqtt.connection import Connection
from edge.delivery.mqtt.connection_state import ConnectionLog
from edge.delivery.mqtt.mailbox import Mailbox
from edge.delivery.mqtt.publish_probe import PublishProbe
from edge.delivery.mqtt.send_queue import SendQueue
from edge.delivery.mqtt.session import InFlight, Sent, Session
from edge.delivery.mqtt.size_trial import SizeTrial
from edge.delivery.mqtt.takeover import TakeoverDetector
from edge.delivery.mqtt.topics import Topics
from edge.delivery.mqtt.tuning import TUNING
from edge.delivery.outbox.queue import Outbox
from edge.settings import MqttSettings
from tests.helpers.brokers import make_event


@pytest.mark.parametrize(("keepalive_s", "idle_s"), [(5, 1.25), (20, 5.0), (30, 5.0)])
def test_idle_wait_leaves_time_for_the_ping(outbox: Outbox, keepalive_s: int, idle_s: float) -> None:
    """The ping is sent within the keep-alive time; while an answer is due the thread wakes every second."""
    outbox.append(make_event(1))
    topics = Topics("emotion", "kitchen")
    mailbox = Mailbox(topics, max_live=1)
    send_queue = SendQueue(outbox)
    session = Session(
        Connection(MqttSettings(keepalive_s=keepalive_s), client_id="kitchen"),
        topics=topics,
        mailbox=mailbox,
        send_queue=send_queue,
        probe=PublishProbe(topics.probe),
        trial=SizeTrial(topics.probe),
        takeover=TakeoverDetector(),
        connection_log=ConnectionLog(None),
        tuning=TUNING,
        on_acked=lambda _seconds: None,
        on_progress=lambda: None,
    )
    assert session.wait_s() == idle_s
    assert keepalive_s * 3 // 4 + idle_s <= keepalive_s
    (row,) = send_queue.take(1)
    assert session.wait_s() == 1.0, "in flight"
    send_queue.settle(row.sequence, None, now_s=0.0)
    assert session.wait_s() == 1.0, "acknowledged, not yet written to the disk"
    send_queue.record(1.0)
    assert session.wait_s() == idle_s
    mailbox.close(deadline_s=0.0)
    assert session.wait_s() < 0.1, "closing"
    mailbox.wake.close()


@pytest.mark.parametrize(("after_s", "is_stalled"), [(30.0, False), (30.001, True)])
def test_messages_without_any_acknowledgement_are_stalled(after_s: float, is_stalled: bool) -> None:
    """The limit counts from the first message that waits; with none in flight nothing is stalled."""
    in_flight = InFlight(lambda _seconds: None)
    assert not in_flight.is_stalled(1e9, limit_s=30.0)
    in_flight.add(1, Sent("a", sent_s=1000.0))
    in_flight.add(2, Sent("b", sent_s=1020.0))
    assert in_flight.is_stalled(1000.0 + after_s, limit_s=30.0) is is_stalled


def test_acknowledgement_is_timed_once() -> None:
    """`on_acked` gets the round trip of each message; an unknown message id is ignored."""
    round_trips: list[float] = []
    in_flight = InFlight(round_trips.append)
    in_flight.add(1, Sent("a"))
    assert in_flight.has_topic("a")
    assert in_flight.pop(1) is not None
    assert in_flight.pop(1) is None
    assert (len(round_trips), len(in_flight)) == (1, 0)
