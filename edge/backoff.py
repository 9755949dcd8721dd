"""Pauses between attempts."""

from __future__ import annotations

import random

MAX_S = 60.0


def backoff_s(attempt: int) -> float:
    """Return the pause after failure `attempt` (from 0): 1, 2, 4 ... 60 s, at random down to half of it."""
    return min(MAX_S, 2.0 ** min(attempt, 6)) * random.uniform(0.5, 1.0)
