"""Model cards: what an artifact reads and returns, where it comes from, and how good it is."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edge.errors import DeviceError, ModelError
from edge.inference.features import Features, Spec
from edge.inference.tensors import Model
from edge.values import LABELS, Float32

Task = Literal["face", "voice", "video", "visual", "multimodal", "eyes", "mouth"]
# The outputs of each kind of model, in this order.
TASK_LABELS: dict[Task, tuple[str, ...]] = {
    "face": LABELS,
    "voice": LABELS,
    "video": LABELS,
    "visual": LABELS,
    "multimodal": LABELS,
    "eyes": ("closed", "open", "hidden"),
    "mouth": ("still", "yawning"),
}
# The configuration key that chooses the model of each task.
TASK_KEYS: dict[Task, str] = {
    "face": "models.face",
    "voice": "models.voice",
    "video": "models.video",
    "visual": "fusion.visual",
    "multimodal": "models.fusion",
    "eyes": "models.eyes",
    "mouth": "models.mouth",
}
S = TypeVar("S", bound=Spec)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Part):
    """The tensor of the int8 variant: shape, dtype, scale and zero point."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


class Input(Tensor):
    """The input tensor, the range of its floats, and the features that it holds."""

    range: tuple[float, float]
    features: Features


class File(_Part):
    """One variant of the model."""

    file: str
    sha256: str
    bytes: int


class Source(_Part):
    """One data set that the model was trained on, and its licence."""

    name: str
    use: str
    licence: str


class Golden(_Part):
    """A synthetic input (base64 of float32, little endian) and the output of each variant for it."""

    input: str
    output: dict[str, list[float]]
    tolerance: float


class Card(_Part):
    """The description of one model, stored beside its files as `NAME.json`."""

    name: str
    version: str
    task: Task
    labels: tuple[str, ...]
    input: Input
    output: Tensor
    embedding: Tensor | None = None  # (1, n), the second output, where there is one
    temperature: float
    files: dict[str, File]
    data: list[Source]
    held_out: tuple[str, ...] = ()  # people outside the training data, such as `tess:YAF`
    metrics: dict[str, dict[str, dict[str, Any]]]
    golden: Golden

    def identity(self, variant: str) -> str:
        """Return `name@sha256[:12]`, the model's name in events."""
        return f"{self.name}@{self.files[variant].sha256[:12]}"

    def spec(self, kind: type[S]) -> S:
        """Return the features of the input; raise `ModelError` where they are of another kind."""
        features = self.input.features
        if isinstance(features, kind):
            return features
        raise ModelError(
            f"{self.name}: input.features.kind {features.kind!r}: not read here; "
            f"choose another {TASK_KEYS[self.task]}"
        )


def artifacts_directory() -> Path:
    """Return the directory of the artifacts that are shipped in the package."""
    return Path(str(resources.files("models"))) / "artifacts"


def load_card(name: str, *, directory: Path | None = None) -> Card:
    """Read `NAME.json`; raise `ModelError` when it is missing, malformed or has other labels."""
    path = (directory or artifacts_directory()) / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        card = Card.model_validate(content)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model card; `emotion-models list` shows the models") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: not a model card ({error}); convert the model again") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {_describe(error, content)}") from None
    if card.labels != (wanted := TASK_LABELS[card.task]):
        raise ModelError(
            f"{path}: labels are {', '.join(card.labels)}; this package needs {', '.join(wanted)}"
        )
    return card


def _describe(error: ValidationError, content: Any) -> str:
    """Return the first fault of a card and its remedy."""
    first = error.errors()[0]
    if first["type"] == "union_tag_invalid":
        key = TASK_KEYS.get(content.get("task"), "model")
        kind = content["input"]["features"]["kind"]
        return f"input.features.kind {kind!r}: unknown features; update emotion-edge or choose another {key}"
    location = ".".join(str(part) for part in first["loc"])
    return f"{location}: {first['msg'].lower()}; convert the model again"


def golden_input(card: Card) -> Float32:
    """Return the golden input in the model's shape."""
    raw = np.frombuffer(base64.b64decode(card.golden.input), dtype="<f4")
    try:
        return raw.reshape(card.input.shape).astype(np.float32)
    except ValueError:
        raise ModelError(
            f"{card.name}: golden input has {raw.size} numbers for shape {card.input.shape}; convert it again"
        ) from None


def check_golden(card: Card, model: Model, variant: str) -> float:
    """Run the golden input and return the largest difference from the output in the card.

    When it exceeds the card's tolerance, raise `ModelError` on the CPU and `DeviceError` on an accelerator.
    """
    expected = card.golden.output.get(variant)
    if expected is None:
        raise ModelError(f"{card.name}: no golden output for {variant}; convert it again")
    p = model.run(golden_input(card))[0]
    difference = float(np.abs(p[0] - np.asarray(expected, np.float32)).max())
    if not difference <= card.golden.tolerance:
        message = (
            f"{card.name} ({variant}) on {model.backend}: golden vector differs by {difference:.3f}, "
            f"{card.golden.tolerance} is allowed"
        )
        if model.backend == "cpu":
            raise ModelError(f"{message}; convert the model again")
        raise DeviceError(f"{message}; use cpu", reason="op_unsupported")
    return difference
