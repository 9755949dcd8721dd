"""Skips frames while the device is hot, and processes all of them again when it has cooled down."""

from __future__ import annotations

from edge.sources.rate import FrameRateLimiter

FACTORS = (1.0, 0.5, 0.25, 0.1)  # of the frame rate
DOWN_EVERY_S = 15.0  # a lower frame rate affects the temperature only after some seconds
UP_EVERY_S = 60.0
COOLER_C = 5.0  # below the limit, before a step up


class CoolingController:
    """Turns temperatures into a factor of the frame rate, one of `FACTORS`.

    At or above `limit_c` it steps down at once, and again every `DOWN_EVERY_S`. At `COOLER_C` or more below
    the limit it steps up every `UP_EVERY_S`. In between nothing changes. An unknown temperature counts as
    cool, so that a failed sensor does not keep the camera slow.
    """

    def __init__(self, limit_c: float) -> None:
        self.limit_c = limit_c
        self._step = 0
        self._stepped_s = float("-inf")

    @property
    def factor(self) -> float:
        """The factor in use."""
        return FACTORS[self._step]

    def update(self, temperature_c: float | None, now_s: float) -> float:
        """Return the factor after a temperature at a monotonic time in seconds."""
        waited_s = now_s - self._stepped_s
        is_cool = temperature_c is None or temperature_c <= self.limit_c - COOLER_C
        is_hot = temperature_c is not None and temperature_c >= self.limit_c
        if is_hot and self._step < len(FACTORS) - 1 and waited_s >= DOWN_EVERY_S:
            self._step, self._stepped_s = self._step + 1, now_s
        elif is_cool and self._step > 0 and waited_s >= UP_EVERY_S:
            self._step, self._stepped_s = self._step - 1, now_s
        return self.factor


class FrameGate:
    """Accepts as many frames as the factor permits, evenly spaced, whatever the source.

    `set_factor` may be called from any thread, `accepts` from one.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._factor = 1.0
        self._limiter: FrameRateLimiter | None = None

    def set_factor(self, factor: float) -> None:
        """Accept this share of `fps`; 1 accepts every frame."""
        if factor != self._factor:
            self._factor = factor
            self._limiter = None if factor == 1 else FrameRateLimiter(self._fps * factor)

    def accepts(self, t_ns: int) -> bool:
        """Return whether to process the frame captured at `t_ns`; the others are dropped."""
        limiter = self._limiter
        return limiter is None or limiter.accepts(t_ns)
