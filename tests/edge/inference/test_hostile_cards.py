"""A hostile or damaged card is refused with one sentence and exit code 4, whatever is wrong with it."""

from __future__ import annotations

import base64
import copy
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.errors import ModelError
from edge.inference.card import Task, artifacts_directory
from edge.inference.classifier import open_classifier

LONGEST = 600  # characters of an error, with the path of the card
NAN, INF = math.nan, math.inf
Change = Callable[[dict[str, Any]], object]


def at(path: str, value: object) -> tuple[str, Change]:
    """Return a name and a change that sets the value at a dotted path."""

    def change(card: dict[str, Any]) -> None:
        *parts, last = path.split(".")
        for part in parts:
            card = card[part]
        card[last] = value

    text = json.dumps(value)
    return f"{path}={text if len(text) < 40 else f'{text[:30]}...{len(text)}'}", change


def without(key: str) -> tuple[str, Change]:
    """Return a name and a change that removes a key."""
    return f"without {key}", lambda card: card.pop(key)


def encoded(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


FILES = ["../x.tflite", "/etc/passwd", "", ".", "..", "a/b.tflite", "a\0b", "x" * 300, "~/x", 5, None]
NUMBERS = [0, -1, NAN, INF, -INF, 1e308, "one", None, [], {}]
FACES: dict[str, Change] = dict(
    [
        *(at("files.int8.file", value) for value in FILES),
        *(at("temperature", value) for value in NUMBERS),
        *(at("golden.tolerance", value) for value in [NAN, INF, -1, 1e9, None]),
        *(
            at("golden.input", value)
            for value in ["", "?", "A", encoded(1.0), encoded(*[NAN] * 2304), 7, None]
        ),
        *(
            at("golden.output.int8", value)
            for value in [[], [1.0], [[1.0]] * 7, [NAN] * 7, [0.1] * 70_000, None]
        ),
        at("golden.output", {}),
        *(at("files.int8.sha256", value) for value in ["", "0" * 64, "x" * 70_000, None]),
        at("files", {}),
        *(at("input.shape", value) for value in [[], [0], [-1, 48, 48, 1], [1, 48], [2**70], [1] * 99, "48"]),
        *(at("input.scale", value) for value in [NAN, -1, 0, INF]),
        *(at("output.zero_point", value) for value in [10**30, 0.5, NAN]),
        *(at("input.range", value) for value in [[], [NAN, 1], [0, INF]]),
        *(at("input.features.size", value) for value in [0, -48, 10**9, 24, 1.5]),
        at("input.features.eyes", [[0.5, 0.4], [0.5, 0.4]]),
        at("input.features.eyes", [[0.7, 0.4], [0.3, 0.4]]),
        at("input.features.eyes", [[NAN, 0.4], [0.7, 0.4]]),
        at("input.features.mouth_y", 0.1),
        at("input.features", []),
        at("input.features", {}),
        at("input.features", {"kind": ["face_crop"]}),
        at("input.features", {"kind": "x" * 70_000}),
        at("task", ["face"]),
        at("task", "eyes"),
        at("name", "../../etc/passwd"),
        at("name", "\x1b[2J"),
        at("labels", ["x" * 70_000]),
        at("labels", []),
        at("embedding", {"shape": [1, 9], "dtype": "int8", "scale": 1, "zero_point": 0}),
        *(at("k" * 1000 + "\x1b", value) for value in [1]),
        *(without(key) for key in ("name", "task", "labels", "input", "files", "golden", "temperature")),
    ]
)
TEXTS = {
    "empty": b"",
    "list": b"[]",
    "text": b'"card"',
    "null": b"null",
    "number of 5000 digits": b'{"temperature": ' + b"9" * 5000 + b"}",
    "nesting": b"[" * 100_000,
    "closed nesting": b"[" * 20_000 + b"]" * 20_000,
    "nested metrics": b'{"metrics": ' + b'{"a": ' * 20_000 + b"1" + b"}" * 20_001,
    "binary": bytes(range(256)),
    "invalid UTF-8": b'{"name": "\xff"}',
    "surrogate": b'{"name": "\\ud800"}',
}


def refused(card: Path, *, task: Task = "face") -> None:
    """Expect one sentence of bounded length, and exit code 4."""
    with pytest.raises(ModelError) as caught:
        open_classifier(card.stem, task=task, directory=card.parent)
    assert caught.value.exit_code == 4
    assert len(str(caught.value)) < LONGEST
    assert str(caught.value).isprintable()


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Any]:
    """Copy a shipped model; return the content of its card."""
    card = json.loads((artifacts_directory() / "face-cnn.json").read_text(encoding="utf-8"))
    shutil.copy(artifacts_directory() / card["files"]["int8"]["file"], tmp_path)
    return dict(copy.deepcopy(card))


@pytest.mark.parametrize("change", FACES.values(), ids=[f"{n}-{name[:60]}" for n, name in enumerate(FACES)])
def test_hostile_card_is_one_sentence(tmp_path: Path, model: dict[str, Any], change: Change) -> None:
    """Every card with one hostile value is refused."""
    change(model)
    (tmp_path / "own.json").write_text(json.dumps(model), encoding="utf-8")
    refused(tmp_path / "own.json")


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS)
def test_file_that_is_no_card_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    """Every content that is no card is refused."""
    (tmp_path / "own.json").write_bytes(content)
    refused(tmp_path / "own.json")


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("voice-lstm", "std", [0.0] * 40),
        ("voice-lstm", "mean", [1.0] * 39),
        ("voice-lstm", "window_s", 0),
        ("voice-lstm", "window_s", 1e9),
        ("report-voice", "std", [NAN] * 40),
        ("video-lstm", "of", "../../etc/passwd"),
        ("video-lstm", "rate_hz", 0),
        ("video-lstm", "steps", 10**9),
        ("eye-state", "width", 0),
        ("mouth-state", "height", 0),
        ("multimodal", "lowest", 0),
        ("multimodal", "order", []),
    ],
)
def test_hostile_features_are_one_sentence(tmp_path: Path, name: str, path: str, value: object) -> None:
    """Features that would divide by zero, take all memory or leave the directory are refused."""
    card = json.loads((artifacts_directory() / f"{name}.json").read_text(encoding="utf-8"))
    card["input"]["features"][path] = value
    (tmp_path / "own.json").write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"input\.features\..*{path}") as caught:
        open_classifier("own", task=card["task"], directory=tmp_path)
    assert len(str(caught.value)) < LONGEST


def test_other_quantization_is_one_short_sentence(tmp_path: Path) -> None:
    """The error has the values that differ, and not all features of the card."""
    card = json.loads((artifacts_directory() / "voice-lstm.json").read_text(encoding="utf-8"))
    shutil.copy(artifacts_directory() / card["files"]["int8"]["file"], tmp_path)
    card["input"]["scale"] = 1.0
    (tmp_path / "own.json").write_text(json.dumps(card), encoding="utf-8")
    refused(tmp_path / "own.json", task="voice")
    with pytest.raises(ModelError, match=r"scale 0\.0313726, .*in the card int8, scale 1, zero point -1; "):
        open_classifier("own", task="voice", directory=tmp_path)


def test_analyze_ends_with_4(tmp_path: Path, model: dict[str, Any]) -> None:
    """The command prints one sentence, and no result."""
    model["temperature"] = NAN
    (tmp_path / "own.json").write_text(json.dumps(model), encoding="utf-8")
    (tmp_path / "c.toml").write_text('models.face = "./own.json"\n')
    image = tmp_path / "grey.png"
    cv2.imwrite(str(image), np.full((64, 64, 3), 90, np.uint8))
    done = subprocess.run(
        [sys.executable, "-m", "edge", "analyze", str(image), "--config", str(tmp_path / "c.toml"), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"emotion-edge: {tmp_path}/own.json: temperature: ")
    assert done.stderr.count("\n") == 1
