"""The figures of the eye and mouth models are of held-out people; missing data is noted."""

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


def test_run_lengths_are_in_milliseconds() -> None:
    """Runs of two frames and of one; an uncertain frame ends a run."""
    assert run_lengths_ms([0.1, 0.9, 0.8, 0.5, None, 0.9, None], 40.0) == [80.0, 40.0]
    assert run_lengths_ms([], 40.0) == []


def test_people_are_predicted_by_the_fold_that_holds_them_out(tmp_path: Path) -> None:
    """s0001 and s0012 have a fold; s0019 (validation) and an unknown person have none."""
    trees.write_mrl(tmp_path, people=("s0001", "s0012", "s0019", "s0777"), per_state=1, as_published=True)
    family = load_family("eye-state", ARTIFACTS)
    held_out = held_out_patches(family, "mrl", load_mrl(tmp_path), [])
    assert set(held_out.patches.people) == {"mrl:s0001", "mrl:s0012"}
    for person, number in zip(held_out.patches.people, held_out.model_numbers, strict=True):
        assert person in family.folds[number].held_out


def test_drawn_eyes_are_measured(tmp_path: Path) -> None:
    """The shipped folds classify drawn eyes; missing data sets are notes."""
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
    """Without any data set there is an error."""
    with pytest.raises(DataError, match="no data to measure it on"):
        run_measure(name, tmp_path, directory=ARTIFACTS, bar=trees.no_bar)


def test_made_inputs_of_two_variants_agree(tmp_path: Path) -> None:
    """float16 and int8 folds have nearly the same probabilities for the same eyes."""
    from models.evaluation.figures.held_out_patches import predict_with_folds
    from models.recipes.eye_state import as_input

    trees.write_mrl(tmp_path, people=("s0001", "s0016"), per_state=6)
    family = load_family("eye-state", ARTIFACTS)
    held_out = held_out_patches(family, "mrl", load_mrl(tmp_path), [])
    p = predict_with_folds(family, ARTIFACTS, held_out, as_input(held_out.patches.images), bar=trees.no_bar)
    assert np.abs(p["int8"] - p["float16"]).mean() < 0.03
