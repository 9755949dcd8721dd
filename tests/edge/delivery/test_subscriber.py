"""The listener: each event once, closable from any thread, back after the broker's return."""

from __future__ import annotations

import threading
from contextlib import closing

from edge.delivery.mqtt.connection import Message
from edge.delivery.subscriber import listen
from tests.helpers.brokers import Broker, settings_of, wait_until, watching

EVENT = "emotion/kitchen/event"


def test_yields_topic_payload_retained_and_qos(broker: Broker) -> None:
    """A retained message is marked as such; a live one is not."""
    with watching(broker) as other:
        other.publish("emotion/kitchen/state", b"stored", retain=True)
        with closing(listen(settings_of(broker), "emotion/+/state")) as messages:
            assert messages.receive(10) == Message("emotion/kitchen/state", b"stored", True, 1)
            other.publish("emotion/kitchen/state", b"fresh")
            assert messages.receive(10) == Message("emotion/kitchen/state", b"fresh", False, 1)


def test_same_event_is_yielded_once(broker: Broker) -> None:
    """An event that comes a second time is left out; messages that are no events are not touched."""
    with watching(broker) as other, closing(listen(settings_of(broker), "emotion/#")) as messages:
        assert messages.wait_ready(10)
        for payload in (b'{"id":"a"}', b'{"id":"b"}', b'{"id":"a"}', b"no json", b"no json", b"[]"):
            other.publish(EVENT, payload)
        other.publish("emotion/kitchen/state", b'{"id":"a"}')
        seen = [messages.receive(10) for _ in range(6)]
        assert [message.payload for message in seen if message] == [
            b'{"id":"a"}',
            b'{"id":"b"}',
            b"no json",
            b"no json",
            b"[]",
            b'{"id":"a"}',
        ]


def test_receive_gives_up_in_time(broker: Broker) -> None:
    """Without a message there is None, not an endless wait."""
    with closing(listen(settings_of(broker), EVENT)) as messages:
        assert messages.wait_ready(10)
        assert messages.receive(0.05) is None


def test_close_from_another_thread_ends_the_iteration(broker: Broker) -> None:
    """A loop over messages that waits for the next one ends when another thread closes it."""
    messages = listen(settings_of(broker), EVENT)
    assert messages.wait_ready(10)
    loop = threading.Thread(target=lambda: list(messages))
    loop.start()
    messages.close()
    messages.close()
    loop.join(5)
    assert not loop.is_alive()
    assert messages.receive(1) is None


def test_listens_again_after_the_broker_s_return(broker: Broker) -> None:
    """The iteration outlives a restart of the broker."""
    with closing(listen(settings_of(broker), EVENT)) as messages:
        assert messages.wait_ready(10)
        broker.stop()
        assert messages.receive(0.1) is None
        broker.start()
        assert messages.wait_ready(10)
        with watching(broker) as other:
            other.publish(EVENT, b'{"id":"after"}')
        message = messages.receive(10)
        assert message is not None
        assert message.payload == b'{"id":"after"}'


def test_close_without_any_broker(broker: Broker) -> None:
    """A listener without a broker waits, and closes at once."""
    broker.stop()
    messages = listen(settings_of(broker), EVENT)
    assert not messages.wait_ready(0.2)
    threading.Timer(0.1, messages.close).start()
    assert list(messages) == []
    wait_until(lambda: threading.active_count() == 1, "the timer's end")
