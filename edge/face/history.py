"""The embeddings of each tracked face over the last 1.5 s, resampled for the video model.

    history.add(track, embedding, t_ns)  ->  steps at a fixed rate, the last one now  ->  video model

Frames arrive at the rate of the camera; the video model was trained on steps `1 / rate_hz` apart. Embeddings
between two frames are interpolated linearly, as by `numpy.interp`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.inference.features import VideoSpec
from edge.values import Float32

GAP_S = 0.6  # longer than between frames of a hot device, shorter than looking away and back
CLOSEST_S = 0.02  # a frame that follows sooner replaces the last one, so that a track has a maximum length


def resample(times_ns: NDArray[np.int64], values: Float32, spec: VideoSpec) -> tuple[Float32, float]:
    """Return (steps, n) float32, the last step at the newest time, and the share 0..1 of steps in view.

    `values` (k, n) belong to the ascending `times_ns` (k,), k >= 1. Steps before the first time repeat its
    value; they are not in view.
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

    A track that was out of view for more than `GAP_S` starts again; the next `add` removes it.
    """

    def __init__(self, spec: VideoSpec) -> None:
        self._spec = spec
        self._tracks: dict[int, _Track] = {}

    def __len__(self) -> int:
        """The number of tracks."""
        return len(self._tracks)

    def add(self, track: int, embedding: Float32, t_ns: int) -> tuple[Float32, float]:
        """Add the embedding (n,) of a face at `t_ns`; return its steps (steps, n) and the share in view.

        Times must not go backwards over all tracks. A time that does, as after a seek, removes all tracks.
        """
        self._remove_lost(t_ns)
        course = self._tracks.setdefault(track, _Track())
        if len(course.times_ns) > 1 and course.times_ns[-1] - course.times_ns[-2] < CLOSEST_S * 1e9:
            del course.times_ns[-1], course.values[-1]
        if course.times_ns and t_ns <= course.times_ns[-1]:
            del course.times_ns[-1], course.values[-1]
        course.times_ns.append(t_ns)
        course.values.append(embedding)
        # One embedding before the first step stays, to interpolate from.
        while len(course.times_ns) > 2 and course.times_ns[1] <= t_ns - self._spec.span_ns:
            del course.times_ns[0], course.values[0]
        return resample(np.array(course.times_ns, np.int64), np.stack(course.values), self._spec)

    def _remove_lost(self, t_ns: int) -> None:
        lost = [
            number
            for number, course in self._tracks.items()
            if not 0 <= t_ns - course.times_ns[-1] <= GAP_S * 1e9
        ]
        for number in lost:
            del self._tracks[number]
