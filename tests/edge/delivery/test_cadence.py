"""A state goes out on a change, at most once a second while numbers move, and at least every interval."""

from __future__ import annotations

import pytest

from edge.delivery.cadence import NUMBERS_INTERVAL_S, Cadence
from tests.helpers.lids import SECOND

INTERVAL_NS = 30 * SECOND
MOVE_NS = round(NUMBERS_INTERVAL_S * SECOND)


def test_first_state_is_due() -> None:
    """Also with a key of None."""
    assert Cadence().is_due(0, None)


def test_new_key_is_due_at_once_and_only_once() -> None:
    """A nanosecond after the last state; the same key again is not due."""
    cadence = Cadence()
    assert cadence.is_due(0, "neutral")
    assert cadence.is_due(1, "anger")
    assert not cadence.is_due(2, "anger")


@pytest.mark.parametrize(
    ("after_ns", "is_due"), [(INTERVAL_NS - 1, False), (INTERVAL_NS, True), (INTERVAL_NS + 1, True)]
)
def test_same_key_is_due_after_the_interval(after_ns: int, is_due: bool) -> None:
    """One nanosecond short of 30 s it is not."""
    cadence = Cadence(30.0)
    cadence.is_due(5, "neutral")
    assert cadence.is_due(5 + after_ns, "neutral") == is_due


def test_interval_counts_from_the_last_state() -> None:
    """A change begins it again."""
    cadence = Cadence(30.0)
    cadence.is_due(0, "neutral")
    assert cadence.is_due(20 * SECOND, "anger")
    assert not cadence.is_due(30 * SECOND, "anger")
    assert cadence.is_due(50 * SECOND, "anger")


@pytest.mark.parametrize(("after_ns", "is_due"), [(MOVE_NS - 1, False), (MOVE_NS, True), (MOVE_NS + 1, True)])
def test_moved_numbers_are_due_after_a_second(after_ns: int, is_due: bool) -> None:
    """One nanosecond short of it they wait."""
    cadence = Cadence(steps=(0.25,))
    cadence.is_due(0, "neutral", (0.5,))
    assert cadence.is_due(after_ns, "neutral", (1.0,)) == is_due


@pytest.mark.parametrize(
    ("numbers", "is_due"),
    [
        ((0.5, 0.5), False),
        ((0.74, 0.5), False),
        ((0.75, 0.5), True),
        ((0.76, 0.5), True),
        ((0.25, 0.5), True),
        ((0.5, 0.62), False),
        ((0.5, 0.625), True),
    ],
)
def test_number_must_move_by_its_step(numbers: tuple[float, float], is_due: bool) -> None:
    """Up or down, each by a step of its own; exactly the step is enough."""
    cadence = Cadence(steps=(0.25, 0.125))
    cadence.is_due(0, "neutral", (0.5, 0.5))
    assert cadence.is_due(SECOND, "neutral", numbers) == is_due


def test_numbers_are_compared_with_the_last_state() -> None:
    """Many small moves add up."""
    cadence = Cadence(steps=(0.25,))
    due = [cadence.is_due(k * SECOND, "neutral", (k * 0.125,)) for k in range(5)]
    assert due == [True, False, True, False, True]
