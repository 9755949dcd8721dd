"""How much of a device's output is used: the frame rate, and the length of an audio chunk."""

from __future__ import annotations

from edge.values import SAMPLE_RATE_HZ

CHUNK = SAMPLE_RATE_HZ // 50  # samples: 20 ms
NS_PER_SAMPLE = 1_000_000_000 // SAMPLE_RATE_HZ  # exactly 62500


class FrameRateLimiter:
    """Selects frames by capture time: evenly spaced, at most `fps` a second on average."""

    def __init__(self, fps: float) -> None:
        self.interval_ns = round(1e9 / fps)
        self._due_ns: int | None = None

    def accepts(self, t_ns: int) -> bool:
        """Return whether to use the frame captured at `t_ns`; the next one is due an interval later."""
        if self._due_ns is None:
            self._due_ns = t_ns
        # Allow a quarter of an interval of jitter: without it, 10 frames a second become 5.
        if t_ns < self._due_ns - self.interval_ns // 4:
            return False
        self._due_ns = max(self._due_ns, t_ns - self.interval_ns // 2) + self.interval_ns
        return True
