"""Pauses between attempts."""

from __future__ import annotations

import random

MAX_S = 60.0


def backoff_s(attempt: int, *, max_s: float = MAX_S) -> float:
    """Return the pause after failure `attempt` (from 0): 1, 2, 4 ... `max_s`, at random down to a half."""
    return min(max_s, 2.0 ** min(attempt, 6)) * random.uniform(0.5, 1.0)
