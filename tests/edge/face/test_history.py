"""What a face was lately: resampled from uneven times, bounded, forgotten, and begun anew after a gap."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import ModelError
from edge.face.history import CLOSEST_S, GAP_S, EmbeddingHistory, VideoSpec, resample
from edge.values import Float32

SPEC = VideoSpec("face-cnn", 16, 10.0)
S = 1_000_000_000


def line(t_s: float) -> Float32:
    """Return an embedding that moves in a straight line, so that a right resampling gives it back."""
    return np.array([t_s, 2 - t_s, 1.0], np.float32)


def watched(times_s: list[float], memory: EmbeddingHistory | None = None) -> tuple[Float32, float]:
    """Return what the memory gives after the last of these times."""
    memory = memory or EmbeddingHistory(SPEC)
    for t_s in times_s:
        steps, share = memory.put(1, line(t_s), round(t_s * S))
    return steps, share


def expected(now_s: float, first_s: float) -> Float32:
    """Return the line at the steps up to now, held before it was seen."""
    return np.stack([line(max(first_s, now_s - k / 10)) for k in range(15, -1, -1)])


@pytest.mark.parametrize("fps", [3.0, 7.5, 10.0, 30.0, 60.0])
def test_steps_are_the_same_at_any_rate(fps: float) -> None:
    """Three pictures a second or sixty: the steps lie a tenth of a second apart."""
    times_s = [5 + i / fps for i in range(int(3 * fps))]
    steps, share = watched(times_s)
    np.testing.assert_allclose(steps, expected(times_s[-1], 5), atol=1e-4)
    assert share == 1


def test_uneven_times_and_lost_pictures_count_as_they_were_taken() -> None:
    """A camera that stutters gives the steps of one that does not."""
    random = np.random.default_rng(0)
    times_s = list(5 + np.cumsum(random.uniform(0.03, 0.3, 30)))
    steps, share = watched(times_s)
    np.testing.assert_allclose(steps, expected(times_s[-1], times_s[0]), atol=1e-4)
    assert share == 1


def test_short_history_is_filled_with_its_first_step() -> None:
    """One picture is sixteen times the same; the share says how little was seen."""
    steps, share = watched([5.0])
    np.testing.assert_array_equal(steps, np.repeat(line(5.0)[np.newaxis], 16, axis=0))
    assert share == 1 / 16
    steps, share = watched([5.0, 5.1, 5.2])
    np.testing.assert_allclose(steps, expected(5.2, 5.0), atol=1e-5)
    assert share == 3 / 16


@pytest.mark.parametrize(("later_s", "kept"), [(GAP_S, True), (GAP_S + 0.001, False)])
def test_gap_begins_anew(later_s: float, kept: bool) -> None:
    """A track out of sight for just the gap goes on; a millisecond more and nothing before it counts."""
    _, share = watched([5.0, 5.1, 5.2, 5.2 + later_s])
    assert (share > 1 / 16) is kept


def test_time_that_goes_back_begins_anew() -> None:
    """A clip that starts over does not mix its end with its beginning."""
    steps, share = watched([5.0, 5.1, 5.2, 1.0])
    np.testing.assert_array_equal(steps[0], line(1.0))
    assert share == 1 / 16


def test_tracks_are_forgotten() -> None:
    """Whoever left is gone once anybody is seen after the gap, and people do not mix."""
    memory = EmbeddingHistory(SPEC)
    for k in range(50):
        memory.put(k, line(0.0), 5 * S)
    assert len(memory) == 50
    steps, _ = memory.put(7, line(3.0), round((5 + GAP_S) * S))
    np.testing.assert_array_equal(steps[-1], line(3.0))
    assert len(memory) == 50
    memory.put(99, line(1.0), round((5 + GAP_S) * S) + 1)
    assert len(memory) == 2


def test_memory_is_bounded_at_any_rate() -> None:
    """A thousand pictures a second leave no more than one every `CLOSEST_S` of the span."""
    memory = EmbeddingHistory(SPEC)
    for i in range(2000):
        memory.put(1, line(0.0), 5 * S + i * S // 1000)
    assert len(memory._tracks[1].times_ns) <= 1.5 / CLOSEST_S + 3


def test_numbers_between_two_pictures_are_on_the_line_between_them() -> None:
    """Two pictures 0.4 s apart give the three steps between them in equal parts."""
    values = np.array([[0.0], [4.0]], np.float32)
    steps, share = resample(np.array([0, 400_000_000]), values, SPEC)
    np.testing.assert_allclose(steps[-5:, 0], [0, 1, 2, 3, 4], atol=1e-5)
    assert share == 5 / 16


def test_other_features_are_refused() -> None:
    """A model that reads something else is named with a remedy."""
    with pytest.raises(ModelError, match="unknown video features; update emotion-edge"):
        VideoSpec.from_features({"kind": "optical_flow"})
    assert VideoSpec.from_features(SPEC.to_features()) == SPEC
