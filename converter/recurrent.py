"""Rewrites recurrent layers as plain operations, which quantize whole and run on every accelerator.

Keras's own become a WHILE loop: asked for full integers, its calibration crashes TensorFlow 2.21.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from converter.cells import CELLS, advance, project
from edge.errors import ModelError

MAX_STEPS = 400  # every step is some ten operations of the graph


class Unrolled(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A recurrent layer with the weights and activations of `original`, written out step by step.

    (batch, steps, features) -> (batch, units), or (batch, steps, units) where it returns sequences: as Keras
    does in the order of computation, or in the order of time.
    """

    def __init__(self, original: Any, *, in_order_of_time: bool = False) -> None:
        super().__init__(name=f"{original.name}_unrolled")
        self.original = original
        self.supports_masking = True
        self._in_order_of_time = in_order_of_time

    def call(self, sequence: Any, mask: Any = None, training: bool = False) -> Any:
        """Compute all steps; a step that the mask (batch, steps) leaves out changes no state."""
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
        for gates, is_there in zip(inputs, masks, strict=True):
            new = advance(cell, gates, states)
            if is_there is not None:
                old = states or tuple(ops.zeros_like(state) for state in new)
                new = tuple(
                    ops.where(is_there, after, before) for after, before in zip(new, old, strict=True)
                )
            states = new
            output = new[0]
            if is_there is not None and original.zero_output_for_mask:
                output = ops.where(is_there, output, ops.zeros_like(output))
            outputs.append(ops.reshape(output, (-1, cell.units)))
        if not original.return_sequences:
            return states[0] if states else None
        if original.go_backwards and self._in_order_of_time:
            outputs.reverse()
        return ops.stack(outputs, axis=1)

    def compute_mask(self, sequence: Any, mask: Any = None) -> Any:
        """Hand the mask on as the original layer does."""
        return self.original.compute_mask(sequence, mask)

    def compute_output_shape(self, shape: tuple[int, ...]) -> Any:
        """Return the shape that the original layer gives."""
        return self.original.compute_output_shape(shape)


class BothWays(layers.Layer):  # type: ignore[misc]
    """A `Bidirectional` layer made of two rewritten ones."""

    def __init__(self, original: Any, rewrite: Callable[..., Any]) -> None:
        super().__init__(name=f"{original.name}_both_ways")
        self.original = original
        self.supports_masking = True
        self.forward = rewrite(original.forward_layer, in_order_of_time=True)
        self.backward = rewrite(original.backward_layer, in_order_of_time=True)

    def call(self, sequence: Any, mask: Any = None, training: bool = False) -> Any:
        """Compute both directions and merge them."""
        del training
        there, back = self.forward(sequence, mask=mask), self.backward(sequence, mask=mask)
        match self.original.merge_mode:
            case "concat":
                return ops.concatenate([there, back], axis=-1)
            case "sum":
                return there + back
            case "ave":
                return (there + back) * 0.5
            case "mul":
                return there * back
            case _:
                return there, back

    def compute_mask(self, sequence: Any, mask: Any = None) -> Any:
        """Hand the mask on as the original layer does."""
        return self.original.compute_mask(sequence, mask)

    def compute_output_shape(self, shape: tuple[int, ...]) -> Any:
        """Return the shape that the original layer gives."""
        return self.original.compute_output_shape(shape)


def unroll(model: Any, *, exact_masks: bool = True) -> Any:
    """Return `model` with every recurrent layer unrolled, sharing all weights; the same model without one.

    Raises `ModelError` for what cannot be exact: cells of other kinds, states handed in, out or kept,
    sequences of unknown or great length, and masks unless `exact_masks`.
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
            "a mask compares floats exactly, integers cannot; use --to dynamic, or sequences of one length",
        )
    return rewrite(model, Unrolled)


def rewrite(model: Any, make: Callable[..., Any]) -> Any:
    """Return `model` with `make(layer)` for its recurrent layers; the others are used again, not copied."""

    def replace(layer: Any) -> Any:
        if isinstance(layer, layers.Bidirectional):
            return BothWays(layer, make)
        return make(layer) if isinstance(layer, layers.RNN) else layer

    return keras.models.clone_model(model, clone_function=replace, recursive=True)


def recurrent_layers(model: Any) -> list[Any]:
    """List the layers of `model`, and of the models in it, that have a state."""
    kinds = layers.RNN | layers.Bidirectional | layers.ConvLSTM1D | layers.ConvLSTM2D | layers.ConvLSTM3D
    return [
        layer
        for layer in all_layers(model)
        if isinstance(layer.layer if isinstance(layer, layers.TimeDistributed) else layer, kinds)
    ]


def parts(layer: Any) -> tuple[Any, ...]:
    """Return the two layers of a `Bidirectional`, or the layer alone."""
    both = isinstance(layer, layers.Bidirectional)
    return (layer.forward_layer, layer.backward_layer) if both else (layer,)


def refuse_masks(model: Any, reason: str) -> None:
    """Raise `ModelError` with the name of the layer that makes a mask and the `reason`."""
    for layer in all_layers(model):
        if isinstance(layer, layers.Masking) or getattr(layer, "mask_zero", False):
            raise ModelError(f"layer {layer.name}: {reason}")


def all_layers(model: Any) -> list[Any]:
    """List the layers of a model and of the models in it."""
    found = []
    for layer in model.layers:
        found += all_layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def check_layer(layer: Any) -> None:
    """Raise `ModelError` unless all of `layer` is an LSTM, GRU or simple one that starts from zeros."""
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
            raise ModelError(f"layer {layer.name}: keeps or returns its state; build it with neither")
    calls = [node.arguments for node in layer._inbound_nodes]
    if any(call.args[1:] or call.kwargs.get("initial_state") is not None for call in calls):
        raise ModelError(f"layer {layer.name}: starts from a state that is given; let it start from zeros")


def step_count(layer: Any) -> int:
    """Return the longest sequence that `layer` is used for; raise `ModelError` where that is not fixed."""
    counts = [node.input_tensors[0].shape[1] for node in layer._inbound_nodes]
    if None in counts:
        raise ModelError(f"layer {layer.name}: any number of steps; give the input a fixed length")
    return max(counts, default=0)


def _steps(sequence: Any) -> list[Any]:
    """Cut (batch, steps, n) into (batch, n) each."""
    return [ops.squeeze(step, axis=1) for step in ops.split(sequence, sequence.shape[1], axis=1)]
