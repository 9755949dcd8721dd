"""Tells what a conversion cost: size, operations, noise a layer, accuracy, and speed on each backend."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.calibrate import CalibrationError, read_examples
from converter.compare import (
    FLOATS,
    absent,
    answers,
    card_name,
    difference,
    latency_ms,
    variant_for,
    variants_beside,
)
from converter.graph import Graph, Tensor, read_graph
from converter.layers import layer_noise
from converter.quantize import Job, convert
from converter.verify import find_card
from edge.errors import DeviceError, ModelError
from edge.inference.backends import BACKENDS, Model, load_model
from edge.inference.card import Card
from edge.values import Float32
from models.cards import made_input
from models.data.datasets import DataError, label_of
from models.evaluation.metrics import Labels, predictions, uar

MADE_INPUTS = 32
MOST_OF_A_LABEL = 1000
OTHER = "other"  # the variant of a file that no card and no name tells


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to measure on: `examples` to compare with, a labelled set `data` of LABEL/FILE, or made inputs."""

    examples: Path | None = None
    data: Path | None = None
    labels: tuple[str, ...] = ()
    count: int = 100


def report(target: Path, given: Inputs, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure `target` against its float variant: the one beside it, or one made of the .keras beside it.

    Returns `{"file", "model", "variant", "bytes", "operations", "inputs", "reference", "difference",
    "layers", "layers_unmatched", "labelled", "latency"}`; what needs a float variant is null where there is
    none, `labelled` where no labelled set is given. Raises `ModelError` for a bad file, `CalibrationError`
    and `DataError` for examples that cannot be used.
    """
    graph = read_graph(target)
    if len(graph.inputs) != 1 or not 1 <= len(graph.outputs) <= 2:
        raise ModelError(
            f"{target}: {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; one input, one answer "
            "and beside it one embedding are supported"
        )
    if graph.inputs[0].is_dynamic:
        raise ModelError(
            f"{target}: input shape {graph.inputs[0].shape} is not fixed; give every side a size"
        )
    card = find_card(target, target)
    files = variants_beside(target, card)
    variant = next((kind for kind, path in files.items() if path.name == target.name), OTHER)
    files[variant] = target
    model = load_model(target)
    say("reading examples")
    labelled = _read_labelled(given.data, given.labels, graph, card) if given.data else None
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
        "labelled": labelled and {"n": len(labelled.labels), "model": labelled.ask(model), "reference": None},
        "latency": [],
    }
    with _reference(target, variant, files, say) as reference:
        if reference is not None:
            say("running both files")
            exact = load_model(reference)
            result["reference"] = {"file": reference.name, "bytes": reference.stat().st_size}
            result["difference"] = difference(answers(model, inputs), answers(exact, inputs))
            result["layers"], result["layers_unmatched"] = layer_noise(target, reference, inputs)
            if labelled:
                result["labelled"]["reference"] = labelled.ask(exact)
            result["latency"].append(_latency("cpu", reference, inputs[0]))
    say("timing the backends")
    result["latency"] += [
        _latency(backend, files[variant_for(backend, variant, files)], inputs[0]) for backend in BACKENDS
    ]
    return result


def _inputs(
    tensor: Tensor, card: Card | None, given: Inputs, labelled: _Labelled | None
) -> tuple[list[Float32], str]:
    """Return inputs of the model's shape, and where they come from."""
    if given.examples:
        return _read(given.examples, tensor, card, given.count), str(given.examples)
    if labelled:
        # Every n-th, so that each label is there.
        return labelled.inputs[:: -(-len(labelled.inputs) // given.count)], str(given.data)
    value_range = card.input.range if card else _range(tensor)
    return [made_input(tensor.shape, value_range, seed=seed) for seed in range(MADE_INPUTS)], "made"


def _range(tensor: Tensor) -> tuple[float, float]:
    """Return the range that an integer input can hold; floats without a card are taken for pictures."""
    if not tensor.scale:
        return 0.0, 1.0
    limits = np.iinfo(tensor.dtype)
    low, high = ((limit - tensor.zero_point) * tensor.scale for limit in (limits.min, limits.max))
    return float(low), float(high)


@contextmanager
def _reference(
    target: Path, variant: str, files: dict[str, Path], say: Callable[[str], None]
) -> Iterator[Path | None]:
    """Give the float file to compare with; one that has to be made first is gone afterwards."""
    beside = next((files[kind] for kind in FLOATS if kind in files and kind != variant), None)
    source = target.with_name(f"{card_name(target)}.keras")
    if beside is not None or variant in FLOATS or not source.is_file():
        yield beside
        return
    with tempfile.TemporaryDirectory(prefix="emotion-edge-") as scratch:
        made = Path(scratch) / f"{source.stem}.float32.tflite"
        say(f"making a float32 file of {source.name}")
        convert(Job(source, made, "float32"), report=lambda _step: None)
        yield made


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """A labelled set: inputs of the model, and `labels` (n,) that count in the order of its output."""

    inputs: list[Float32]
    labels: Labels

    def ask(self, model: Model) -> dict[str, float]:
        """Return accuracy and unweighted average recall of a file."""
        predicted = predictions(answers(model, self.inputs))
        return {
            "accuracy": round(float(np.mean(predicted == self.labels)), 4),
            "uar": round(uar(predicted, self.labels), 4),
        }


def _read_labelled(data: Path, given: tuple[str, ...], graph: Graph, card: Card | None) -> _Labelled:
    """Read the files below LABEL/ as the device would; raise `DataError` for what does not fit the model."""
    if not data.is_dir():
        raise DataError(f"--data {data}: no such directory; give one with a directory a label")
    there = sorted(path.name for path in data.iterdir() if path.is_dir())
    if not there:
        raise DataError(f"--data {data}: no directory in it; make one a label")
    names = given or (card.labels if card else tuple(there))
    classes = graph.outputs[0].shape[-1]
    if len(names) != classes:
        raise DataError(
            f"--labels {','.join(names)}: {len(names)} for a model with {classes} outputs; name them in order"
        )
    known = {name: name if name in names else label_of(name) for name in there}
    if strange := [name for name, label in known.items() if label not in names]:
        raise DataError(f"--data {data}: {strange[0]} is not one of {', '.join(names)}; rename it")
    inputs, labels = list[Float32](), list[int]()
    for name, label in known.items():
        try:
            read = _read(data / name, graph.inputs[0], card, MOST_OF_A_LABEL)
        except CalibrationError as error:
            raise DataError(str(error).replace("--calibrate", "--data")) from None
        inputs += read
        labels += [names.index(label)] * len(read)
    return _Labelled(inputs, np.array(labels, np.int64))


def _read(directory: Path, tensor: Tensor, card: Card | None, count: int) -> list[Float32]:
    features = card.input.features if card else None
    examples = read_examples(directory, tensor.shape[1:], count=count, features=features)
    return [example[np.newaxis] for example in examples]


def _latency(backend: str, path: Path, values: Float32) -> dict[str, Any]:
    try:
        model = load_model(path, backend=backend)
        ms = latency_ms(model, values)
    except DeviceError as error:
        return absent(backend, error)
    return {"backend": backend, "present": True, "file": path.name, "ms": ms}
