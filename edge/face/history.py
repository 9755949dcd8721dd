"""Remembers what the face model drew from each face lately, so that the video model can judge the course.

    memory.put(track, embedding, t_ns)  ->  steps at a fixed rate, the last one now  ->  video model

Pictures come when the camera has them; the model was trained on steps `1 / rate_hz` apart. Between two
pictures a straight line is drawn, as `numpy.interp` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.values import Float32

GAP_S = 0.6  # longer than between pictures of a hot device, shorter than it takes to look away and back
CLOSEST_S = 0.02  # pictures that come closer than this replace each other, so a memory has a bound


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """What a video model reads: so many `steps` at `rate_hz`, of the embeddings of the model `of`."""

    of: str
    steps: int
    rate_hz: float

    @classmethod
    def from_features(cls, features: Mapping[str, Any]) -> VideoSpec:
        """Read a card's `input.features`; raise `ModelError` for an unknown kind."""
        if features.get("kind") != "face_embeddings":
            raise ModelError(
                f"input.features.kind {features.get('kind')!r}: unknown video features; "
                "update emotion-edge or choose another models.video"
            )
        return cls(str(features["of"]), int(features["steps"]), float(features["rate_hz"]))

    def to_features(self) -> dict[str, Any]:
        """Return what `from_features` reads, for a card."""
        return {"kind": "face_embeddings", "of": self.of, "steps": self.steps, "rate_hz": self.rate_hz}

    @property
    def span_ns(self) -> int:
        """Nanoseconds from the first step to the last."""
        return round((self.steps - 1) / self.rate_hz * 1e9)


def resample(times_ns: NDArray[np.int64], values: Float32, spec: VideoSpec) -> tuple[Float32, float]:
    """Return (steps, n) float32, the last step at the newest time, and which share 0..1 of them was seen.

    `times_ns` (k,) rise, `values` (k, n) belong to them, k >= 1. Before the first time its value is repeated.
    """
    wanted = times_ns[-1] - np.round(np.arange(spec.steps)[::-1] / spec.rate_hz * 1e9).astype(np.int64)
    share = float(np.mean(wanted >= times_ns[0]))
    if len(times_ns) == 1:
        return np.repeat(values, spec.steps, axis=0), share
    left = np.clip(np.searchsorted(times_ns, wanted, side="right") - 1, 0, len(times_ns) - 2)
    span = (times_ns[left + 1] - times_ns[left]).astype(np.float32)
    weight = np.clip((wanted - times_ns[left]) / span, 0, 1).astype(np.float32)[:, np.newaxis]
    return values[left] * (1 - weight) + values[left + 1] * weight, share


@dataclass(slots=True)
class _Track:
    times_ns: list[int] = field(default_factory=list)
    values: list[Float32] = field(default_factory=list)


class EmbeddingHistory:
    """The embeddings of each track over the last steps; one thread at a time.

    A track that was out of sight for `GAP_S` begins anew, and is forgotten when anybody is seen after that.
    """

    def __init__(self, spec: VideoSpec) -> None:
        self._spec = spec
        self._tracks: dict[int, _Track] = {}

    def __len__(self) -> int:
        """The number of tracks that are remembered."""
        return len(self._tracks)

    def put(self, track: int, embedding: Float32, t_ns: int) -> tuple[Float32, float]:
        """Add what a face (n,) was at `t_ns`; return its steps (steps, n) and the share that was seen.

        Times of all tracks must not go backwards; one that does, as after a seek, begins everything anew.
        """
        self._forget(t_ns)
        known = self._tracks.setdefault(track, _Track())
        if len(known.times_ns) > 1 and known.times_ns[-1] - known.times_ns[-2] < CLOSEST_S * 1e9:
            del known.times_ns[-1], known.values[-1]
        if known.times_ns and t_ns <= known.times_ns[-1]:
            del known.times_ns[-1], known.values[-1]
        known.times_ns.append(t_ns)
        known.values.append(embedding)
        # One older than the first step stays: the line to that step starts there.
        while len(known.times_ns) > 2 and known.times_ns[1] <= t_ns - self._spec.span_ns:
            del known.times_ns[0], known.values[0]
        return resample(np.array(known.times_ns, np.int64), np.stack(known.values), self._spec)

    def _forget(self, t_ns: int) -> None:
        gone = [
            number
            for number, known in self._tracks.items()
            if not 0 <= t_ns - known.times_ns[-1] <= GAP_S * 1e9
        ]
        for number in gone:
            del self._tracks[number]
