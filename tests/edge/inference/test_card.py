"""A card is read into typed features and saved as it was; a damaged one is refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.errors import ModelError
from edge.inference.card import artifacts_directory, load_card
from edge.inference.features import CropSpec, EyeSpec, FrameSpec
from models.cards import save_card

CARDS = sorted(artifacts_directory().rglob("*.json"))


def write_card(path: Path, name: str = "report-face", **features: Any) -> None:
    """Write a shipped card whose features have these keys too."""
    card = json.loads((artifacts_directory() / f"{name}.json").read_text(encoding="utf-8"))
    card["input"]["features"] |= features
    path.write_text(json.dumps(card), encoding="utf-8")


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_saved_features_are_those_that_were_read(path: Path, tmp_path: Path) -> None:
    """The input of every shipped card is written with the same keys, order and numbers."""
    saved = save_card(load_card(path.stem, directory=path.parent), tmp_path)
    written, shipped = (json.loads(file.read_text(encoding="utf-8"))["input"] for file in (saved, path))
    assert json.dumps(written) == json.dumps(shipped)


def test_features_are_typed() -> None:
    """The kind decides the class, and a card without `levelled` has crops that are not levelled."""
    assert load_card("report-face").spec(CropSpec).levelled is False
    assert load_card("face-cnn").spec(CropSpec).levelled is True
    assert load_card("voice-lstm").spec(FrameSpec).window_s == 3.0


def test_other_kind_is_refused() -> None:
    """Code that reads eyes refuses a card of faces, with the key to change."""
    with pytest.raises(ModelError, match=r"face-cnn: input\.features\.kind 'face_crop': .* models\.face"):
        load_card("face-cnn").spec(EyeSpec)


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    """The error for a card of a later release has a remedy."""
    write_card(tmp_path / "later.json", kind="face_mesh")
    remedy = r"'face_mesh': unknown features; update emotion-edge or choose another models\.face"
    with pytest.raises(ModelError, match=remedy):
        load_card("later", directory=tmp_path)


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        ({"size": "large"}, r"input\.features\.face_crop\.size: input should be a valid integer"),
        ({"colour": True}, r"input\.features\.face_crop\.colour: extra inputs are not permitted"),
    ],
)
def test_wrong_parameter_is_refused(features: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """A wrong value and an unknown key are named."""
    write_card(tmp_path / "own.json", **features)
    with pytest.raises(ModelError, match=sentence):
        load_card("own", directory=tmp_path)
