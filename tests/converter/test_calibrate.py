"""Calibration reads what the device computes, and refuses what no range can be seen in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter.calibrate import CalibrationError, read_examples
from edge.errors import EdgeError
from tests.helpers import trees


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of made faces to calibrate with."""
    return trees.write_fer2013(tmp_path_factory.mktemp("pictures"))


def test_calibration_reads_faces_as_the_device_does(pictures: Path) -> None:
    """Pictures come as (n, 48, 48, 1) in [0, 1], drawn over the whole tree, the same at every call."""
    examples = read_examples(pictures, (48, 48, 1), count=20)
    assert examples.shape == (20, 48, 48, 1)
    assert examples.dtype == np.float32
    assert 0 <= examples.min() < 0.2
    assert 0.8 < examples.max() <= 1
    np.testing.assert_array_equal(examples, read_examples(pictures, (48, 48, 1), count=20))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("nothing", "no picture in it"),
        ("one", "1 example"),
        ("constant", "without any difference"),
        ("broken", "none of 2 files"),
        ("no directory", "no such directory"),
    ],
)
def test_poor_calibration_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    """Zero, one, constant or unreadable examples: an error that names the directory."""
    import cv2

    directory = tmp_path / "cal"
    if content != "no directory":
        directory.mkdir()
    for number in range({"one": 1, "constant": 3, "broken": 2}.get(content, 0)):
        path = directory / f"{number}.png"
        if content == "broken":
            path.write_bytes(b"no picture")
        else:
            cv2.imwrite(str(path), trees.face(1) if content == "one" else np.full((48, 48), 7, np.uint8))
    with pytest.raises(CalibrationError, match=sentence) as caught:
        read_examples(directory, (48, 48, 1), count=10)
    assert "cal" in str(caught.value)


def test_sound_needs_the_card_s_features(tmp_path: Path) -> None:
    """Without a card nothing says how sound becomes numbers, so it is refused; wrong sizes too."""
    data = trees.write_speech(tmp_path, actors=())
    with pytest.raises(CalibrationError, match="no card beside it says how"):
        read_examples(data, (40, 1), count=5)
    features = {"kind": "mfcc_mean", "mean": [0.0] * 40, "std": [1.0] * 40}
    with pytest.raises(EdgeError, match="match them"):
        read_examples(data, (39, 1), count=5, features=features)


def test_inputs_come_from_an_npy_file(tmp_path: Path) -> None:
    """Rows of a file are inputs as they are, as many as asked for, for a model of any features."""
    x = np.random.default_rng(0).normal(0, 1, (9, 12, 3))
    np.save(tmp_path / "x.npy", x)
    examples = read_examples(tmp_path / "x.npy", (12, 3), count=5)
    assert examples.dtype == np.float32
    assert len(examples) == 5
    assert all(np.isclose(x, example).all(axis=(1, 2)).any() for example in examples)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (np.ones((5, 12, 4), np.float32), r"its shape is \(5, 12, 4\), the model reads \('n', 12, 3\)"),
        (np.full((5, 12, 3), np.nan, np.float32), "values that are not numbers"),
        (np.ones((5, 12, 3), np.float32), "without any difference"),
        (np.zeros((0, 12, 3), np.float32), r"0 example\(s\)"),
        (np.arange(36, dtype=np.float32).reshape(1, 12, 3), r"1 example\(s\)"),
        (np.full((5, 12, 3), "a"), "values that are not numbers"),
        (None, "not an .npy file that can be read"),
    ],
    ids=["shape", "nan", "constants", "none", "one", "text", "broken"],
)
def test_poor_inputs_are_refused(content: np.ndarray | None, sentence: str, tmp_path: Path) -> None:
    """Each says what is wrong with the file and what to do."""
    path = tmp_path / "x.npy"
    path.write_bytes(b"no array") if content is None else np.save(path, content)
    with pytest.raises(CalibrationError, match=sentence):
        read_examples(path, (12, 3), count=10)
