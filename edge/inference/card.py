"""Model cards: what an artifact is, and the checks it must pass before anything believes it."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from edge.errors import DeviceError, ModelError
from edge.inference.backend_selection import Trial, choose
from edge.inference.backends import (
    Model,
    TensorInfo,
    candidate_backends,
    check_backend,
    load_model,
    open_here,
    time_model,
)
from edge.inference.weights import sha256
from edge.values import LABELS, Float32

# What each kind of model says, in this order.
TASK_LABELS: dict[str, tuple[str, ...]] = {
    "face": LABELS,
    "voice": LABELS,
    "video": LABELS,
    "visual": LABELS,
    "multimodal": LABELS,
    "eyes": ("closed", "open", "hidden"),
    "mouth": ("still", "yawning"),
}
Task = Literal["face", "voice", "video", "visual", "multimodal", "eyes", "mouth"]
# The variants that a backend can run, the better first; all others take int8.
VARIANTS = {"edgetpu": ("edgetpu",), "gpu": ("float16", "float32")}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tensor(_Part):
    """The tensor of the int8 variant: shape, dtype, scale and zero point."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


class Input(Tensor):
    """The input, with the range of its floats and the features that fill it."""

    range: tuple[float, float]
    features: dict[str, Any]


class File(_Part):
    """One variant of the model."""

    file: str
    sha256: str
    bytes: int


class Source(_Part):
    """One data set that was trained on, and its owner's terms."""

    name: str
    use: str
    licence: str


class Golden(_Part):
    """An input made for the purpose (base64 of float32, little endian) and what each variant says to it."""

    input: str
    output: dict[str, list[float]]
    tolerance: float


class Card(_Part):
    """Everything that is known of one artifact; lies beside it as `NAME.json`."""

    name: str
    version: str
    task: Task
    labels: tuple[str, ...]
    input: Input
    output: Tensor
    embedding: Tensor | None = None  # (1, n), the second output of a model that gives it
    temperature: float
    files: dict[str, File]
    data: list[Source]
    held_out: tuple[str, ...] = ()  # people whom this very file never saw or heard, such as `tess:YAF`
    metrics: dict[str, dict[str, dict[str, Any]]]
    golden: Golden

    def identity(self, variant: str) -> str:
        """Return `name@sha256[:12]`, as events name the model."""
        return f"{self.name}@{self.files[variant].sha256[:12]}"


class TfliteClassifier:
    """A checked model with its temperature: features in, `p` (labels,) out.

    `trials` is what the backend `auto` tried before it took this one. `embedding` (n,) float32 is what the
    last answer was drawn from; None before the first one, and of a model whose card has no embedding.
    """

    def __init__(self, card: Card, model: Model, variant: str) -> None:
        self.card = card
        self.trials: tuple[Trial, ...] = ()
        self.name = card.identity(variant)
        self.backend = model.backend
        self._model = model
        self._shape = model.inputs[0].shape
        self.embedding: Float32 | None = None

    def classify(self, features: Float32) -> Float32:
        """Return softmax(log p / temperature) (labels,) float32 for features of the model's input size."""
        p, *more = self._model.run(features.reshape(self._shape))  # (1, 48, 48, 1) or (1, 40, 1)
        self.embedding = more[0][0] if more else None  # (1, 192) -> (192,)
        return soften(p[0], self.card.temperature)


def soften(p: Float32, temperature: float) -> Float32:
    """Divide log-probabilities by `temperature` and normalise (Guo et al. 2017), (labels,) float32.

    An int8 softmax says exactly 0 below its step of 1/256, so half a step stands in for that.
    """
    logits = np.log(np.maximum(p, 1 / 512)) / temperature
    e = np.exp(logits - logits.max())
    return np.asarray(e / e.sum(), np.float32)


def artifacts_directory() -> Path:
    """Return the artifacts that came with the package."""
    return Path(str(resources.files("models"))) / "artifacts"


def load_card(name: str, *, directory: Path | None = None) -> Card:
    """Read `NAME.json`; raise `ModelError` when it is missing, malformed or has other labels."""
    path = (directory or artifacts_directory()) / f"{name}.json"
    try:
        card = Card.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model card; `emotion-models list` shows what is there") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{path}: not a model card ({error}); convert the model again") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path}: {key}: {first['msg'].lower()}; convert the model again") from None
    if card.labels != (wanted := TASK_LABELS[card.task]):
        raise ModelError(
            f"{path}: labels are {', '.join(card.labels)}; this package needs {', '.join(wanted)}"
        )
    return card


def open_classifier(
    name: str,
    *,
    task: str,
    directory: Path | None = None,
    variant: str | None = None,
    backend: str = "cpu",
    threads: int = 1,
) -> TfliteClassifier:
    """Open `name` on `backend` after checking task, hash, shapes and golden vector.

    `auto` takes the fastest of the backends that this device has and that pass these checks. Without a
    `variant` it is the one that suits the backend. Raises `ModelError` for the model and `DeviceError`
    for the backend.
    """
    directory = directory or artifacts_directory()
    card = load_card(name, directory=directory)
    if card.task != task:
        raise ModelError(f"models.{task} {name}: is a {card.task} model; choose a {task} model")
    if backend != "auto":
        variant = variant or _variant_for(card, backend)
        path = _checked_path(card, directory, variant)
        model = load_model(path, backend=backend, threads=threads)
        return _checked(card, model, path, variant)

    def path_for(candidate: str) -> tuple[Path, str]:
        suited = variant or _variant_for(card, candidate)
        return _checked_path(card, directory, suited), suited

    def time_on(candidate: str) -> float:
        return time_model(path_for(candidate)[0], backend=candidate, threads=threads)

    def open_on(candidate: str) -> TfliteClassifier:
        path, suited = path_for(candidate)
        return _checked(card, open_here(path, candidate, threads=threads), path, suited)

    classifier, trials = choose(candidate_backends(), time_on, open_on, name)
    classifier.trials = trials
    return classifier


def _variant_for(card: Card, backend: str) -> str:
    check_backend(backend)
    suited = VARIANTS.get(backend, ("int8",))
    for variant in suited:
        if variant in card.files:
            return variant
    if backend in VARIANTS:
        raise DeviceError(
            f"inference.backend {backend}: {card.name} has no {' or '.join(suited)} variant; "
            "convert the model to that, or use cpu",
            reason="op_unsupported",
        )
    return suited[0]


def _checked_path(card: Card, directory: Path, variant: str) -> Path:
    """Return the path of one file of the card, which is what the card says."""
    file = card.files.get(variant)
    if file is None:
        raise ModelError(f"{card.name}: has no {variant} variant, only {', '.join(card.files)}; convert it")
    path = directory / file.file
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; reinstall emotion-edge or convert the model again")
    if (found := sha256(path)) != file.sha256:
        raise ModelError(
            f"{path}: SHA-256 is {found[:12]}..., the card says {file.sha256[:12]}...; restore the file"
        )
    return path


def _checked(card: Card, model: Model, path: Path, variant: str) -> TfliteClassifier:
    """Return the classifier of an opened file that has the tensors and gives the answer of the card."""
    _check_tensors(card, model, path, variant)
    check_golden(card, model, variant)
    return TfliteClassifier(card, model, variant)


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
    """Run the golden vector and return the largest difference from what the card says.

    Raises `ModelError` when it is over the card's tolerance on the CPU, `DeviceError` on an accelerator.
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


def _check_tensors(card: Card, model: Model, path: Path, variant: str) -> None:
    shapes = [info.shape for info in (*model.inputs, *model.outputs)]
    tensors = [card.input, card.output, *([] if card.embedding is None else [card.embedding])]
    if shapes != [tensor.shape for tensor in tensors] or card.output.shape != (1, len(card.labels)):
        said = ", ".join(str(tensor.shape) for tensor in tensors[1:])
        raise ModelError(f"{path}: tensors are {shapes}, the card says {card.input.shape} -> {said}")
    if variant in ("int8", "edgetpu"):
        for info, tensor in zip((*model.inputs, *model.outputs), tensors, strict=True):
            _check_quantization(info, tensor, path)


def _check_quantization(info: TensorInfo, tensor: Tensor, path: Path) -> None:
    same = (
        info.dtype.name == tensor.dtype
        and np.isclose(info.scale, tensor.scale)
        and info.zero_point == tensor.zero_point
    )
    if not same:
        raise ModelError(f"{path}: quantized as {info}, the card says {tensor}; convert the model again")
