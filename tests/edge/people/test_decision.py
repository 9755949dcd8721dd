"""One place decides what is believed: at the thresholds, and only after the minimum dwell."""

from __future__ import annotations

import numpy as np
import pytest

from edge.people.decision import Hysteresis, decide, label_of
from edge.values import LABELS, Float32

S = 1_000_000_000


def probabilities_of(label: str, share: float) -> Float32:
    """Return (7,) with `share` for one label and the rest evenly for the others."""
    p = np.full(len(LABELS), (1 - share) / 6, np.float32)
    p[LABELS.index(label)] = share
    return p


@pytest.mark.parametrize(("p", "choice"), [(0.49, None), (0.5, 0), (0.51, 0)])
def test_class_is_believed_from_enter_on(p: float, choice: int | None) -> None:
    """Exactly the threshold is enough."""
    assert decide([p, 0.3, 0.1], enter=0.5, exit=0.25, current=None) == choice


@pytest.mark.parametrize(
    ("p", "choice"),
    [([0.25, 0.45, 0.3], 0), ([0.24, 0.45, 0.31], None), ([0.25, 0.5, 0.25], 1)],
)
def test_current_class_is_kept_from_exit_on(p: list[float], choice: int | None) -> None:
    """Exactly the lower threshold keeps it, unless another class reaches the upper one."""
    assert decide(p, enter=0.5, exit=0.25, current=0) == choice


@pytest.mark.parametrize(("share", "label"), [(0.4375, "uncertain"), (0.5, "fear"), (0.5625, "fear")])
def test_label_of_one_instant_needs_enter(share: float, label: str) -> None:
    """Without memory there is one threshold."""
    assert label_of(probabilities_of("fear", share), enter=0.5) == label


@pytest.mark.parametrize(("after_ns", "label"), [(S - 1, "uncertain"), (S, "fear"), (S + 1, "fear")])
def test_new_label_must_last(after_ns: int, label: str) -> None:
    """Presence counts at once, an emotion after exactly the minimum dwell."""
    decision = Hysteresis(0.5, 0.25, min_dwell_s=1.0)
    assert decision.label == "absent"
    assert decision.update(probabilities_of("fear", 0.9), 0) == "uncertain"
    assert decision.update(probabilities_of("fear", 0.9), after_ns) == label


def test_interrupted_label_begins_again() -> None:
    """Half a second of it twice is not a second."""
    decision = Hysteresis(0.5, 0.25, min_dwell_s=1.0)
    for k, label in enumerate(["fear", "anger", "fear", "fear"]):
        decision.update(probabilities_of(label, 0.9), k * S // 2)
    assert decision.label == "uncertain"
    assert decision.update(probabilities_of("fear", 0.9), 2 * S) == "fear"


def test_without_dwell_a_label_counts_at_once() -> None:
    """From absent and between two labels."""
    decision = Hysteresis(0.5, 0.25, min_dwell_s=0.0)
    assert decision.update(probabilities_of("fear", 0.9), 0) == "fear"
    assert decision.update(probabilities_of("anger", 0.9), 1) == "anger"


def test_cleared_label_is_absent_and_must_last_again() -> None:
    """Someone who comes back starts without an emotion."""
    decision = Hysteresis(0.5, 0.25, min_dwell_s=1.0)
    for t_ns in (0, S):
        decision.update(probabilities_of("fear", 0.9), t_ns)
    decision.clear()
    assert decision.label == "absent"
    assert decision.update(probabilities_of("fear", 0.9), 2 * S) == "uncertain"
