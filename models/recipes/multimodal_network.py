"""The multimodal network in Keras, and its loss; imported only for training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edge.people.pooling import CLASSES, FEATURES, LOWEST, ORDER

WIDTH = 48


def build() -> Any:
    """Return the network: (20,) in [0, 1] -> (7,) that sums to 1.

    A logarithmic opinion pool with two learnt weights, the gates (Jacobs et al. 1991, "Adaptive mixtures of
    local experts"): it can weight a modality up or down, but cannot predict a class that neither predicts.
    """
    inputs = keras.Input((len(ORDER) * FEATURES,), name="opinions")
    x = layers.Dense(WIDTH, activation="relu")(inputs)
    x = layers.Dense(WIDTH, activation="relu")(x)
    gates = layers.Dense(len(ORDER), activation="relu", bias_initializer="ones", name="gates")(x)
    weighted = [
        layers.Multiply()([gates[:, i : i + 1], inputs[:, i * FEATURES : i * FEATURES + CLASSES]])
        for i in range(len(ORDER))
    ]
    # The input has log p scaled to 0..1; rescaled, a gate of 1 is a weight of 1.
    logits = layers.Rescaling(float(-np.log(LOWEST)))(layers.Add()(weighted))
    return keras.Model(inputs, layers.Softmax(name="p")(logits), name="multimodal")


@keras.saving.register_keras_serializable(package="emotion_edge", name="either")  # type: ignore[untyped-decorator]
def either_label_loss(targets: Any, p: Any) -> Any:
    """Return -log of the total probability in `p` (n, 7) of the one or two labels in `targets` (n, 7)."""
    return -ops.log(ops.sum(targets * p, axis=-1) + 1e-6)
