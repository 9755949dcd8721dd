"""Eye and mouth sets are read in every layout, and splits share no person."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.data.datasets import DataError
from models.data.eye_sets import CLOSED, OPEN, YAWNING, PatchSet, clusters_of, load_cew, load_mrl, load_yawns
from tests.helpers import trees


def test_cew_in_both_layouts(tmp_path: Path) -> None:
    """Folders closed and open or closedLeftEyes etc. are read; both eyes have the same person."""
    trees.write_cew(tmp_path / "here", people=2)
    eyes = load_cew(tmp_path / "here")
    assert Counter(eyes.labels.tolist()) == {CLOSED: 4, OPEN: 4}
    assert len(set(eyes.people)) == 4
    assert "cew:closed_eye_0001" in eyes.people
    assert "cew:Made_Person_0001" in eyes.people
    trees.write_cew(tmp_path / "owners", people=2, folders=("closedLeftEyes", "openRightEyes"))
    assert load_cew(tmp_path / "owners").people == eyes.people


def test_mrl_in_both_layouts(tmp_path: Path) -> None:
    """The table and the published file names give the same person, state, glasses and light."""
    trees.write_mrl(tmp_path / "here", people=("s0001", "s0002"), per_state=2)
    trees.write_mrl(tmp_path / "owners", people=("s0001", "s0002"), per_state=2, as_published=True)
    here, owners = load_mrl(tmp_path / "here"), load_mrl(tmp_path / "owners")
    for eyes in (here, owners):
        assert Counter(eyes.labels.tolist()) == {CLOSED: 4, OPEN: 4}
        assert Counter(eyes.people) == {"mrl:s0001": 4, "mrl:s0002": 4}

    def attributes(eyes: PatchSet) -> Counter[tuple[int, str, str]]:
        labelled = zip(eyes.labels.tolist(), eyes.traits, strict=True)
        return Counter((label, traits["glasses"], traits["light"]) for label, traits in labelled)

    assert attributes(here) == attributes(owners)
    assert {traits["glasses"] for traits in here.traits} == {"glasses", "without glasses"}


def test_unusable_files_are_counted(tmp_path: Path) -> None:
    """Unknown names and broken files are counted in notes; a directory without usable files is an error."""
    trees.write_mrl(tmp_path, people=("s0001",), per_state=1, as_published=True)
    (tmp_path / "s0001" / "s0001_00009_0_0_1_0_0_01.png").write_bytes(b"no picture")
    (tmp_path / "cover.png").write_bytes(b"")
    eyes = load_mrl(tmp_path)
    assert len(eyes) == 2
    assert [note.split(" images ")[0] for note in eyes.notes] == ["mrl: 1", "mrl: 1"]
    with pytest.raises(DataError, match="check the directory"):
        load_cew(tmp_path / "nowhere")


def test_alike_mouths_are_one_cluster(tmp_path: Path) -> None:
    """Frames of one recording are one cluster, other mouths are not; a note states the limits."""
    trees.write_yawns(tmp_path, shots=3, frames=4)
    mouths = load_yawns(tmp_path)
    assert sorted(Counter(mouths.people).values()) == [4] * 6
    assert Counter(mouths.labels.tolist())[YAWNING] == 12
    assert "people are not named" in mouths.notes[-1]


def test_clusters_are_transitive() -> None:
    """Two dissimilar images are in one cluster if a chain of similar images links them."""
    a, c = (trees.face(seed, 24).astype(np.float32) for seed in (1, 2))
    steps = [np.asarray(a + (c - a) * share, np.uint8) for share in np.linspace(0, 1, 12)]
    assert len(set(clusters_of(steps))) == 1
    assert len(set(clusters_of([steps[0], steps[-1]]))) == 2


def test_selection_by_people_is_complete_and_disjoint(tmp_path: Path) -> None:
    """The images of some people and those of all others are disjoint and complete."""
    eyes = load_cew(trees.write_cew(tmp_path, people=3))
    some = eyes.of_people(["cew:closed_eye_0001", "cew:Made_Person_0002"])
    rest = eyes.of_people(some.people, inside=False)
    assert (len(some), len(rest)) == (4, 8)
    assert not set(some.people) & set(rest.people)
    assert all(cv2.countNonZero(image) for image in some.images)
