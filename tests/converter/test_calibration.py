"""Calibration reads examples as the device does, and refuses examples that give no range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter.calibration import CalibrationError, read_examples
from edge.errors import EdgeError
from edge.inference.features import PooledMfccSpec
from tests.helpers import trees


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of made faces to calibrate with."""
    return trees.write_fer2013(tmp_path_factory.mktemp("images"))


def test_calibration_reads_faces_as_the_device_does(images: Path) -> None:
    """Images become (n, 48, 48, 1) in [0, 1], drawn from the whole tree, equal at every call."""
    examples = read_examples(images, (48, 48, 1), count=20)
    assert examples.shape == (20, 48, 48, 1)
    assert examples.dtype == np.float32
    assert 0 <= examples.min() < 0.2
    assert 0.8 < examples.max() <= 1
    np.testing.assert_array_equal(examples, read_examples(images, (48, 48, 1), count=20))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nothing", "contains no image"),
        ("one", "1 example"),
        ("constant", "all equal"),
        ("broken", "none of 2 files"),
        ("no directory", "no such directory"),
    ],
)
def test_poor_calibration_is_refused(content: str, message: str, tmp_path: Path) -> None:
    """Zero, one, constant or unreadable examples raise an error that names the directory."""
    import cv2

    directory = tmp_path / "cal"
    if content != "no directory":
        directory.mkdir()
    for number in range({"one": 1, "constant": 3, "broken": 2}.get(content, 0)):
        path = directory / f"{number}.png"
        if content == "broken":
            path.write_bytes(b"not an image")
        else:
            cv2.imwrite(str(path), trees.face(1) if content == "one" else np.full((48, 48), 7, np.uint8))
    with pytest.raises(CalibrationError, match=message) as caught:
        read_examples(directory, (48, 48, 1), count=10)
    assert "cal" in str(caught.value)


def test_audio_needs_the_features_of_a_card(tmp_path: Path) -> None:
    """Audio without features is refused, and so are features of another size than the input."""
    data = trees.write_speech(tmp_path, actors=())
    with pytest.raises(CalibrationError, match="has no card with its features"):
        read_examples(data, (40, 1), count=5)
    features = PooledMfccSpec(mean=(0.0,) * 40, std=(1.0,) * 40, window_s=3.0)
    with pytest.raises(EdgeError, match="match them"):
        read_examples(data, (39, 1), count=5, features=features)


def test_inputs_come_from_an_npy_file(tmp_path: Path) -> None:
    """Rows of an .npy file are used unchanged, as many as requested, whatever the features of the model."""
    x = np.random.default_rng(0).normal(0, 1, (9, 12, 3))
    np.save(tmp_path / "x.npy", x)
    examples = read_examples(tmp_path / "x.npy", (12, 3), count=5)
    assert examples.dtype == np.float32
    assert len(examples) == 5
    assert all(np.isclose(x, example).all(axis=(1, 2)).any() for example in examples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((5, 12, 4), np.float32), r"shape \(5, 12, 4\), but the model reads \('n', 12, 3\)"),
        (np.full((5, 12, 3), np.nan, np.float32), "values that are not finite numbers"),
        (np.ones((5, 12, 3), np.float32), "all equal"),
        (np.zeros((0, 12, 3), np.float32), r"0 example\(s\)"),
        (np.arange(36, dtype=np.float32).reshape(1, 12, 3), r"1 example\(s\)"),
        (np.full((5, 12, 3), "a"), "values that are not finite numbers"),
        (None, "not a readable .npy file"),
    ],
    ids=["shape", "nan", "constants", "none", "one", "text", "broken"],
)
def test_poor_inputs_are_refused(content: np.ndarray | None, message: str, tmp_path: Path) -> None:
    """Every error names what is wrong with the file and what to do."""
    path = tmp_path / "x.npy"
    path.write_bytes(b"no array") if content is None else np.save(path, content)
    with pytest.raises(CalibrationError, match=message):
        read_examples(path, (12, 3), count=10)
