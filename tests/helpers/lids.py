"""Measurements of a face over time: eyes open, closed for a while, blinking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge.values import FaceMeasurements

OPEN, SHUT = 0.02, 0.98
SECOND = 1_000_000_000


def times(start_s: float, seconds: float, hz: float) -> list[int]:
    """Return the time in ns of each frame from `start_s` on, without the end."""
    return [round((start_s + k / hz) * SECOND) for k in range(round(seconds * hz))]


def eye_measurements(
    closures: Sequence[tuple[float, float]],
    *,
    seconds: float,
    hz: float = 10.0,
    start_s: float = 0.0,
    track: int = 1,
    mouth: float | None = 0.05,
    pitch_deg: float | None = 0.0,
) -> Iterator[FaceMeasurements]:
    """Yield the measurements of each frame; eyes are shut in `closures`, (start, length) in s, else open."""
    for t_ns in times(start_s, seconds, hz):
        shut = any(
            round(start * SECOND) <= t_ns < round((start + length) * SECOND) for start, length in closures
        )
        yield FaceMeasurements(track, t_ns, SHUT if shut else OPEN, mouth, None, pitch_deg)


def blinks(
    seconds: float, *, every_s: float = 4.0, blink_s: float = 0.2, start_s: float = 0.0
) -> list[tuple[float, float]]:
    """Return the closures of a person who is awake."""
    count = int(seconds / every_s)
    return [(start_s + every_s * (k + 0.5), blink_s) for k in range(count)]
