"""The equations of Keras's recurrent cells as plain operations, one step at a time."""

from __future__ import annotations

from typing import Any

from keras import layers, ops

CELLS = (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)


def state_names(cell: Any) -> tuple[str, ...]:
    """Return the names of the states of `cell` in the order of `advance`; all are (batch, units)."""
    return ("h", "c") if isinstance(cell, layers.LSTMCell) else ("h",)


def project(cell: Any, inputs: Any) -> Any:
    """Compute the part of the gates that depends on inputs only: (..., features) -> (..., gates * units)."""
    if len(inputs.shape) == 3:
        # All steps at once as a 1x1 convolution, because a dense layer on the Edge TPU takes one row only.
        projected = ops.conv(inputs, cell.kernel[None], padding="valid", data_format="channels_last")
    else:
        projected = ops.matmul(inputs, cell.kernel)
    if not cell.use_bias:
        return projected
    return projected + (cell.bias[0] if _has_two_biases(cell) else cell.bias)


def advance(cell: Any, projected: Any, states: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Return the states after a step with `projected` (batch, gates * units); the first is the output.

    `states` of None means zeros. The first step leaves out the operations on them: an unused output of a
    split has no calibrated range and would stay in floats.
    """
    if isinstance(cell, layers.LSTMCell):
        return _advance_lstm(cell, projected, states)
    if isinstance(cell, layers.GRUCell):
        return (_advance_gru(cell, projected, states[0] if states else None),)
    if states:
        projected = projected + ops.matmul(states[0], cell.recurrent_kernel)
    return (cell.activation(projected),)


def _advance_lstm(cell: Any, projected: Any, states: tuple[Any, ...] | None) -> tuple[Any, Any]:
    """Compute `keras.layers.LSTMCell`: gates in the order input, forget, cell, output."""
    units = cell.units
    if states is None:
        i, o = projected[:, :units], projected[:, 3 * units :]
        carry = cell.recurrent_activation(i) * cell.activation(projected[:, 2 * units : 3 * units])
    else:
        i, f, c, o = ops.split(projected + ops.matmul(states[0], cell.recurrent_kernel), 4, axis=-1)
        kept = cell.recurrent_activation(f) * states[1]
        carry = cell.recurrent_activation(i) * cell.activation(c) + kept
    return cell.recurrent_activation(o) * cell.activation(carry), carry


def _advance_gru(cell: Any, projected: Any, hidden: Any) -> Any:
    """Compute `keras.layers.GRUCell`: gates in the order update, reset, candidate."""
    units, kernel = cell.units, cell.recurrent_kernel
    if hidden is None:
        update = cell.recurrent_activation(projected[:, :units])
        candidate = projected[:, 2 * units :]
        if _has_two_biases(cell):
            bias = cell.bias[1]
            update = cell.recurrent_activation(projected[:, :units] + bias[:units])
            reset = cell.recurrent_activation(projected[:, units : 2 * units] + bias[units : 2 * units])
            candidate = candidate + reset * bias[2 * units :]
        candidate = cell.activation(candidate)
        return candidate - update * candidate
    x_update, x_reset, candidate = ops.split(projected, 3, axis=-1)
    if cell.reset_after:
        recurrent = ops.matmul(hidden, kernel)
        if cell.use_bias:
            recurrent = recurrent + cell.bias[1]
        h_update, h_reset, h_candidate = ops.split(recurrent, 3, axis=-1)
        reset = cell.recurrent_activation(x_reset + h_reset)
        candidate = candidate + reset * h_candidate
    else:
        h_update, h_reset = ops.split(ops.matmul(hidden, kernel[:, : 2 * units]), 2, axis=-1)
        reset = cell.recurrent_activation(x_reset + h_reset)
        candidate = candidate + ops.matmul(reset * hidden, kernel[:, 2 * units :])
    update = cell.recurrent_activation(x_update + h_update)
    candidate = cell.activation(candidate)
    return candidate + update * (hidden - candidate)


def _has_two_biases(cell: Any) -> bool:
    return isinstance(cell, layers.GRUCell) and cell.use_bias and cell.reset_after
