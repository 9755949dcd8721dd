"""The frame rate limiter selects frames evenly, at the rate that was asked for."""

from __future__ import annotations

import random

import pytest

from edge.sources.rate import FrameRateLimiter


@pytest.mark.parametrize("fps", [5, 10, 12.5, 25, 30])
def test_limiter_keeps_the_rate(fps: float) -> None:
    """At 30 frames a second with 3 ms of jitter, the average rate is right within a frame."""
    jitter = random.Random(1)
    limiter = FrameRateLimiter(fps)
    taken = sum(limiter.accepts(n * 33_333_333 + jitter.randrange(3_000_000)) for n in range(300))
    assert abs(taken - 10 * fps) <= 1
