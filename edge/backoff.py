"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random

MAX_S = 60.0


def backoff_s(attempt: int) -> float:
    """Return the pause after failure `attempt` (from 0): 1, 2, 4 ... 60 s, less up to half by chance."""
    return min(MAX_S, 2.0 ** min(attempt, 6)) * random.uniform(0.5, 1.0)
