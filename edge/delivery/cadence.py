"""Decides when a retained state goes out again, so that subscribers are up to date but not flooded."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

STATE_INTERVAL_S = 30.0  # a state goes out at least this often
NUMBERS_INTERVAL_S = 1.0  # a state of which only numbers moved goes out at most this often


@dataclass(slots=True)
class Cadence:
    """A state is due at once when its `key` changes, and otherwise every `interval_s`.

    It is also due when a number has moved by its step in `steps` since the last time, at most once in
    `NUMBERS_INTERVAL_S`.
    """

    interval_s: float = STATE_INTERVAL_S
    steps: tuple[float, ...] = ()
    _key: Hashable = None
    _numbers: tuple[float, ...] = ()
    _t_ns: int | None = None  # of the last time; None before the first

    def is_due(self, now_ns: int, key: Hashable, numbers: tuple[float, ...] = ()) -> bool:
        """Return whether the state is due at `now_ns`; if so, remember it as sent."""
        if self._t_ns is not None and key == self._key:
            elapsed_s = (now_ns - self._t_ns) / 1e9
            moved = zip(numbers, self._numbers, self.steps, strict=True)
            has_moved = elapsed_s >= NUMBERS_INTERVAL_S and any(
                abs(new - old) >= step for new, old, step in moved
            )
            if not has_moved and elapsed_s < self.interval_s:
                return False
        self._key, self._numbers, self._t_ns = key, numbers, now_ns
        return True
