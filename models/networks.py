"""The networks of the report, in Keras; imported only by what trains."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from edge.values import LABELS

CLASSES = len(LABELS)


def report_face(*, dropout: float = 0.4) -> Any:
    """Return the report's CNN: (48, 48, 1) in [0, 1] -> (7,) that sums to 1; 2.47 M parameters."""
    face = keras.Input((48, 48, 1), name="face")
    x = face
    for filters in (64, 128, 256):  # 48 -> 46 -> 23 -> 21 -> 10 -> 8 -> 4
        x = layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)  # (4, 4, 256) -> (4096,)
    x = layers.Dropout(dropout / 2)(x)
    x = layers.Dense(512, activation="relu", kernel_initializer="he_normal")(x)
    x = layers.Dropout(dropout)(x)
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(face, p, name="report-face")


def report_voice(*, activation: str = "linear", dropout: float = 0.2) -> Any:
    """Return the report's LSTM: 40 mean MFCCs as a sequence (40, 1) -> (7,) that sums to 1."""
    voice = keras.Input((40, 1), name="voice")
    x = layers.LSTM(123, activation=activation, name="lstm")(voice)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    x = layers.Dense(32, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(voice, p, name="report-voice")
