"""Logs a repeated fault once and counts the repetitions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable


class LogOnce:
    """Remembers the last reason of each subject: the same reason again is counted, not logged.

    Used by one thread, or under the lock of its owner.
    """

    def __init__(self, log: logging.Logger) -> None:
        self.repeats: Counter[Hashable] = Counter()  # by subject, since its reason last changed
        self._log = log
        self._reasons: dict[Hashable, Hashable] = {}

    def report(
        self, subject: Hashable, reason: Hashable, message: str, *values: object, level: int = logging.WARNING
    ) -> bool:
        """Log `message` unless `reason` is the last one of `subject`; return whether it was logged."""
        if self._reasons.get(subject) == reason:
            self.repeats[subject] += 1
            return False
        self._reasons[subject] = reason
        self.repeats[subject] = 0
        self._log.log(level, message, *values)
        return True

    def is_reported(self, subject: Hashable) -> bool:
        """Return whether a reason of `subject` stands."""
        return subject in self._reasons

    def clear(self, subject: Hashable) -> bool:
        """Forget the reason of `subject`, so that the next one is logged; return whether there was one."""
        self.repeats.pop(subject, None)
        return self._reasons.pop(subject, None) is not None

    def clear_all(self) -> None:
        """Forget the reasons of all subjects."""
        self.repeats.clear()
        self._reasons.clear()
