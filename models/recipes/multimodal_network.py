"""The multimodal network, in Keras, and how it learns; imported only by what trains."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edge.people.pooling import CLASSES, FEATURES, LOWEST, ORDER

WIDTH = 48


def multimodal() -> Any:
    """Return the network: (20,) in [0, 1] -> (7,) that sums to 1.

    A logarithmic pool whose two weights, the gates, are learnt from everything that is known of both
    opinions (Jacobs et al. 1991, "Adaptive mixtures of local experts"): it can trust a modality more or
    less, but cannot make up a label that none of them leans to.
    """
    opinions = keras.Input((len(ORDER) * FEATURES,), name="opinions")
    x = layers.Dense(WIDTH, activation="relu")(opinions)
    x = layers.Dense(WIDTH, activation="relu")(x)
    gates = layers.Dense(len(ORDER), activation="relu", bias_initializer="ones", name="gates")(x)
    weighted = [
        layers.Multiply()([gates[:, i : i + 1], opinions[:, i * FEATURES : i * FEATURES + CLASSES]])
        for i in range(len(ORDER))
    ]
    # What is left of log p is scaled to 0..1 in the input, so a gate of 1 is a weight of 1 only after this.
    logits = layers.Rescaling(float(-np.log(LOWEST)))(layers.Add()(weighted))
    return keras.Model(opinions, layers.Softmax(name="p")(logits), name="multimodal")


@keras.saving.register_keras_serializable(package="emotion_edge")  # type: ignore[untyped-decorator]
def either(targets: Any, p: Any) -> Any:
    """Return -log of the probability on the labels of `targets` (n, 7), which may be two, for `p` (n, 7)."""
    return -ops.log(ops.sum(targets * p, axis=-1) + 1e-6)
