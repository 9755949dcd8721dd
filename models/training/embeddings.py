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
    """The same in embeddings, `seen` (views, k, n), and what the face model says, `p` (views, k, 7)."""

    seen: Float32
    p: Float32
    targets: Float32
    person: str
    kind: str


def embed_sequences(
    model: TfliteClassifier, courses: Sequence[ExpressionSequence], progress: Progress
) -> list[EmbeddedSequence]:
    """Return what the face model says of every crop of every course."""
    asked = []
    for done, course in enumerate(courses, start=1):
        seen, p = embed(model, course.crops.reshape(-1, FACE_PX, FACE_PX))  # (views, k) as one list
        shape = course.crops.shape[:2]
        asked.append(
            EmbeddedSequence(
                seen.reshape(*shape, -1), p.reshape(*shape, -1), course.targets, course.person, course.kind
            )
        )
        progress(done, len(courses))
    return asked


def embed(model: TfliteClassifier, crops: UInt8) -> tuple[Float32, Float32]:
    """Return what the device has of crops (n, 48, 48) uint8: embeddings (n, 192), probabilities (n, 7)."""
    seen, said = [], []
    for crop in as_input(crops):
        said.append(model.classify(crop))
        if model.embedding is None:
            raise DataError(f"{model.card.name}: gives no embedding; `emotion-convert expose` its files")
        seen.append(model.embedding)
    return np.stack(seen), np.stack(said)
