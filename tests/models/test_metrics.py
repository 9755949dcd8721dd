"""Metrics follow their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from edge.inference.classifier import soften
from edge.values import LABELS, Float32
from models.metrics import (
    FEWEST_PEOPLE,
    calibration_error,
    confusion_matrix,
    figures_of_parts,
    fit_temperature,
    intervals_95,
    macro_f1,
    mean_of_parts,
    measure,
    predicted_classes,
    uar,
)


def one_hot(classes: list[int], confidence: float = 1.0) -> Float32:
    """Return p (n, 7) with `confidence` on one class and the rest spread evenly."""
    p = np.full((len(classes), 7), (1 - confidence) / 6, dtype=np.float32)
    p[np.arange(len(classes)), classes] = confidence
    return p


def test_figures_of_a_worked_example() -> None:
    """Ten examples of two classes, computed by hand."""
    labels = np.array([0, 0, 0, 0, 0, 3, 3, 3, 3, 3])
    predicted = np.array([0, 0, 0, 0, 3, 3, 3, 3, 0, 5])
    assert uar(predicted, labels) == pytest.approx((4 / 5 + 3 / 5) / 2)
    assert macro_f1(predicted, labels) == pytest.approx((8 / 10 + 6 / 9) / 2)
    matrix = confusion_matrix(predicted, labels)
    assert matrix[0].tolist() == [4, 0, 0, 1, 0, 0, 0]
    assert matrix[3].tolist() == [1, 0, 0, 3, 0, 1, 0]
    assert matrix.sum() == 10


def test_uar_does_not_depend_on_class_sizes() -> None:
    """Always predicting the class of 90 of 100 examples has accuracy 0.9 and UAR 0.5."""
    labels = np.array([3] * 90 + [0] * 10)
    figures = measure(one_hot([3] * 100), labels)
    assert figures["accuracy"] == 0.9
    assert figures["uar"] == 0.5


@pytest.mark.parametrize(("confidence", "right", "expected"), [(0.8, 8, 0.0), (0.8, 5, 0.3), (0.6, 10, 0.4)])
def test_calibration_error(confidence: float, right: int, expected: float) -> None:
    """With equal confidence the error is |accuracy - confidence|."""
    p = one_hot([2] * 10, confidence)
    labels = np.array([2] * right + [4] * (10 - right))
    assert calibration_error(p, labels) == pytest.approx(expected, abs=1e-6)


def test_calibration_error_does_not_cancel_between_bins() -> None:
    """Overconfidence in one bin and underconfidence in another both count."""
    p = np.concatenate([one_hot([1] * 10, 0.9), one_hot([1] * 10, 0.5)])
    labels = np.array([1] * 5 + [2] * 5 + [1] * 9 + [2])
    assert calibration_error(p, labels) == pytest.approx(0.4, abs=1e-6)


def test_missed_faces_count_as_wrong() -> None:
    """A row of zeros is no class: it reduces the accuracy and is in no column of the confusion."""
    p = one_hot([0, 1, 2, 0])
    p[3] = 0
    assert predicted_classes(p).tolist() == [0, 1, 2, -1]
    figures = measure(p, np.array([0, 1, 2, 0]))
    assert figures["accuracy"] == 0.75
    assert np.sum(figures["confusion"]) == 3


@pytest.mark.parametrize("n", [100, 10_000])
def test_interval_holds_the_accuracy_and_narrows(n: int) -> None:
    """It is about +-1.96 standard errors around the accuracy, and deterministic."""
    labels = np.zeros(n, dtype=np.int64)
    predicted = np.where(np.arange(n) < 0.6 * n, 0, 1)
    (low, high), _ = intervals_95(predicted, labels, range(n))
    error = 1.96 * np.sqrt(0.6 * 0.4 / n)
    assert low == pytest.approx(0.6 - error, abs=0.15 * error + 0.5 / n)
    assert high == pytest.approx(0.6 + error, abs=0.15 * error + 0.5 / n)
    assert intervals_95(predicted, labels, range(n))[0] == [low, high]


def test_small_class_determines_the_interval_of_the_uar() -> None:
    """With 20 examples of one class and 2,000 of another, half the error of the small one stays."""
    labels = np.array([0] * 20 + [3] * 2000)
    predicted = np.array([0] * 10 + [1] * 10 + [3] * 2000)
    (low, high), (uar_low, uar_high) = intervals_95(predicted, labels, range(labels.size))
    assert high - low < 0.01
    error = 1.96 * np.sqrt(0.5 * 0.5 / 20) / 2
    assert (uar_high - uar_low) / 2 == pytest.approx(error, rel=0.15)


def test_interval_over_people_is_wider_for_correlated_clips() -> None:
    """Ten people with 100 equal clips each count as ten draws."""
    labels = np.zeros(1000, dtype=np.int64)
    people = [f"p{i // 100}" for i in range(1000)]
    predicted = np.where(np.arange(1000) // 100 < 6, 0, 1)
    figures = measure(one_hot(predicted.tolist()), labels, people=people)
    low, high = figures["interval_95_people"]
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.6 * 0.4 / 10), rel=0.2)
    low, high = figures["interval_95"]
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.6 * 0.4 / 1000), rel=0.2)


@pytest.mark.parametrize(("people", "expected"), [(FEWEST_PEOPLE - 1, False), (FEWEST_PEOPLE, True)])
def test_interval_over_people_needs_five(people: int, expected: bool) -> None:
    """Four people have no interval, five have one."""
    labels = np.zeros(20, dtype=np.int64)
    figures = measure(one_hot([0] * 20), labels, people=[f"p{i % people}" for i in range(20)])
    assert ("interval_95_people" in figures) is expected


def test_repeated_views_do_not_narrow_the_interval() -> None:
    """Six views of each of 100 images count as 100 units."""
    labels = np.zeros(600, dtype=np.int64)
    units = list(range(100)) * 6
    p = one_hot([0 if unit < 60 else 1 for unit in units])
    assert measure(p, labels, units=units)["interval_95"] == measure(p[:100], labels[:100])["interval_95"]


def test_recall_and_precision_of_a_class() -> None:
    """One of three is found, one of two predictions is right; a class without examples has no recall."""
    figures = measure(one_hot([0, 1, 1, 0]), np.array([0, 0, 0, 1]))
    assert figures["recall"]["anger"] == pytest.approx(1 / 3, abs=1e-4)
    assert figures["precision"]["anger"] == 0.5
    assert figures["recall"]["surprise"] is None
    assert figures["precision"]["surprise"] is None
    assert list(figures["recall"]) == list(LABELS)


def test_reliability_bins_hold_every_example() -> None:
    """Each bin has confidence and accuracy; together they have all examples."""
    p = np.concatenate([one_hot([1] * 10, 0.9), one_hot([1] * 10, 0.5)])
    bins = measure(p, np.array([1] * 5 + [2] * 5 + [1] * 9 + [2]))["reliability"]
    assert bins == [
        {"n": 10, "confidence": 0.5, "accuracy": 0.9},
        {"n": 10, "confidence": 0.9, "accuracy": 0.5},
    ]


def test_parts_and_their_mean_give_each_part_the_same_weight() -> None:
    """A speaker with one clip has the same weight as one with three."""
    parts = figures_of_parts(one_hot([0, 0, 1, 2]), np.array([0, 1, 1, 0]), ["a", "a", "a", "b"])
    assert parts["a"] == {"n": 3, "accuracy": 0.6667, "uar": 0.75}
    assert parts["b"] == {"n": 1, "accuracy": 0.0, "uar": 0.0}
    mean = mean_of_parts(parts)
    assert mean["uar"] == 0.375
    assert mean["uar_sd"] == pytest.approx(0.75 / np.sqrt(2), abs=1e-4)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5, 8.0])
def test_temperature_is_found_again(true_temperature: float) -> None:
    """The temperature of labels drawn from softened probabilities is found."""
    random = np.random.default_rng(0)
    p = random.dirichlet(np.full(7, 0.7), 20_000).astype(np.float32)
    soft = np.stack([soften(row, true_temperature) for row in p])
    labels = (soft.cumsum(axis=1) > random.random((len(p), 1))).argmax(axis=1)
    assert fit_temperature(p, labels) == pytest.approx(true_temperature, rel=0.06)


def test_a_person_with_many_clips_counts_once_for_the_temperature() -> None:
    """One person with 99 right clips and one with a wrong clip: by people, half is right."""
    p = np.tile(np.array([0.94] + [0.01] * 6, np.float32), (100, 1))
    labels = np.array([0] * 99 + [1])
    people = ["many"] * 99 + ["one"]
    assert fit_temperature(p, labels) < 1
    softened = soften(p[0], fit_temperature(p, labels, people))
    assert softened[0] == pytest.approx(0.5, abs=0.01)
