"""Reads a labelled data set with the feature code of the device, and evaluates a model on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.calibration import CalibrationError, read_examples
from converter.comparison import predict
from converter.graph import Graph, Tensor
from edge.inference.card import Card
from edge.inference.tensors import Model
from edge.values import Float32
from models.data.datasets import DataError, label_of
from models.metrics import Labels, predicted_classes, uar

MAX_PER_LABEL = 1000


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSet:
    """Inputs of a model, and `labels` (n,), indices into its output."""

    inputs: list[Float32]
    labels: Labels

    def evaluate(self, model: Model) -> dict[str, float]:
        """Return accuracy and unweighted average recall of a model."""
        predicted = predicted_classes(predict(model, self.inputs))
        return {
            "accuracy": round(float(np.mean(predicted == self.labels)), 4),
            "uar": round(uar(predicted, self.labels), 4),
        }


def read_labelled_set(data: Path, names: tuple[str, ...], graph: Graph, card: Card | None) -> LabelledSet:
    """Read `data`/LABEL/FILE for a model; raise `DataError` for a set that does not fit it.

    `names` are the labels in the order of the output; without them those of the card, else the directories in
    alphabetical order.
    """
    if not data.is_dir():
        raise DataError(f"--data {data}: no such directory; give a directory with one directory per label")
    found = sorted(path.name for path in data.iterdir() if path.is_dir())
    if not found:
        raise DataError(f"--data {data}: contains no directory; make one per label")
    names = names or (card.labels if card else tuple(found))
    classes = graph.outputs[0].shape[-1]
    if len(names) != classes:
        raise DataError(
            f"--labels {','.join(names)}: {len(names)} for a model with {classes} outputs; name them in order"
        )
    known = {name: name if name in names else label_of(name) for name in found}
    if unknown := [name for name, label in known.items() if label not in names]:
        raise DataError(f"--data {data}: {unknown[0]} is not one of {', '.join(names)}; rename it")
    inputs, labels = list[Float32](), list[int]()
    for name, label in known.items():
        try:
            read = read_inputs(data / name, graph.inputs[0], card, MAX_PER_LABEL)
        except CalibrationError as error:
            raise DataError(str(error).replace("--calibrate", "--data")) from None
        inputs += read
        labels += [names.index(label)] * len(read)
    return LabelledSet(inputs, np.array(labels, np.int64))


def read_inputs(directory: Path, tensor: Tensor, card: Card | None, count: int) -> list[Float32]:
    """Return up to `count` inputs (1, ...) for `tensor`, read through the features of the card."""
    features = card.input.features if card else None
    examples = read_examples(directory, tensor.shape[1:], count=count, features=features)
    return [example[np.newaxis] for example in examples]
