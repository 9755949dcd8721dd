"""Embeddings and predictions of the face model for expression sequences, to train the video models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.inference.classifier import TfliteClassifier
from edge.values import Float32, UInt8
from models.data.datasets import FACE_PX, DataError
from models.data.expression_sequences import ExpressionSequence
from models.data.face_crops import as_input
from models.run import Progress


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedSequence:
    """`embeddings` (views, k, n) and predictions `p` (views, k, 7) for an `ExpressionSequence`."""

    embeddings: Float32
    p: Float32
    targets: Float32
    person: str
    kind: str

    @property
    def steps(self) -> int:
        """The number k of steps; 1 for a still face."""
        return int(self.embeddings.shape[1])


def embed_sequences(
    model: TfliteClassifier, sequences: Sequence[ExpressionSequence], progress: Progress
) -> list[EmbeddedSequence]:
    """Run the face model on every crop of every sequence."""
    embedded = []
    for done, sequence in enumerate(sequences, start=1):
        # (views, k, 48, 48) -> (views * k, 48, 48)
        embeddings, p = embed(model, sequence.crops.reshape(-1, FACE_PX, FACE_PX))
        shape = sequence.crops.shape[:2]
        embedded.append(
            EmbeddedSequence(
                embeddings.reshape(*shape, -1),
                p.reshape(*shape, -1),
                sequence.targets,
                sequence.person,
                sequence.kind,
            )
        )
        progress(done, len(sequences))
    return embedded


def embed(model: TfliteClassifier, crops: UInt8) -> tuple[Float32, Float32]:
    """Return embeddings (n, 192) and probabilities (n, 7) of crops (n, 48, 48) uint8."""
    embeddings, p = [], []
    for crop in as_input(crops):
        p.append(model.classify(crop))
        if model.embedding is None:
            raise DataError(
                f"{model.card.name}: no embedding output; run `emotion-convert expose` on its files"
            )
        embeddings.append(model.embedding)
    return np.stack(embeddings), np.stack(p)
