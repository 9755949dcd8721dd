"""Rewritten recurrent layers compute what Keras computes with the same weights, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge.errors import ModelError
from edge.values import Float32

keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
from keras import layers  # noqa: E402

from converter.fused import fuse  # noqa: E402
from converter.recurrent import unroll  # noqa: E402
from converter.streaming import Streamed, stream  # noqa: E402

# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS = 12


def recurrent(*stack: Any, steps: int | None = STEPS) -> Any:
    """Return a model (12, 3) -> 7 with random weights, because zero biases would hide a wrong gate."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input((steps, 3)), *stack, layers.Dense(7, activation="softmax")])
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.4, weight.shape) for weight in model.get_weights()])
    return model


def inner(*stack: Any) -> Any:
    """Return a model to use as a layer."""
    return keras.Sequential([keras.Input((STEPS, 3)), *stack])


def predict(model: Any, x: Float32) -> Float32:
    """Run a Keras model: (n, 7)."""
    return np.asarray(model(x, training=False))


EXACT: dict[str, Callable[[], list[Any]]] = {
    "linear": lambda: [layers.LSTM(5, activation="linear")],
    "tanh": lambda: [layers.LSTM(5)],
    "relu and hard sigmoid": lambda: [layers.LSTM(5, activation="relu", recurrent_activation="hard_sigmoid")],
    "no bias": lambda: [layers.LSTM(5, use_bias=False)],
    "backwards": lambda: [layers.LSTM(5, go_backwards=True)],
    "sequences": lambda: [layers.LSTM(5, return_sequences=True), layers.Flatten()],
    "backward sequences": lambda: [layers.GRU(5, return_sequences=True, go_backwards=True), layers.Flatten()],
    "stacked": lambda: [layers.LSTM(6, return_sequences=True, activation="linear"), layers.LSTM(4)],
    "one unit": lambda: [layers.LSTM(1)],
    "gru": lambda: [layers.GRU(5)],
    "gru, reset before": lambda: [layers.GRU(5, reset_after=False, activation="elu")],
    "gru without bias": lambda: [layers.GRU(5, use_bias=False)],
    "gru, reset before, without bias": lambda: [layers.GRU(5, use_bias=False, reset_after=False)],
    "simple": lambda: [layers.SimpleRNN(4)],
    "cell in a layer": lambda: [layers.RNN(layers.GRUCell(4))],
    "inside a model": lambda: [inner(layers.LSTM(4, return_sequences=True)), layers.GRU(3)],
    "both ways": lambda: [layers.Bidirectional(layers.LSTM(4))],
    "both ways, sum": lambda: [
        layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum"),
        layers.LSTM(3),
    ],
    "both ways, mean": lambda: [
        layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="ave"),
        layers.Flatten(),
    ],
    "both ways, product": lambda: [
        layers.Bidirectional(
            layers.LSTM(4),
            merge_mode="mul",
            backward_layer=layers.LSTM(4, activation="relu", go_backwards=True),
        )
    ],
    "both ways, apart": lambda: [
        layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode=None),
        layers.Add(),
        layers.Flatten(),
    ],
    "mask": lambda: [layers.Masking(), layers.LSTM(4, return_sequences=True), layers.GRU(4)],
    "mask both ways": lambda: [layers.Masking(), layers.Bidirectional(layers.GRU(4))],
    "mask with zeros": lambda: [
        layers.Masking(),
        layers.LSTM(4, return_sequences=True, zero_output_for_mask=True),
        layers.GlobalAveragePooling1D(),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_unrolled_layer_is_the_keras_layer(name: str) -> None:
    """Every form agrees with Keras within 1e-5 and holds the same weight objects."""
    model = recurrent(*EXACT[name]())
    unrolled = unroll(model)
    x = np.random.default_rng(1).normal(0, 1, (20, STEPS, 3)).astype(np.float32)
    x[0, :3], x[1, 5:8], x[2, 9:] = 0, 0, 0  # masked at the start, in the middle, at the end
    np.testing.assert_allclose(predict(unrolled, x), predict(model, x), atol=1e-5)
    assert {id(weight) for weight in unrolled.weights} == {id(weight) for weight in model.weights}


def test_model_without_recurrent_layers_is_returned_unchanged() -> None:
    """Unrolling and fusing return a dense network itself."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    assert unroll(model) is model
    assert fuse(model) is model


def initial_state() -> Any:
    """Return a model whose LSTM starts from a dense layer's output."""
    x = keras.Input((STEPS, 3))
    state = layers.Dense(4)(layers.Flatten()(x))
    return keras.Model(x, layers.LSTM(4, name="given")(x, initial_state=[state, state]))


UNROLL_REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "state": (
        lambda: keras.Sequential(
            [keras.Input((4, 2), batch_size=1), layers.LSTM(4, stateful=True, name="s")]
        ),
        "layer s: keeps or returns its state",
    ),
    "initial state": (initial_state, "layer given: has an initial state as input"),
    "convolution": (
        lambda: keras.Sequential([keras.Input((4, 5, 2)), layers.ConvLSTM1D(2, 3, name="conv")]),
        "layer conv: ConvLSTM1D cannot be converted",
    ),
    "cells": (
        lambda: recurrent(layers.RNN([layers.LSTMCell(3), layers.GRUCell(3)], name="rnn")),
        "layer rnn: StackedRNNCells cannot be converted",
    ),
    "per step": (
        lambda: keras.Sequential(
            [keras.Input((2, 4, 3)), layers.TimeDistributed(layers.LSTM(2), name="each")]
        ),
        "layer each: LSTM cannot be converted inside TimeDistributed",
    ),
    "any length": (
        lambda: recurrent(layers.LSTM(4, name="free"), steps=None),
        "layer free: number of steps not fixed",
    ),
    "too long": (lambda: recurrent(layers.LSTM(4, name="long"), steps=401), "layer long: 401 steps"),
}


@pytest.mark.parametrize("name", UNROLL_REFUSED)
def test_layer_that_cannot_be_unrolled_is_refused(name: str) -> None:
    """The error names the layer and the reason."""
    build, message = UNROLL_REFUSED[name]
    with pytest.raises(ModelError, match=message):
        unroll(build())


def test_mask_is_refused_for_integers() -> None:
    """A comparison with the masked value is not exact in integers."""
    with pytest.raises(ModelError, match="layer mask: a mask needs exact floats"):
        unroll(recurrent(layers.Masking(name="mask"), layers.LSTM(4)), exact_masks=False)


FUSE_REFUSED: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "activation": (
        lambda: [layers.LSTM(4, activation="linear", name="lin")],
        "layer lin: .* not linear and sigmoid",
    ),
    "gru": (lambda: [layers.GRU(4, name="gru")], "layer gru: TFLite has no fused GRUCell"),
    "mask": (
        lambda: [layers.Masking(name="mask"), layers.LSTM(4)],
        "layer mask: the fused LSTM does not support masks",
    ),
    "backward activation": (
        lambda: [
            layers.Bidirectional(
                layers.LSTM(4),
                backward_layer=layers.LSTM(4, activation="relu", go_backwards=True),
                name="bi",
            )
        ],
        "layer bi: .* not relu and sigmoid",
    ),
}


@pytest.mark.parametrize("name", FUSE_REFUSED)
def test_layer_that_cannot_be_fused_is_refused(name: str) -> None:
    """The kernel computes no other activations than tanh and sigmoid, no other cells and no masks."""
    stack, message = FUSE_REFUSED[name]
    with pytest.raises(ModelError, match=message):
        fuse(recurrent(*stack()))


def predict_steps(streamed: Streamed, x: Float32) -> Float32:
    """Feed a window (steps, features) step by step, from zeros; return the last result (7,)."""
    states = [np.zeros(state.shape, np.float32) for state in streamed.model.inputs[1:]]
    for step in x:
        results = streamed.model([step[np.newaxis, np.newaxis], *states], training=False)
        result, *states = [np.asarray(value, np.float32) for value in results]
    return np.asarray(result[0])


STREAMED: dict[str, Callable[[], list[Any]]] = {
    "dense below, stacked": lambda: [
        layers.Dense(6, activation="relu"),
        layers.LayerNormalization(),
        layers.LSTM(5, return_sequences=True, activation="linear"),
        layers.GRU(4),
    ],
    "causal convolution and mean": lambda: [
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.Conv1D(4, 1),
        layers.SimpleRNN(5, return_sequences=True),
        layers.GlobalAveragePooling1D(),
    ],
    "reset before": lambda: [layers.GRU(4, reset_after=False)],
}


@pytest.mark.parametrize("name", STREAMED)
def test_steps_add_up_to_the_window(name: str) -> None:
    """After n steps the single-step model gives the result of a window of n, for 12 and for 5 steps."""
    stack = STREAMED[name]()
    model = recurrent(*stack)
    streamed = stream(model)
    x = np.random.default_rng(1).normal(0, 1, (STEPS, 3)).astype(np.float32)
    np.testing.assert_allclose(predict_steps(streamed, x), predict(model, x[np.newaxis])[0], atol=1e-5)
    short = keras.Sequential([keras.Input((5, 3)), *model.layers])
    np.testing.assert_allclose(
        predict_steps(streamed, x[:5]), predict(short, x[np.newaxis, :5])[0], atol=1e-5
    )
    assert {id(weight) for weight in streamed.model.weights} == {id(weight) for weight in model.weights}


STREAM_REFUSED: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "both ways": (
        lambda: [layers.Bidirectional(layers.LSTM(3), name="bi")],
        "layer bi: starts at the last step",
    ),
    "backwards": (
        lambda: [layers.LSTM(3, go_backwards=True, name="back")],
        "layer back: starts at the last step",
    ),
    "convolution that needs later steps": (
        lambda: [layers.Conv1D(3, 3, padding="same", name="conv"), layers.LSTM(3)],
        "layer conv: Conv1D with padding 'same' and strides 1",
    ),
    "convolution that drops steps": (
        lambda: [layers.Conv1D(3, 1, strides=2, name="conv"), layers.LSTM(3)],
        "layer conv: Conv1D with padding 'valid' and strides 2",
    ),
    "whole window": (
        lambda: [layers.LSTM(3, return_sequences=True), layers.Flatten(name="flat")],
        "layer flat: Flatten needs more than one step",
    ),
    "over time": (
        lambda: [layers.LayerNormalization(axis=1, name="norm"), layers.LSTM(3)],
        "layer norm: LayerNormalization needs more than one step",
    ),
    "mask": (lambda: [layers.Masking(name="mask"), layers.LSTM(3)], "layer mask: a single step has no mask"),
    "nothing recurrent": (lambda: [layers.Flatten()], "the model has no recurrent layer"),
    "model in a model": (lambda: [inner(layers.LSTM(3))], "the model contains a nested model"),
}


@pytest.mark.parametrize("name", STREAM_REFUSED)
def test_layer_that_cannot_be_streamed_is_refused(name: str) -> None:
    """The error names a layer that needs later steps or the whole window, and a remedy."""
    stack, message = STREAM_REFUSED[name]
    with pytest.raises(ModelError, match=message):
        stream(recurrent(*stack()))
