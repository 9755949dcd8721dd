"""Measures the cost of a conversion: size, operations, noise per layer, accuracy, and speed per backend."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.cards import card_name, find_card, variant_for, variants_beside
from converter.comparison import FLOATS, difference, latency_ms, predict, unavailable
from converter.graph import Tensor, read_graph
from converter.jobs import Job, convert
from converter.labelled_set import LabelledSet, read_inputs, read_labelled_set
from converter.layer_noise import layer_noise
from edge.errors import DeviceError, ModelError
from edge.inference.backends import BACKENDS, load_model
from edge.inference.card import Card
from edge.values import Float32
from models.cards import made_input

MADE_INPUTS = 32
OTHER = "other"  # the variant of a file whose variant neither a card nor its name gives


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs to measure on: `examples`, a labelled set `data` of LABEL/FILE, or generated inputs."""

    examples: Path | None = None
    data: Path | None = None
    labels: tuple[str, ...] = ()
    count: int = 100


def report(target: Path, given: Inputs, *, progress: Callable[[str], None]) -> dict[str, Any]:
    """Compare `target` with its float variant: a file in its directory, or one made from the .keras there.

    Returns `{"file", "model", "variant", "bytes", "operations", "inputs", "reference", "difference",
    "layers", "layers_unmatched", "labelled", "latency"}`; keys that need a float variant are null without
    one, `labelled` is null without a labelled set. Raises `ModelError` for a bad file, `CalibrationError` and
    `DataError` for unusable examples.
    """
    graph = read_graph(target)
    if len(graph.inputs) != 1 or not 1 <= len(graph.outputs) <= 2:
        raise ModelError(
            f"{target}: {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; supported are one "
            "input, and one output with at most one embedding"
        )
    if graph.inputs[0].is_dynamic:
        raise ModelError(
            f"{target}: input shape {graph.inputs[0].shape} is not fixed; give every dimension a size"
        )
    card = find_card(target, target)
    files = variants_beside(target, card)
    variant = next((kind for kind, path in files.items() if path.name == target.name), OTHER)
    files[variant] = target
    model = load_model(target)
    progress("reading examples")
    labelled = read_labelled_set(given.data, given.labels, graph, card) if given.data else None
    inputs, source = _inputs(graph.inputs[0], card, given, labelled)
    counts = Counter(operation.name for operation in graph.operations)
    result: dict[str, Any] = {
        "file": str(target),
        "model": card.name if card else None,
        "variant": variant,
        "bytes": target.stat().st_size,
        "operations": [{"operation": name, "count": count} for name, count in counts.most_common()],
        "inputs": {"source": source, "n": len(inputs)},
        "reference": None,
        "difference": None,
        "layers": None,
        "layers_unmatched": None,
        "labelled": labelled
        and {"n": len(labelled.labels), "model": labelled.evaluate(model), "reference": None},
        "latency": [],
    }
    with _reference(target, variant, files, progress) as reference:
        if reference is not None:
            progress("running both files")
            exact = load_model(reference)
            result["reference"] = {"file": reference.name, "bytes": reference.stat().st_size}
            result["difference"] = difference(predict(model, inputs), predict(exact, inputs))
            result["layers"], result["layers_unmatched"] = layer_noise(target, reference, inputs)
            if labelled:
                result["labelled"]["reference"] = labelled.evaluate(exact)
            result["latency"].append(_latency("cpu", reference, inputs[0]))
    progress("timing the backends")
    result["latency"] += [
        _latency(backend, files[variant_for(backend, variant, files)], inputs[0]) for backend in BACKENDS
    ]
    return result


def _inputs(
    tensor: Tensor, card: Card | None, given: Inputs, labelled: LabelledSet | None
) -> tuple[list[Float32], str]:
    """Return inputs in the shape of the model, and their source."""
    if given.examples:
        return read_inputs(given.examples, tensor, card, given.count), str(given.examples)
    if labelled:
        # Every n-th, so that every label is included.
        return labelled.inputs[:: -(-len(labelled.inputs) // given.count)], str(given.data)
    value_range = card.input.range if card else _range(tensor)
    return [made_input(tensor.shape, value_range, seed=seed) for seed in range(MADE_INPUTS)], "made"


def _range(tensor: Tensor) -> tuple[float, float]:
    """Return the range of an integer input; [0, 1], that of images, for a float input without a card."""
    if not tensor.scale:
        return 0.0, 1.0
    limits = np.iinfo(tensor.dtype)
    low, high = ((limit - tensor.zero_point) * tensor.scale for limit in (limits.min, limits.max))
    return float(low), float(high)


@contextmanager
def _reference(
    target: Path, variant: str, files: dict[str, Path], progress: Callable[[str], None]
) -> Iterator[Path | None]:
    """Yield the float file to compare with; one that is made from the .keras is deleted afterwards."""
    beside = next((files[kind] for kind in FLOATS if kind in files and kind != variant), None)
    source = target.with_name(f"{card_name(target)}.keras")
    if beside is not None or variant in FLOATS or not source.is_file():
        yield beside
        return
    with tempfile.TemporaryDirectory(prefix="emotion-edge-") as scratch:
        made = Path(scratch) / f"{source.stem}.float32.tflite"
        progress(f"converting {source.name} to float32")
        convert(Job(source, made, "float32"), report=lambda _stage: None)
        yield made


def _latency(backend: str, path: Path, values: Float32) -> dict[str, Any]:
    try:
        model = load_model(path, backend=backend)
        ms = latency_ms(model, values)
    except DeviceError as error:
        return unavailable(backend, error)
    return {"backend": backend, "present": True, "file": path.name, "ms": ms}
