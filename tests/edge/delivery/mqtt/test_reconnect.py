"""The pause before a reconnect grows to a minute, and several brokers share it."""

from __future__ import annotations

import pytest

from edge.delivery.mqtt.reconnect import ReconnectBackoff
from edge.delivery.mqtt.tuning import Tuning


def test_pause_grows_to_a_minute_and_is_random() -> None:
    """At most 3 s, then 2 s, doubled each time, up to 60 s; half of it is random."""
    series = [ReconnectBackoff() for _ in range(200)]
    for failure, longest_s in enumerate([3, 2, 4, 8, 16, 32, 60, 60, 60]):
        pauses = [backoff.next_s() for backoff in series]
        assert (longest_s / 2 if failure else 0.1) <= min(pauses) < max(pauses) <= longest_s
        assert max(pauses) - min(pauses) > longest_s / (4 if failure else 2)


@pytest.mark.parametrize("brokers", [1, 3])
def test_pause_grows_only_after_a_full_round(brokers: int) -> None:
    """Each of three brokers gets as many attempts as a single one: a third of the pause between two."""
    backoff = ReconnectBackoff(Tuning(first_pause_s=(0.3, 0.3)), brokers=brokers)
    first = [backoff.next_s() for _ in range(brokers)]
    assert first == [0.3 / brokers] * brokers
    assert all(0.5 / brokers * 2 <= backoff.next_s() <= 2 / brokers for _ in range(brokers))
    assert backoff.next_s() >= 2 / brokers


def test_reset_returns_to_the_shortest_pause() -> None:
    """After a connection that worked, the first pause comes again."""
    backoff = ReconnectBackoff(Tuning(first_pause_s=(0.3, 0.3)))
    pauses = [backoff.next_s(), backoff.next_s()]
    backoff.reset()
    assert pauses[1] > pauses[0] == backoff.next_s() == 0.3
