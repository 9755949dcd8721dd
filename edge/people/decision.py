"""Decides which class is believed and when it is `uncertain`: the only place where thresholds are compared.

Fusion uses it for a person, the room and the voice alone, `fuse_once` for a still or a whole file, and the
speaker tracker for who speaks. Two results are `uncertain` without a comparison: the speaker, while the lips
of no face have enough frames (`edge.people.speaker`), and the fatigue level, while the eyes do not show
enough (`edge.people.fatigue`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.values import ABSENT, LABELS, UNCERTAIN, Float32


def decide(p: Float32 | Sequence[float], *, enter: float, exit: float, current: int | None) -> int | None:
    """Return the index of the class to believe, None where it is uncertain.

    A class is believed from `enter` on. The `current` one is kept while no other reaches `enter` and its own
    probability is `exit` or more.
    """
    top = int(np.argmax(p))
    if p[top] >= enter:
        return top
    return current if current is not None and p[current] >= exit else None


def label_of(p: Float32, *, enter: float) -> str:
    """Return the label of `p` (7,) at one instant: the most probable from `enter` on, else `uncertain`."""
    top = decide(p, enter=enter, exit=enter, current=None)
    return UNCERTAIN if top is None else LABELS[top]


@dataclass(slots=True)
class Hysteresis:
    """The label of one subject over time: it changes only after `min_dwell_s` of the same new label."""

    enter: float
    exit: float
    min_dwell_s: float
    label: str = ABSENT
    _candidate: str = ""
    _candidate_ns: int = 0

    def update(self, p: Float32, now_ns: int) -> str:
        """Return the label for `p` (7,) at `now_ns`, which must not go backwards."""
        current = LABELS.index(self.label) if self.label in LABELS else None
        top = decide(p, enter=self.enter, exit=self.exit, current=current)
        wanted = UNCERTAIN if top is None else LABELS[top]
        if wanted == self.label:
            self._candidate = ""
        elif self.label == ABSENT:
            # Presence is certain at once, an emotion only after `min_dwell_s`.
            self._candidate, self._candidate_ns = wanted, now_ns
            self.label = UNCERTAIN if self.min_dwell_s else wanted
        else:
            if wanted != self._candidate:
                self._candidate, self._candidate_ns = wanted, now_ns
            if now_ns - self._candidate_ns >= int(self.min_dwell_s * 1e9):
                self._candidate, self.label = "", wanted
        return self.label

    def clear(self) -> None:
        """Set the label to `absent`: there is no prediction left."""
        self.label, self._candidate = ABSENT, ""
