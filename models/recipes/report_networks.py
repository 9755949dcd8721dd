"""The networks of the report in Keras; imported only for training."""

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


# The networks that only repeat the report. Where the report gives no widths (32, 64, dense layers of 128 and
# 256, dropout rates), they are the common choices of its time.


def report_face_jaffe() -> Any:
    """Return the report's network for JAFFE: (48, 48, 1) in [0, 1] -> one convolution -> (7,)."""
    face = keras.Input((48, 48, 1), name="face")
    x = layers.Conv2D(32, 3, activation="relu")(face)  # 48 -> 46
    x = layers.MaxPooling2D(2)(x)  # -> 23
    x = layers.Flatten()(x)  # (23, 23, 32) -> (16928,)
    x = layers.Dense(128, activation="relu")(x)
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(face, p, name="report-face-jaffe")


def report_face_ckplus() -> Any:
    """Return the report's network for CK+48: (48, 48, 1) in [0, 1] -> two convolutions, dropout -> (7,)."""
    face = keras.Input((48, 48, 1), name="face")
    x = face
    for filters in (32, 64):  # 48 -> 46 -> 23 -> 21 -> 10
        x = layers.Conv2D(filters, 3, activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)  # (10, 10, 64) -> (6400,)
    x = layers.Dense(128, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(face, p, name="report-face-ckplus")


def report_face_rgb(side_px: int) -> Any:
    """Return the report's network for its mixed set: (side, side, 3) in [0, 1] -> (7,), without dropout."""
    face = keras.Input((side_px, side_px, 3), name="face")
    x = face
    for filters in (64, 128, 256):  # 48 -> 46 -> 23 -> 21 -> 10 -> 8 -> 4; 88 -> ... -> 9
        x = layers.Conv2D(filters, 3, activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)  # 48: (4, 4, 256) -> (4096,); 88: (9, 9, 256) -> (20736,)
    x = layers.Dense(512, activation="relu")(x)
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(face, p, name="report-face-rgb")


def vgg16_base(side_px: int) -> Any:
    """Return VGG16 without its dense layers, untrained: (side, side, 3) -> (side / 32, side / 32, 512)."""
    return keras.applications.VGG16(include_top=False, weights=None, input_shape=(side_px, side_px, 3))


def report_face_vgg_head(shape: tuple[int, ...]) -> Any:
    """Return the dense head on the features of the frozen VGG16, `shape` (h, w, 512) -> (7,)."""
    features = keras.Input(shape, name="seen")
    x = layers.Flatten()(features)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    p = layers.Dense(CLASSES, activation="softmax", name="p")(x)
    return keras.Model(features, p, name="report-face-vgg-head")
