"""Looks at fewer pictures while the device is hot, and at all of them again when it has cooled down."""

from __future__ import annotations

from edge.sources.rate import FrameRateLimiter

FACTORS = (1.0, 0.5, 0.25, 0.1)  # of the frame rate
DOWN_EVERY_S = 15.0  # a step shows in the temperature only after some seconds
UP_EVERY_S = 60.0
COOLER_C = 5.0  # below the limit before a step back is tried


class CoolingController:
    """Turns temperatures into a factor of the frame rate, one of `FACTORS`.

    At or above `soft_limit_c` a step down at once, and another every `DOWN_EVERY_S` while it stays so; a step
    up every `UP_EVERY_S` while it is `COOLER_C` or more below the limit. In between nothing changes. A
    temperature that is not known counts as cool: one that was lost must not keep a camera slow for ever.
    """

    def __init__(self, soft_limit_c: float) -> None:
        self._limit_c = soft_limit_c
        self._step = 0
        self._stepped_s = float("-inf")

    @property
    def factor(self) -> float:
        """The factor that holds now."""
        return FACTORS[self._step]

    def update(self, temperature_c: float | None, now_s: float) -> float:
        """Take a temperature at a monotonic time in seconds and return the factor from now on."""
        waited_s = now_s - self._stepped_s
        is_cool = temperature_c is None or temperature_c <= self._limit_c - COOLER_C
        is_hot = temperature_c is not None and temperature_c >= self._limit_c
        if is_hot and self._step < len(FACTORS) - 1 and waited_s >= DOWN_EVERY_S:
            self._step, self._stepped_s = self._step + 1, now_s
        elif is_cool and self._step > 0 and waited_s >= UP_EVERY_S:
            self._step, self._stepped_s = self._step - 1, now_s
        return self.factor


class FrameGate:
    """Lets through as many pictures as the factor allows, evenly, whatever source they come from.

    `set_factor` may be called from any thread, `accepts` from one.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._factor = 1.0
        self._limiter: FrameRateLimiter | None = None

    def set_factor(self, factor: float) -> None:
        """Let pass that share of `fps`; 1 is every picture."""
        if factor != self._factor:
            self._factor = factor
            self._limiter = None if factor == 1 else FrameRateLimiter(self._fps * factor)

    def accepts(self, t_ns: int) -> bool:
        """Tell whether the picture captured at `t_ns` is to be looked at."""
        limiter = self._limiter
        return limiter is None or limiter.accepts(t_ns)
