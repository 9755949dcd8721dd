"""Rewrites LSTM layers as the fused LSTM operation of TFLite, which gives the smallest file."""

from __future__ import annotations

import uuid
from typing import Any

import keras
from keras import layers, ops

from converter.recurrent import check_layer, parts, recurrent_layers, refuse_masks, rewrite, step_count
from edge.errors import ModelError


class Fused(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """An LSTM in the form that the TFLite converter replaces by UNIDIRECTIONAL_SEQUENCE_LSTM.

    (batch, steps, features) -> (batch, units), or (batch, steps, units) if the layer returns sequences.
    """

    def __init__(self, original: Any, *, in_order_of_time: bool = False) -> None:
        super().__init__(name=f"{original.name}_fused")
        self.original = original
        self._in_order_of_time = in_order_of_time

    def call(self, sequence: Any, mask: Any = None, training: bool = False) -> Any:
        """Compute all steps; `fuse` has refused masks."""
        del mask, training
        import tensorflow as tf

        original, cell = self.original, self.original.cell
        if original.go_backwards:
            sequence = ops.flip(sequence, axis=1)
        batch = sequence.shape[0] or tf.shape(sequence)[0]
        zeros = tf.zeros((batch, cell.units))
        bias = cell.bias if cell.use_bias else ops.zeros((4 * cell.units,))
        weights = [tf.convert_to_tensor(weight) for weight in (cell.kernel, cell.recurrent_kernel, bias)]
        # The converter recognises this attribute and the five results, and replaces the body.
        attributes = {"api_implements": f"lstm_{uuid.uuid4()}", "time_major": False, "go_backwards": False}
        loop = tf.function(_loop, autograph=False, experimental_attributes=attributes)
        last, outputs, *_ = loop(sequence, zeros, zeros, *weights)
        if not original.return_sequences:
            return last
        backwards = original.go_backwards and self._in_order_of_time
        return ops.flip(outputs, axis=1) if backwards else outputs

    def compute_output_shape(self, shape: tuple[int, ...]) -> Any:
        """Return the output shape of the original layer."""
        return self.original.compute_output_shape(shape)


def fuse(model: Any) -> Any:
    """Return `model` with every LSTM as one operation and the same weights; `model` itself if it has none.

    Raises `ModelError` for layers that the operation does not compute: other cells, other activations, masks.
    """
    found = recurrent_layers(model)
    if not found:
        return model
    for layer in found:
        check_layer(layer)
        step_count(layer)
        for part in parts(layer):
            _check_cell(layer.name, part.cell)
    refuse_masks(
        model, "the fused LSTM does not support masks; use --recurrent unroll, or sequences of one length"
    )
    return rewrite(model, Fused)


def _check_cell(name: str, cell: Any) -> None:
    if not isinstance(cell, layers.LSTMCell):
        raise ModelError(
            f"layer {name}: TFLite has no fused {type(cell).__name__}; use --recurrent unroll or step"
        )
    named = (cell.activation, cell.recurrent_activation)
    if named != (keras.activations.tanh, keras.activations.sigmoid):
        names = " and ".join(str(getattr(activation, "__name__", activation)) for activation in named)
        raise ModelError(
            f"layer {name}: the fused LSTM computes tanh and sigmoid, not {names}; use --recurrent unroll "
            "or step"
        )


def _loop(sequence: Any, hidden: Any, carry: Any, kernel: Any, recurrent: Any, bias: Any) -> tuple[Any, ...]:
    """Return the five results that the converter expects: last output, all outputs, both states, a number."""
    import tensorflow as tf

    steps = sequence.shape[1]
    inputs = tf.transpose(sequence, [1, 0, 2])  # (steps, batch, features)
    outputs = tf.TensorArray(tf.float32, size=steps, element_shape=hidden.shape)

    def step(t: Any, hidden: Any, carry: Any, outputs: Any) -> tuple[Any, ...]:
        i, f, c, o = tf.split(tf.matmul(inputs[t], kernel) + tf.matmul(hidden, recurrent) + bias, 4, axis=1)
        carry = tf.sigmoid(f) * carry + tf.sigmoid(i) * tf.tanh(c)
        hidden = tf.sigmoid(o) * tf.tanh(carry)
        return t + 1, hidden, carry, outputs.write(t, hidden)

    _, hidden, carry, outputs = tf.while_loop(lambda t, *_: t < steps, step, (0, hidden, carry, outputs))
    return hidden, tf.transpose(outputs.stack(), [1, 0, 2]), hidden, carry, tf.constant(1.0)
