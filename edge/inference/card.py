"""Model cards: what an artifact reads and returns, where it comes from, and how good it is."""

from __future__ import annotations

import base64
import json
import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import DeviceError, ModelError
from edge.inference.features import Features, Name, Spec
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


MAX_CARD_BYTES = 16 << 20
MAX_SHOWN = 200  # characters of a library's message and of a card's texts in an error
Length = Annotated[int, Field(ge=1, le=1 << 20)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tensor(_Part):
    """The tensor of the int8 variant: shape, dtype, scale and zero point."""

    shape: Annotated[tuple[Length, ...], Field(min_length=1, max_length=6)]
    dtype: str
    scale: Annotated[float, Field(ge=0)]
    zero_point: Annotated[int, Field(ge=-(2**31), lt=2**31)]


class Input(Tensor):
    """The input tensor, the range of its floats, and the features that it holds."""

    range: tuple[float, float]
    features: Features

    @model_validator(mode="after")
    def _features_fit(self) -> Input:
        if not self.features.fits(self.shape):
            raise ValueError(f"features {self.features.kind} do not fill the shape {self.shape}")
        return self


class File(_Part):
    """One variant of the model."""

    file: Name  # beside the card
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Source(_Part):
    """One data set that the model was trained on, and its licence."""

    name: str
    use: str
    licence: str


class Golden(_Part):
    """A synthetic input (base64 of float32, little endian) and the output of each variant for it."""

    input: str
    output: dict[str, list[float]]
    tolerance: Annotated[float, Field(ge=0, le=0.5)]


class Card(_Part):
    """The description of one model, stored beside its files as `NAME.json`."""

    name: Name
    version: Annotated[str, Field(max_length=64)]
    task: Task
    labels: tuple[str, ...]
    input: Input
    output: Tensor
    embedding: Tensor | None = None  # (1, n), the second output, where there is one
    temperature: Annotated[float, Field(ge=0.01, le=100)]
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
    content = _read_json(path)
    try:
        card = Card.model_validate(content)
    except ValidationError as error:
        raise ModelError(f"{path}: {_describe(error, content)}") from None
    if card.labels != (wanted := TASK_LABELS[card.task]):
        raise ModelError(
            f"{path}: labels are {_short(', '.join(card.labels))}; this package needs {', '.join(wanted)}"
        )
    return card


def _read_json(path: Path) -> Any:
    """Return the content of a card; raise `ModelError` for a file that is not JSON."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CARD_BYTES + 1)
        if len(content) > MAX_CARD_BYTES:
            raise ValueError(f"larger than {MAX_CARD_BYTES} bytes")
        return json.loads(content)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model card; `emotion-models list` shows the models") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, endless numbers
        raise ModelError(
            f"{path}: not a model card ({_short(str(error))}); convert the model again"
        ) from None


def _describe(error: ValidationError, content: Any) -> str:
    """Return the first fault of a card and its remedy."""
    first = error.errors()[0]
    if first["type"] == "union_tag_invalid":
        key = next((key for task, key in TASK_KEYS.items() if task == content.get("task")), "model")
        kind = _short(str(content["input"]["features"]["kind"]))
        return f"input.features.kind {kind!r}: unknown features; update emotion-edge or choose another {key}"
    location = _short(".".join(str(part) for part in first["loc"]))
    return f"{location}: {_short(first['msg'].lower())}; convert the model again"


def _short(text: str) -> str:
    """Return a text of a card or about it in printable characters, cut to `MAX_SHOWN`."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:MAX_SHOWN])
    return text if len(text) < MAX_SHOWN else f"{text}..."


def golden_input(card: Card) -> Float32:
    """Return the golden input in the model's shape."""
    try:
        raw = np.frombuffer(base64.b64decode(card.golden.input, validate=True), dtype="<f4")
    except ValueError as error:
        raise ModelError(
            f"{card.name}: golden input is not base64 of float32 ({error}); convert it again"
        ) from None
    if raw.size != math.prod(card.input.shape) or not np.isfinite(raw).all():
        raise ModelError(
            f"{card.name}: golden input has {raw.size} numbers, or one that is not finite, for shape "
            f"{card.input.shape}; convert it again"
        )
    return raw.reshape(card.input.shape).astype(np.float32)


def check_golden(card: Card, model: Model, variant: str) -> float:
    """Run the golden input and return the largest difference from the output in the card.

    When it exceeds the card's tolerance, raise `ModelError` on the CPU and `DeviceError` on an accelerator.
    """
    expected = card.golden.output.get(variant)
    if expected is None:
        raise ModelError(f"{card.name}: no golden output for {variant}; convert it again")
    if len(expected) != len(card.labels):
        raise ModelError(
            f"{card.name}: golden output for {variant} has {len(expected)} numbers for {len(card.labels)} "
            "labels; convert it again"
        )
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
