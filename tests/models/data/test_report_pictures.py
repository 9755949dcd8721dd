"""The image sets of the report are listed by their names and read in colour; unusable files are counted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.data.datasets import DataError
from models.data.report_pictures import list_pictures, move_pictures, read_pictures
from tests.helpers import trees


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("jaffe", "KA.AN1.39.tiff", "holiday.tiff"),
        ("jaffe", "anger/KA.AN1.39.webp", "anger/KA.XX1.39.webp"),
        ("ckplus48", "anger/S010_004_00000017.png", "anger/face.png"),
        ("ckplus48", "anger/S010_004_00000017.png", "bored/S010_004_00000017.png"),
        ("cfe", "Angry/subject12_3.jpg", "bored/subject1.jpg"),
    ],
)
def test_unknown_names_are_counted(tmp_path: Path, source: str, good: str, bad: str) -> None:
    """A note counts images whose name or folder has no person or emotion; the others are used."""
    for name in (good, bad):
        path = tmp_path / source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (picture,), (note,) = list_pictures(tmp_path, source)
    assert (picture.path, picture.label) == (tmp_path / source / good, "anger")
    assert note.startswith(f"{source}: 1 files with names without a person or emotion (first {bad},")


@pytest.mark.parametrize(
    ("name", "subject"),
    [("subject1.jpg", "cfe:subject1"), ("subject12_3.jpg", "cfe:subject12"), ("anna_1.jpg", "cfe:anna")],
)
def test_cfe_subject_is_the_name_up_to_its_number(tmp_path: Path, name: str, subject: str) -> None:
    """All images of a person have the same subject."""
    (tmp_path / "cfe/fear").mkdir(parents=True)
    (tmp_path / "cfe/fear" / name).write_bytes(b"")
    (picture,), _ = list_pictures(tmp_path, "cfe")
    assert picture.subject == subject


def test_no_name_of_the_pattern_is_an_error(tmp_path: Path) -> None:
    """The error has the expected pattern."""
    (tmp_path / "jaffe").mkdir()
    (tmp_path / "jaffe/cat.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image with a name of its pattern \(KA\.AN1\.39\.tiff\)"):
        list_pictures(tmp_path, "jaffe")


def test_unreadable_pictures_are_counted_per_set(tmp_path: Path) -> None:
    """A note has number and first name of the unreadable files of a set; the others are read."""
    trees.write_cfe(tmp_path / "cfe")
    trees.write_jaffe(tmp_path / "jaffe")
    (tmp_path / "cfe/anger/subject1.jpg").write_bytes(b"")
    pictures = [*list_pictures(tmp_path, "cfe")[0], *list_pictures(tmp_path, "jaffe")[0]]
    good, pixels, notes = read_pictures(pictures, side_px=40, colour=True)
    assert len(good) == len(pixels) == len(pictures) - 1
    assert pixels.shape[1:] == (40, 40, 3)
    assert notes == ["cfe: 1 of 14 images cannot be read (first subject1.jpg)"]


def test_colour_is_rgb(tmp_path: Path) -> None:
    """OpenCV reads BGR; the pixels are RGB."""
    path = tmp_path / "cfe/anger/subject1.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((60, 60, 3), (0, 0, 200), np.uint8))
    _, pixels, _ = read_pictures(list_pictures(tmp_path, "cfe")[0], side_px=48, colour=True)
    assert pixels[0, 0, 0].tolist() == [200, 0, 0]


def test_seed_determines_the_augmentation() -> None:
    """The same seed gives the same images; size and type stay, in grey and colour."""
    images = np.stack([np.repeat(trees.face(seed)[..., np.newaxis], 3, axis=2) for seed in range(8)])
    first = move_pictures(images, np.random.default_rng(3))
    np.testing.assert_array_equal(first, move_pictures(images, np.random.default_rng(3)))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert all((a != b).mean() > 0.5 for a, b in zip(first, images, strict=True))
    assert move_pictures(images[..., :1], np.random.default_rng(3)).shape == (8, 48, 48, 1)
