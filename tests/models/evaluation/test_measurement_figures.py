"""The figures of the eye and mouth models: who is asked about whom, and what is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.inference.card import artifacts_directory
from models.data.datasets import DataError
from models.data.eye_sets import load_mrl
from models.evaluation.figures.clip_predictions import run_lengths_ms
from models.evaluation.figures.held_out_patches import held_out_patches
from models.evaluation.measures import run_measure
from models.family import load_family
from tests.helpers import trees

ARTIFACTS = artifacts_directory()


def test_runs_are_told_in_milliseconds() -> None:
    """Two blinks of two frames and of one; a frame that says nothing ends a run."""
    assert run_lengths_ms([0.1, 0.9, 0.8, 0.5, None, 0.9, None], 40.0) == [80.0, 40.0]
    assert run_lengths_ms([], 40.0) == []


def test_everybody_is_asked_of_the_fold_that_never_met_them(tmp_path: Path) -> None:
    """s0001 and s0012 have their fold; s0019, who chose the model, and a stranger have none."""
    trees.write_mrl(tmp_path, people=("s0001", "s0012", "s0019", "s0777"), per_state=1, as_published=True)
    family = load_family("eye-state", ARTIFACTS)
    unseen = held_out_patches(family, "mrl", load_mrl(tmp_path), [])
    assert set(unseen.patches.people) == {"mrl:s0001", "mrl:s0012"}
    for person, asker in zip(unseen.patches.people, unseen.model_numbers, strict=True):
        assert person in family.folds[asker].held_out


def test_drawn_eyes_are_measured(tmp_path: Path) -> None:
    """The shipped folds tell drawn eyes apart; what is not there is a note and not an error."""
    trees.write_mrl(tmp_path / "eyes" / "mrl", people=("s0001", "s0012", "s0014"), per_state=4)
    result = run_measure("eye-state", tmp_path, directory=ARTIFACTS, bar=trees.no_bar)
    found = result["figures"]["sets"]["mrl"]
    assert found["n"] == 24
    assert found["int8"]["accuracy"] > 0.7
    assert abs(found["int8"]["accuracy"] - found["float16"]["accuracy"]) < 0.1
    assert found["parts"]["glasses"]["n"] + found["parts"]["without glasses"]["n"] == 24
    assert {note.split(":")[0] for note in result["notes"]} >= {"data set cew", "data set jaffe"}
    rows = {row["target"]: row for row in result["targets"]}
    assert rows["size of the int8 file"]["met"]
    assert rows["accuracy on cew"]["met"] is None
    assert rows["accuracy on mrl"]["measured"] == pytest.approx(100 * found["int8"]["accuracy"])


@pytest.mark.parametrize("name", ["eye-state", "mouth-state"])
def test_no_data_at_all(tmp_path: Path, name: str) -> None:
    """One sentence says what could be measured on and is not there."""
    with pytest.raises(DataError, match="nothing to measure it on"):
        run_measure(name, tmp_path, directory=ARTIFACTS, bar=trees.no_bar)


def test_made_inputs_of_two_variants_agree(tmp_path: Path) -> None:
    """Float and integer folds give nearly the same probabilities for the same eyes."""
    from models.evaluation.figures.held_out_patches import predict_with_folds
    from models.recipes.eye_state import as_input

    trees.write_mrl(tmp_path, people=("s0001", "s0016"), per_state=6)
    family = load_family("eye-state", ARTIFACTS)
    unseen = held_out_patches(family, "mrl", load_mrl(tmp_path), [])
    p = predict_with_folds(family, ARTIFACTS, unseen, as_input(unseen.patches.images), bar=trees.no_bar)
    assert np.abs(p["int8"] - p["float16"]).mean() < 0.03
