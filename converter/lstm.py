"""Rewrites LSTM layers as plain operations, which quantize whole and run on every accelerator.

Keras's own LSTM becomes a WHILE loop: asked for full int8, its calibration crashes TensorFlow 2.21.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from edge.errors import ModelError

MAX_STEPS = 400  # every step is some ten operations of the graph


class UnrolledLSTM(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """An LSTM with the weights and activations of `original`, written out step by step.

    (batch, steps, features) -> (batch, units), or (batch, steps, units) where it returns sequences.
    The equations are those of `keras.layers.LSTMCell`, gates in the order input, forget, cell, output.
    """

    def __init__(self, original: Any) -> None:
        super().__init__(name=f"{original.name}_unrolled")
        self.original = original

    def call(self, sequence: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Compute all steps; what does not depend on the step before is done at once."""
        del training  # dropout is off on a device
        if initial_state is not None or mask is not None:
            raise ModelError(f"layer {self.original.name}: is given a state or a mask; build it with neither")
        cell = self.original.cell
        steps, units = sequence.shape[1], cell.units
        projected = ops.matmul(sequence, cell.kernel)  # (b, steps, 4 * units)
        if cell.use_bias:
            projected = projected + cell.bias
        inputs = [ops.squeeze(step, axis=1) for step in ops.split(projected, steps, axis=1)]
        if self.original.go_backwards:
            inputs.reverse()
        hidden = carry = None
        outputs = []
        for gates in inputs:
            if hidden is None:
                # The state before the first step is zero, so there is nothing to forget yet. A split with
                # an output that nobody reads has no calibrated range there and would stay in floats.
                i, c, o = gates[:, :units], gates[:, 2 * units : 3 * units], gates[:, 3 * units :]
                carry = cell.recurrent_activation(i) * cell.activation(c)
            else:
                gates = gates + ops.matmul(hidden, cell.recurrent_kernel)
                i, f, c, o = ops.split(gates, 4, axis=-1)
                carry_in = cell.recurrent_activation(i) * cell.activation(c)
                carry = carry_in + cell.recurrent_activation(f) * carry
            hidden = cell.recurrent_activation(o) * cell.activation(carry)
            outputs.append(ops.reshape(hidden, (-1, units)))
        return ops.stack(outputs, axis=1) if self.original.return_sequences else hidden

    def compute_output_shape(self, shape: tuple[int, ...]) -> Any:
        """Return the shape that the original layer gives."""
        return self.original.compute_output_shape(shape)


def unroll(model: Any) -> Any:
    """Return `model` with every LSTM unrolled, sharing all weights; the same model where there is none.

    Raises `ModelError` for what cannot be exact: other recurrent layers, masks, states handed out or
    kept, sequences of unknown or great length.
    """
    found = [layer for layer in _layers(model) if _is_recurrent(layer)]
    if not found:
        return model
    for layer in _layers(model):
        if isinstance(layer, layers.Masking) or getattr(layer, "mask_zero", False):
            raise ModelError(
                f"layer {layer.name}: masks cannot be converted; train on sequences of one length"
            )
    for layer in found:
        _check(layer)
    # Layers that stay are used again, not copied, so that no weight is held twice.
    return keras.models.clone_model(
        model, clone_function=lambda layer: UnrolledLSTM(layer) if isinstance(layer, layers.LSTM) else layer
    )


def _layers(model: Any) -> list[Any]:
    """List the layers of a model and of the models in it."""
    found = []
    for layer in model.layers:
        found += _layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _is_recurrent(layer: Any) -> bool:
    return isinstance(layer, layers.RNN | layers.Bidirectional | layers.ConvLSTM1D | layers.ConvLSTM2D)


def _check(layer: Any) -> None:
    if not isinstance(layer, layers.LSTM):
        raise ModelError(
            f"layer {layer.name}: {type(layer).__name__} cannot be converted yet; use LSTM layers"
        )
    if layer.return_state or layer.stateful:
        raise ModelError(f"layer {layer.name}: keeps or returns its state; build it with neither")
    steps = layer.input.shape[1]
    if steps is None or steps > MAX_STEPS:
        length = steps or "any number of"
        raise ModelError(f"layer {layer.name}: {length} steps; give the input {MAX_STEPS} or fewer")
