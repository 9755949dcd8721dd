"""Rendered minutes have the stated blinks, and the fatigue monitor finds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.people.fatigue import ALARMS
from edge.values import Float32, UInt8
from models.data.datasets import DataError
from models.data.eye_sets import CLOSED, OPEN, PatchSet
from models.data.synthetic_blinks import (
    BLINK_S,
    BLINKS_PER_MIN,
    P80,
    Closure,
    EyePair,
    LidMotion,
    draw_alarm_motion,
    draw_lid_motion,
    pair_eyes,
    render,
)
from models.evaluation.figures.fatigue import (
    CropClassifier,
    Minute,
    frame_times,
    pairs_with_models,
    recognised_pairs,
    run_monitor,
    simulate_minute,
    summary,
)


def eye(*, dark_rows: slice, side: int = 24) -> UInt8:
    """Return a bright square with a dark band: the iris of an open eye or the lashes of a closed one."""
    image = np.full((side, side), 200, np.uint8)
    image[dark_rows] = 40
    return image


OPENED, SHUT = eye(dark_rows=slice(8, 17)), eye(dark_rows=slice(17, 20))
PAIR = EyePair("made:1", (OPENED, OPENED), (SHUT, SHUT))


def classify(crops: Sequence[Float32]) -> float | None:
    """Classify these drawn eyes by the brightness of their centre."""
    middle = float(np.mean([crop[11:22].mean() for crop in crops]))
    return float(np.clip((middle - 0.1) / 0.5, 0, 1))


CLASSIFIER = CropClassifier(32, classify)


def test_closures_have_the_stated_covered_time() -> None:
    """Two blinks and a long closure are counted, and PERCLOS follows from their ramps."""
    course = LidMotion(10, (Closure(1, 1.1, 1.2, 1.4), Closure(3, 3.1, 3.2, 3.4), Closure(5, 5.2, 6.0, 6.4)))
    assert course.blinks == 2
    seconds = 2 * (0.02 + 0.1 + 0.04) + 0.04 + 0.8 + 0.08
    assert course.perclos == pytest.approx(seconds / 10, abs=0.001)
    assert course.closures[0].covered_s == pytest.approx(1.08)
    np.testing.assert_allclose(
        course.covered(np.array([0.5, 1.05, 1.15, 1.3, 2])), [0, 0.5, 1, 0.5, 0], atol=1e-9
    )


@pytest.mark.parametrize("seed", range(4))
def test_drawn_blinks_are_plausible(seed: int) -> None:
    """Blinks do not overlap and have plausible lengths; a microsleep covers at least 0.5 s."""
    course = draw_lid_motion(np.random.default_rng(seed), microsleeps=2)
    ends = [0.0, *(closure.end_s for closure in course.closures)]
    assert all(closure.start_s > end for closure, end in zip(course.closures, ends, strict=False))
    blinks = [closure.end_s - closure.start_s for closure in course.closures if closure.is_blink]
    assert all(BLINK_S[0] <= length <= BLINK_S[1] + 1e-9 for length in blinks)
    assert BLINKS_PER_MIN[0] / 2 <= len(blinks) <= 1.6 * BLINKS_PER_MIN[1]
    (first, *_) = [closure for closure in course.closures if not closure.is_blink]
    t_s = np.arange(first.start_s, first.end_s, 0.001)
    assert np.sum(course.covered(t_s) >= P80) * 0.001 >= 0.5


def test_the_same_seed_draws_the_same() -> None:
    """The seed determines the result."""
    assert draw_lid_motion(np.random.default_rng(3)) == draw_lid_motion(np.random.default_rng(3))


def test_rendering_blends_from_open_to_closed() -> None:
    """At both ends the crop equals the source image; half way the upper half is closed."""
    course = LidMotion(4, (Closure(1, 2, 3, 4),))
    opened, half, shut = (
        crops[0]
        for crops in render(PAIR, course, np.array([0.5, 1.5, 2.5]), size=24, random=np.random.default_rng(0))
    )
    assert opened.shape == (24, 24, 1)
    for crop, image in ((opened, OPENED), (shut, SHUT)):
        assert np.corrcoef(crop.ravel(), image.ravel())[0, 1] > 0.9
    assert half[9, 12, 0] > half[16, 12, 0]


def eyes_of(*cells: tuple[str, int], seed: int = 0) -> PatchSet:
    """Return noise for each (person, state)."""
    random = np.random.default_rng(seed)
    images = tuple(random.integers(0, 255, (24, 24), np.uint8) for _ in cells)
    return PatchSet(
        "made",
        images,
        np.array([state for _, state in cells], np.int64),
        tuple(person for person, _ in cells),
        ({},) * len(cells),
    )


def test_people_with_both_states_are_preferred() -> None:
    """If a person has both states, people with one state are not used."""
    eyes = eyes_of(("a", OPEN), ("a", CLOSED), ("a", CLOSED), ("b", OPEN), ("c", CLOSED))
    assert [pair.person for pair in pair_eyes(eyes, most=3, seed=1)] == ["a", "a", "a"]


def test_without_both_states_similar_people_are_paired() -> None:
    """Two open eyes of one photograph get two closed ones of another, with equal brightness."""
    eyes = eyes_of(("a", OPEN), ("a", OPEN), ("b", CLOSED), ("b", CLOSED), ("c", CLOSED))
    (pair,) = pair_eyes(eyes, most=5, seed=1)
    assert pair.person == "a"
    assert len(pair.opened) == len(pair.shut) == 2
    assert pair.shut[0].mean() == pytest.approx(pair.opened[0].mean(), abs=3)
    with pytest.raises(DataError, match="no open and closed eyes to pair"):
        pair_eyes(eyes_of(("a", OPEN), ("a", OPEN)), most=5, seed=1)


def test_recognised_pairs_are_counted() -> None:
    """A perfect classifier recognises both states; one that always predicts open recognises one."""
    blind = CropClassifier(32, lambda _crops: 0.1)
    assert recognised_pairs([(PAIR, CLASSIFIER), (PAIR, blind)]) == {"n": 2, "opened": 2, "shut": 1}
    assert recognised_pairs([(PAIR, CropClassifier(32, lambda _crops: None))]) == {
        "n": 1,
        "opened": 0,
        "shut": 0,
    }


def test_figures_need_fold_models(tmp_path: Path) -> None:
    """Without fold models there is an error, since no model holds the people out."""
    with pytest.raises(DataError, match="no fold model of eye-state"):
        pairs_with_models(eyes_of(("a", OPEN), ("a", CLOSED)), tmp_path)


@pytest.mark.parametrize(("hz", "dropped"), [(10, 0.0), (30, 0.2)])
def test_monitor_finds_the_rendered_blinks(hz: float, dropped: float) -> None:
    """With a perfect classifier blinks are within 10 % and PERCLOS within 0.03, also with lost frames."""
    minute = simulate_minute(PAIR, CLASSIFIER, hz=hz, dropped=dropped, seed=5)
    assert minute.blink_error is not None
    assert abs(minute.blink_error) <= 0.1
    assert minute.found_perclos == pytest.approx(minute.perclos, abs=0.03)
    assert minute.found_microsleeps == minute.microsleeps


def test_the_alarm_of_a_rendered_closure_comes_in_time() -> None:
    """The alarm comes within 1.5 s after 80 % are covered."""
    course = draw_alarm_motion(np.random.default_rng(1), at_s=8.0, closed_s=3.0)
    states = run_monitor(PAIR, course, CLASSIFIER, hz=10, dropped=0.1, seed=1)
    first = next(t_s for t_s, state in states if state.level in ALARMS)
    assert 0.8 <= first - course.closures[-1].covered_s <= 1.5


def test_frame_times_are_ordered_and_some_are_lost() -> None:
    """Times increase, and their number matches rate and loss."""
    t_s = frame_times(60, hz=30, dropped=0.25, random=np.random.default_rng(2))
    assert np.all(np.diff(t_s) > 0)
    assert t_s.size == pytest.approx(1350, rel=0.05)


def test_errors_are_averaged_over_minutes() -> None:
    """10 of 10 and 8 of 10 blinks are an error of 10 %; without a blink rate there is no error."""
    minutes = [Minute("a", 10, found, 0.05, 0.07, 1, 1, frozenset({"alert"})) for found in (10.0, 8.0)]
    found = summary(minutes)
    assert found["blinks"]["mean_error"] == pytest.approx(0.1)
    assert found["perclos"]["bias"] == pytest.approx(0.02)
    assert found["awake"] == {"n": 0, "called_drowsy": 0}
    slow = summary([Minute("a", 10, None, 0.05, 0.05, 0, 0, frozenset({"drowsy"}))])
    assert slow["blinks"]["mean_error"] is None
    assert slow["awake"] == {"n": 1, "called_drowsy": 1}
