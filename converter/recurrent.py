"""Rewrites recurrent layers as plain operations, which quantize fully and run on every accelerator.

Unchanged, a recurrent layer of Keras becomes a WHILE loop, and calibrating it crashes TensorFlow 2.21.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from converter.cells import CELLS, advance, project
from edge.errors import ModelError

MAX_STEPS = 400  # every step adds about ten operations to the graph


class Unrolled(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The recurrent layer `original`, with its weights and activations, unrolled step by step.

    (batch, steps, features) -> (batch, units), or (batch, steps, units) if the layer returns sequences. Like
    Keras it returns them in the order of computation, with `in_order_of_time` in the order of the input.
    """

    def __init__(self, original: Any, *, in_order_of_time: bool = False) -> None:
        super().__init__(name=f"{original.name}_unrolled")
        self.original = original
        self.supports_masking = True
        self._in_order_of_time = in_order_of_time

    def call(self, sequence: Any, mask: Any = None, training: bool = False) -> Any:
        """Compute all steps; a step that `mask` (batch, steps) excludes changes no state."""
        del training  # dropout is off on a device
        original, cell = self.original, self.original.cell
        inputs = _steps(project(cell, sequence))
        masks = (
            [None] * len(inputs)
            if mask is None
            else [m > 0 for m in _steps(ops.cast(mask, "float32")[..., None])]
        )
        if original.go_backwards:
            inputs.reverse()
            masks.reverse()
        states: tuple[Any, ...] | None = None
        outputs = []
        for gates, present in zip(inputs, masks, strict=True):
            new = advance(cell, gates, states)
            if present is not None:
                old = states or tuple(ops.zeros_like(state) for state in new)
                new = tuple(ops.where(present, after, before) for after, before in zip(new, old, strict=True))
            states = new
            output = new[0]
            if present is not None and original.zero_output_for_mask:
                output = ops.where(present, output, ops.zeros_like(output))
            outputs.append(ops.reshape(output, (-1, cell.units)))
        if not original.return_sequences:
            return states[0] if states else None
        if original.go_backwards and self._in_order_of_time:
            outputs.reverse()
        return ops.stack(outputs, axis=1)

    def compute_mask(self, sequence: Any, mask: Any = None) -> Any:
        """Return the output mask of the original layer."""
        return self.original.compute_mask(sequence, mask)

    def compute_output_shape(self, shape: tuple[int, ...]) -> Any:
        """Return the output shape of the original layer."""
        return self.original.compute_output_shape(shape)


class RewrittenBidirectional(layers.Layer):  # type: ignore[misc]
    """A `Bidirectional` layer whose two directions are rewritten layers."""

    def __init__(self, original: Any, rewrite: Callable[..., Any]) -> None:
        super().__init__(name=f"{original.name}_both_ways")
        self.original = original
        self.supports_masking = True
        self.forward = rewrite(original.forward_layer, in_order_of_time=True)
        self.backward = rewrite(original.backward_layer, in_order_of_time=True)

    def call(self, sequence: Any, mask: Any = None, training: bool = False) -> Any:
        """Compute both directions and merge them."""
        del training
        forward, backward = self.forward(sequence, mask=mask), self.backward(sequence, mask=mask)
        match self.original.merge_mode:
            case "concat":
                return ops.concatenate([forward, backward], axis=-1)
            case "sum":
                return forward + backward
            case "ave":
                return (forward + backward) * 0.5
            case "mul":
                return forward * backward
            case _:
                return forward, backward

    def compute_mask(self, sequence: Any, mask: Any = None) -> Any:
        """Return the output mask of the original layer."""
        return self.original.compute_mask(sequence, mask)

    def compute_output_shape(self, shape: tuple[int, ...]) -> Any:
        """Return the output shape of the original layer."""
        return self.original.compute_output_shape(shape)


def unroll(model: Any, *, exact_masks: bool = True) -> Any:
    """Return `model` with every recurrent layer unrolled and the same weights; `model` itself if it has none.

    Raises `ModelError` for layers that it cannot compute exactly: other kinds of cells, states that are
    passed in, returned or kept, sequences of unknown or too great length, and masks unless `exact_masks`.
    """
    found = recurrent_layers(model)
    if not found:
        return model
    for layer in found:
        check_layer(layer)
        if (steps := step_count(layer)) > MAX_STEPS:
            raise ModelError(
                f"layer {layer.name}: {steps} steps are too many to unroll; give the input {MAX_STEPS} or "
                "fewer, or use --recurrent step or fused"
            )
    if not exact_masks:
        refuse_masks(
            model,
            "a mask needs exact floats, which integers are not; use --to dynamic, or sequences of one length",
        )
    return rewrite(model, Unrolled)


def rewrite(model: Any, make: Callable[..., Any]) -> Any:
    """Return `model` with `make(layer)` in place of each recurrent layer; all other layers are reused."""

    def replace(layer: Any) -> Any:
        if isinstance(layer, layers.Bidirectional):
            return RewrittenBidirectional(layer, make)
        return make(layer) if isinstance(layer, layers.RNN) else layer

    return keras.models.clone_model(model, clone_function=replace, recursive=True)


def recurrent_layers(model: Any) -> list[Any]:
    """List the recurrent layers of `model` and of the models nested in it."""
    kinds = layers.RNN | layers.Bidirectional | layers.ConvLSTM1D | layers.ConvLSTM2D | layers.ConvLSTM3D
    return [
        layer
        for layer in all_layers(model)
        if isinstance(layer.layer if isinstance(layer, layers.TimeDistributed) else layer, kinds)
    ]


def parts(layer: Any) -> tuple[Any, ...]:
    """Return the two layers of a `Bidirectional`, or `layer` alone."""
    both = isinstance(layer, layers.Bidirectional)
    return (layer.forward_layer, layer.backward_layer) if both else (layer,)


def refuse_masks(model: Any, reason: str) -> None:
    """Raise `ModelError` with `reason` and the name of the first layer that makes a mask, if any does."""
    for layer in all_layers(model):
        if isinstance(layer, layers.Masking) or getattr(layer, "mask_zero", False):
            raise ModelError(f"layer {layer.name}: {reason}")


def all_layers(model: Any) -> list[Any]:
    """List the layers of a model and of the models nested in it."""
    found = []
    for layer in model.layers:
        found += all_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def check_layer(layer: Any) -> None:
    """Raise `ModelError` unless `layer`, in each direction, is an LSTM, GRU or SimpleRNN from zeros."""
    if isinstance(layer, layers.TimeDistributed):
        kind = type(layer.layer).__name__
        raise ModelError(
            f"layer {layer.name}: {kind} cannot be converted inside TimeDistributed; build it without"
        )
    for part in parts(layer):
        if not isinstance(getattr(part, "cell", None), CELLS):
            kind = type(part.cell if type(part) is layers.RNN else part).__name__
            raise ModelError(
                f"layer {layer.name}: {kind} cannot be converted; use LSTM, GRU or SimpleRNN layers"
            )
        if part.return_state or part.stateful:
            raise ModelError(
                f"layer {layer.name}: keeps or returns its state; build it without stateful and return_state"
            )
    calls = [node.arguments for node in layer._inbound_nodes]
    if any(call.args[1:] or call.kwargs.get("initial_state") is not None for call in calls):
        raise ModelError(f"layer {layer.name}: has an initial state as input; let it start from zeros")


def step_count(layer: Any) -> int:
    """Return the longest sequence that `layer` receives; raise `ModelError` if a length is not fixed."""
    counts = [node.input_tensors[0].shape[1] for node in layer._inbound_nodes]
    if None in counts:
        raise ModelError(f"layer {layer.name}: number of steps not fixed; give the input a fixed length")
    return max(counts, default=0)


def _steps(sequence: Any) -> list[Any]:
    """Split (batch, steps, n) into a list of (batch, n)."""
    return [ops.squeeze(step, axis=1) for step in ops.split(sequence, sequence.shape[1], axis=1)]
