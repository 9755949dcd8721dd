"""Opens a model and checks it against its card; floats in, probabilities out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from edge.errors import DeviceError, ModelError
from edge.inference.backend_selection import Trial, select_backend
from edge.inference.backends import candidate_backends, check_backend, load_model, time_model
from edge.inference.card import (
    TASK_KEYS,
    Card,
    Task,
    Tensor,
    artifacts_directory,
    check_golden,
    load_card,
)
from edge.inference.engines import open_here
from edge.inference.tensors import Model, TensorInfo
from edge.inference.weights import sha256
from edge.values import Float32

# The variants that a backend can run, best first; all other backends run int8.
VARIANTS = {"edgetpu": ("edgetpu",), "gpu": ("float16", "float32")}


class TfliteClassifier:
    """A checked model with its temperature: features in, `p` (labels,) out.

    `trials` are the backends that `auto` tried before it selected this one. `embedding` (n,) float32 is the
    embedding of the last input; None before the first one, and where the card has no embedding.
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
        if features.size != math.prod(self._shape):
            raise ModelError(
                f"{self.name}: features have {features.size} numbers for a model of shape {self._shape}; "
                f"choose another {TASK_KEYS[self.card.task]}"
            )
        p, *more = self._model.run(features.reshape(self._shape))  # (1, 48, 48, 1) or (1, 40, 1)
        self.embedding = more[0][0] if more else None  # (1, 192) -> (192,)
        return soften(p[0], self.card.temperature)


def soften(p: Float32, temperature: float) -> Float32:
    """Divide log-probabilities by `temperature` and normalise (Guo et al. 2017), (labels,) float32.

    An int8 softmax returns exactly 0 below its step of 1/256; half a step replaces it.
    """
    logits = np.log(np.maximum(p, 1 / 512)) / temperature
    e = np.exp(logits - logits.max())
    return np.asarray(e / e.sum(), np.float32)


def open_classifier(
    name: str,
    *,
    task: Task,
    directory: Path | None = None,
    variant: str | None = None,
    backend: str = "cpu",
    threads: int = 1,
) -> TfliteClassifier:
    """Open `name` on `backend` after checking task, hash, shapes and golden vector.

    `auto` selects the fastest backend of this device that passes these checks. Without a `variant`, the best
    one for the backend is used. Raises `ModelError` for a fault of the model, `DeviceError` for one of the
    backend.
    """
    directory = directory or artifacts_directory()
    card = load_card(name, directory=directory)
    if card.task != task:
        raise ModelError(f"{TASK_KEYS[task]} {name}: is a {card.task} model; choose a {task} model")
    if backend != "auto":
        variant = variant or _variant_for(card, backend)
        path = _checked_path(card, directory, variant)
        model = load_model(path, backend=backend, threads=threads)
        return _checked(card, model, path, variant)

    def path_for(candidate: str) -> tuple[Path, str]:
        chosen = variant or _variant_for(card, candidate)
        return _checked_path(card, directory, chosen), chosen

    def time_on(candidate: str) -> float:
        return time_model(path_for(candidate)[0], backend=candidate, threads=threads)

    def open_on(candidate: str) -> TfliteClassifier:
        path, chosen = path_for(candidate)
        return _checked(card, open_here(path, candidate, threads=threads), path, chosen)

    classifier, trials = select_backend(candidate_backends(), time_on, open_on, name)
    classifier.trials = trials
    return classifier


def _variant_for(card: Card, backend: str) -> str:
    check_backend(backend)
    variants = VARIANTS.get(backend, ("int8",))
    for variant in variants:
        if variant in card.files:
            return variant
    if backend in VARIANTS:
        raise DeviceError(
            f"inference.backend {backend}: {card.name} has no {' or '.join(variants)} variant; "
            "convert the model to that, or use cpu",
            reason="op_unsupported",
        )
    return variants[0]


def _checked_path(card: Card, directory: Path, variant: str) -> Path:
    """Return the path of one file of the card; its SHA-256 is that of the card."""
    file = card.files.get(variant)
    if file is None:
        raise ModelError(f"{card.name}: has no {variant} variant, only {', '.join(card.files)}; convert it")
    path = directory / file.file
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; reinstall emotion-edge or convert the model again")
    if (found := sha256(path)) != file.sha256:
        raise ModelError(
            f"{path}: SHA-256 is {found[:12]}..., in the card {file.sha256[:12]}...; restore the file"
        )
    return path


def _checked(card: Card, model: Model, path: Path, variant: str) -> TfliteClassifier:
    """Return a classifier once the tensors and the golden output are those of the card."""
    _check_tensors(card, model, path, variant)
    check_golden(card, model, variant)
    return TfliteClassifier(card, model, variant)


def _check_tensors(card: Card, model: Model, path: Path, variant: str) -> None:
    shapes = [info.shape for info in (*model.inputs, *model.outputs)]
    tensors = [card.input, card.output, *([] if card.embedding is None else [card.embedding])]
    if shapes != [tensor.shape for tensor in tensors] or card.output.shape != (1, len(card.labels)):
        outputs = ", ".join(str(tensor.shape) for tensor in tensors[1:])
        raise ModelError(
            f"{path}: tensors are {shapes}, in the card {card.input.shape} -> {outputs}; "
            "convert the model again"
        )
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
        in_file = f"{info.dtype.name}, scale {info.scale:.6g}, zero point {info.zero_point}"
        in_card = f"{tensor.dtype}, scale {tensor.scale:.6g}, zero point {tensor.zero_point}"
        raise ModelError(f"{path}: quantized as {in_file}; in the card {in_card}; convert the model again")
