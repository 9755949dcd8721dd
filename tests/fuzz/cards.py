"""Fuzz target: model cards and model files, opened as every command opens them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from edge.errors import ModelError
from edge.inference.card import artifacts_directory
from edge.inference.classifier import open_classifier
from tests.fuzz.damage import damage
from tests.fuzz.target import Target, Verdict

MODELS = ("face-cnn", "voice-lstm", "eye-state", "mouth-state", "multimodal")
VALUES: list[object] = [
    *(0, -1, 1, 0.5, 1e308, float("nan"), float("inf"), 2**70, True, None, "", ".", "../x", "/etc/passwd"),
    *("a\0b", "x" * 300, [], {}, [0], [-1, 48], [1] * 99, [[float("nan")]], {"kind": "face_crop"}, "\x1b[2J"),
]
SEPARATOR = b"\0MODEL\0"  # a card has no NUL, except where it was damaged


@cache
def _shipped(name: str) -> tuple[bytes, bytes]:
    """Return the card of a shipped model, and its int8 file."""
    card = (artifacts_directory() / f"{name}.json").read_bytes()
    return card, (artifacts_directory() / json.loads(card)["files"]["int8"]["file"]).read_bytes()


def generate(random: Random) -> bytes:
    """Return a damaged card with its model, or a card with a damaged model."""
    card, model = _shipped(random.choice(MODELS))
    match random.randrange(4):
        case 0:
            card = damage(card, random)
        case 1:
            model = damage(model, random)
        case _:
            content = json.loads(card)
            for _ in range(random.choice((1, 1, 2))):
                _replace_one(content, random)
            card = json.dumps(content).encode()
    return card + SEPARATOR + model


def _replace_one(content: dict[str, Any], random: Random) -> None:
    """Replace or delete one value somewhere in the card."""
    place: Any = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and random.random() < 0.7:
            place = place[key]
        elif random.random() < 0.15:
            del place[key]
            return
        else:
            place[key] = deepcopy(random.choice(VALUES))  # a second replacement may be inside it
            return


class Opener:
    """Opens the card `own` of a directory."""

    def __init__(self, directory: Path) -> None:
        self.pid = os.getpid()
        self._directory = directory

    def run(self, data: bytes) -> Verdict:
        card, _, model = data.rpartition(SEPARATOR)
        (self._directory / "own.json").write_bytes(card)
        for name in MODELS:
            original, shipped = _shipped(name)
            target = self._directory / json.loads(original)["files"]["int8"]["file"]
            target.write_bytes(model if shipped[:64] == model[:64] else shipped)
        try:
            open_classifier("own", task=_task(card), directory=self._directory)
        except ModelError as error:
            refusal = error
        else:
            return Verdict(True, "")
        text = str(refusal)
        assert refusal.exit_code == 4
        assert text.isprintable(), ascii(text)
        assert len(text) < 700, f"{len(text)} characters"
        return Verdict(False, text)


def _task(card: bytes) -> Any:
    """Return the task that the card names, as a configuration for it would."""
    for name in MODELS:
        task = json.loads(_shipped(name)[0])["task"]
        if f'"task": "{task}"'.encode() in card:
            return task
    return "face"


@contextmanager
def opened(directory: Path) -> Iterator[Opener]:
    yield Opener(directory)


TARGET = Target("cards", generate, opened)
