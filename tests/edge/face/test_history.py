"""The history of a face is resampled from uneven times, bounded, and starts again after a gap."""

from __future__ import annotations

import numpy as np
import pytest

from edge.face.history import CLOSEST_S, GAP_S, EmbeddingHistory, resample
from edge.inference.features import VideoSpec
from edge.values import Float32

SPEC = VideoSpec(of="face-cnn", steps=16, rate_hz=10.0)
S = 1_000_000_000


def line(t_s: float) -> Float32:
    """Return an embedding that moves along a line, which linear resampling reproduces."""
    return np.array([t_s, 2 - t_s, 1.0], np.float32)


def add_all(times_s: list[float], history: EmbeddingHistory | None = None) -> tuple[Float32, float]:
    """Return steps and share after the last of these times."""
    history = history or EmbeddingHistory(SPEC)
    for t_s in times_s:
        steps, share = history.add(1, line(t_s), round(t_s * S))
    return steps, share


def expected(now_s: float, first_s: float) -> Float32:
    """Return the line at the steps up to now; steps before `first_s` repeat its value."""
    return np.stack([line(max(first_s, now_s - k / 10)) for k in range(15, -1, -1)])


@pytest.mark.parametrize("fps", [3.0, 7.5, 10.0, 30.0, 60.0])
def test_steps_are_the_same_at_any_rate(fps: float) -> None:
    """At 3 and at 60 frames a second, the steps are 0.1 s apart."""
    times_s = [5 + i / fps for i in range(int(3 * fps))]
    steps, share = add_all(times_s)
    np.testing.assert_allclose(steps, expected(times_s[-1], 5), atol=1e-4)
    assert share == 1


def test_uneven_times_and_lost_frames_give_even_steps() -> None:
    """A camera that stutters gives the steps of a steady one."""
    random = np.random.default_rng(0)
    times_s = list(5 + np.cumsum(random.uniform(0.03, 0.3, 30)))
    steps, share = add_all(times_s)
    np.testing.assert_allclose(steps, expected(times_s[-1], times_s[0]), atol=1e-4)
    assert share == 1


def test_short_history_is_filled_with_its_first_step() -> None:
    """A single frame fills all sixteen steps; the share is the part of them in view."""
    steps, share = add_all([5.0])
    np.testing.assert_array_equal(steps, np.repeat(line(5.0)[np.newaxis], 16, axis=0))
    assert share == 1 / 16
    steps, share = add_all([5.0, 5.1, 5.2])
    np.testing.assert_allclose(steps, expected(5.2, 5.0), atol=1e-5)
    assert share == 3 / 16


@pytest.mark.parametrize(("later_s", "kept"), [(GAP_S, True), (GAP_S + 0.001, False)])
def test_gap_starts_again(later_s: float, kept: bool) -> None:
    """A track out of view for exactly the gap continues; 1 ms more and it starts again."""
    _, share = add_all([5.0, 5.1, 5.2, 5.2 + later_s])
    assert (share > 1 / 16) is kept


def test_time_that_goes_back_starts_again() -> None:
    """A clip that starts over does not mix its end with its beginning."""
    steps, share = add_all([5.0, 5.1, 5.2, 1.0])
    np.testing.assert_array_equal(steps[0], line(1.0))
    assert share == 1 / 16


def test_lost_tracks_are_removed() -> None:
    """The first face after the gap removes the lost tracks, and tracks do not mix."""
    history = EmbeddingHistory(SPEC)
    for k in range(50):
        history.add(k, line(0.0), 5 * S)
    assert len(history) == 50
    steps, _ = history.add(7, line(3.0), round((5 + GAP_S) * S))
    np.testing.assert_array_equal(steps[-1], line(3.0))
    assert len(history) == 50
    history.add(99, line(1.0), round((5 + GAP_S) * S) + 1)
    assert len(history) == 2


def test_history_is_bounded_at_any_rate() -> None:
    """A thousand frames a second leave at most one every `CLOSEST_S` of the span."""
    history = EmbeddingHistory(SPEC)
    for i in range(2000):
        history.add(1, line(0.0), 5 * S + i * S // 1000)
    assert len(history._tracks[1].times_ns) <= 1.5 / CLOSEST_S + 3


def test_steps_between_two_frames_are_interpolated() -> None:
    """The three steps between two frames 0.4 s apart are equally spaced."""
    values = np.array([[0.0], [4.0]], np.float32)
    steps, share = resample(np.array([0, 400_000_000]), values, SPEC)
    np.testing.assert_allclose(steps[-5:, 0], [0, 1, 2, 3, 4], atol=1e-5)
    assert share == 5 / 16
