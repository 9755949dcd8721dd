"""Targets compare the worst value with the limit; figures of peers are constants."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.inference.card import artifacts_directory, load_card
from models.evaluation.peers import PEERS, compare
from models.evaluation.targets import TARGETS, check_targets


def made_result(task: str, sets: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Return an evaluation with these int8 figures."""
    result = {
        "model": "tiny",
        "task": task,
        "sets": {name: {"int8": figures} for name, figures in sets.items()},
        "int8_minus_float": {},
        "latency_ms": {},
        "files": {},
    }
    return result | changes


def verdict(result: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the row of one target."""
    (row,) = (row for row in check_targets(result) if row["target"] == name)
    return row


@pytest.mark.parametrize(
    ("accuracy", "met", "missed_by"), [(0.71, True, None), (0.7, True, None), (0.6999, False, 0.01)]
)
def test_at_least(accuracy: float, met: bool, missed_by: float | None) -> None:
    """The limit itself meets the target; 0.01 points below misses it by 0.01."""
    row = verdict(made_result("face", {"fer2013-private": {"accuracy": accuracy, "ece": 0.1}}),
                  "accuracy on fer2013-private")  # fmt: skip
    assert (row["met"], row["missed_by"]) == (met, missed_by)


@pytest.mark.parametrize(("bytes_", "met"), [(1_999_999, True), (2_000_000, False)])
def test_less_than(bytes_: int, met: bool) -> None:
    """The limit itself does not meet a target with <."""
    files = {"int8": {"file": "tiny.int8.tflite", "bytes": bytes_}}
    assert verdict(made_result("face", {}, files=files), "size of the int8 file")["met"] is met


def test_the_worst_set_decides_and_is_named() -> None:
    """The largest loss counts, and the largest absolute difference of the quantization."""
    sets = {"a-crop-jitter": {"loss_points": 1.0}, "b-crop-jitter": {"loss_points": 3.5}}
    differences = {"a": {"accuracy": 0.2}, "b": {"accuracy": -0.6}}
    result = made_result("face", sets, int8_minus_float=differences)
    jitter, quantization = (
        verdict(result, name) for name in ("loss when the box is wrong", "int8 against float16")
    )
    assert (jitter["where"], jitter["missed_by"]) == ("b-crop-jitter", 0.5)
    assert (quantization["where"], quantization["measured"]) == ("b", 0.6)


def test_tess_target_uses_the_mean_of_speakers() -> None:
    """The target of tess uses the mean of its speakers, not the total accuracy."""
    figures = {"accuracy": 0.9, "ece": 0.0, "mean_of_groups": {"accuracy": 0.7}}
    row = verdict(made_result("voice", {"tess-folds": figures}), "accuracy on tess-folds, mean of speakers")
    assert row["measured"] == 70


@pytest.mark.parametrize("task", TARGETS)
def test_nothing_measured_is_neither_met_nor_missed(task: str) -> None:
    """A target on a missing set is neither met nor missed."""
    rows = check_targets(made_result(task, {}))
    assert [row["target"] for row in rows] == [target.name for target in TARGETS[task]]
    assert all(row["met"] is row["measured"] is row["missed_by"] is None for row in rows)


def test_comparison_with_peers(tmp_path: Path) -> None:
    """The measured model comes first, then report-face by its card, then the peers, with the method."""
    shutil.copy(artifacts_directory() / "report-face.json", tmp_path)
    sets = {"fer2013-private": {"accuracy": 0.71}}
    peers = compare(made_result("face", sets, latency_ms={"int8": 1.5}), tmp_path)
    ours, report, *others = peers["rows"]
    assert (ours["fer2013_private"], ours["ckplus48_six"], ours["ms"]) == (71.0, None, 1.5)
    card = load_card("report-face")
    assert report["fer2013_private"] == round(100 * card.metrics["fer2013-private"]["int8"]["accuracy"], 1)
    assert [row["name"] for row in others] == [peer.name for peer in PEERS]
    assert "given crops, no detector" in peers["method"]


def test_peers_without_the_report_s_card(tmp_path: Path) -> None:
    """Without the card of report-face only the peers are compared."""
    rows = compare(made_result("face", {}), tmp_path)["rows"]
    assert len(rows) == 1 + len(PEERS)
