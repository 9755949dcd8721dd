"""Computes the age of events in the outbox: how long daemons have run since an event was stored."""

from __future__ import annotations

from edge.delivery.outbox.file import OutboxFile

MARK_S = 300.0  # between two marks; the age of an event is known to this precision


class AgeMarks:
    """Stores marks in the file of the outbox: the newest sequence at a running time.

    Time is monotonic and counts only while a daemon runs. A device without a battery-backed clock boots in
    the past, and its clock jumps by years when the network comes; the jump must not expire events. Called
    within `OutboxFile.run`.
    """

    def __init__(self, file: OutboxFile, *, max_age_s: float) -> None:
        self._file = file
        self._max_age_s = max_age_s
        self._mark_s = min(MARK_S, max_age_s / 10)
        self._clock_s: float | None = None  # running time of all daemons of this file, at `_clock_at_s`
        self._clock_at_s = 0.0

    def running_s(self, now_s: float) -> float:
        """Return how long daemons of this file have run; `now_s` is monotonic."""
        if self._clock_s is None:
            self._clock_s, self._clock_at_s = self._newest() or 0.0, now_s
        return self._clock_s + now_s - self._clock_at_s

    def is_due(self, running_s: float, *, is_empty: bool) -> bool:
        """Return whether expired events have to be dropped and a new mark has to be set."""
        if not self._max_age_s:
            return False
        newest = self._newest()
        return not is_empty if newest is None else running_s - newest >= self._mark_s

    def last_expired(self, running_s: float) -> int:
        """Return the newest sequence that is older than `max_age_s`; 0 if there is none."""
        (sequence,) = self._file.execute(
            "SELECT max(sequence) FROM marks WHERE clock_s <= ?", running_s - self._max_age_s
        ).fetchone()
        return int(sequence or 0)

    def set(self, running_s: float, last_sequence: int) -> None:
        """Mark `last_sequence` as the newest one now, and delete the marks that have expired."""
        self._file.execute("DELETE FROM marks WHERE clock_s <= ?", running_s - self._max_age_s)
        self._file.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", running_s, last_sequence)

    def _newest(self) -> float | None:
        (newest,) = self._file.execute("SELECT max(clock_s) FROM marks").fetchone()
        return None if newest is None else float(newest)
