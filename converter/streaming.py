"""Rewrites a model over a window as a model of a single step, with every state as input and output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from converter.cells import advance, project, state_names
from converter.recurrent import check_layer, recurrent_layers, refuse_masks
from edge.errors import ModelError

# Layers that compute each step independently, so that a sequence of one step gives the same result.
STEPWISE = (
    layers.Dense, layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU, layers.Dropout,
    layers.SpatialDropout1D, layers.GaussianNoise, layers.GaussianDropout, layers.TimeDistributed, layers.Add,
    layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Rescaling,
    layers.Identity, layers.ActivityRegularization,
)  # fmt: skip
OVER_LAST_AXIS = (layers.BatchNormalization, layers.LayerNormalization, layers.Concatenate, layers.Softmax)


@dataclass(frozen=True, slots=True, eq=False)
class Streamed:
    """A single-step model: inputs are a step (1, 1, ...) and the states, outputs a result and the new states.

    `states` has the names of the states in the order of inputs and outputs; all are (1, ...), zeros at first.
    """

    model: Any
    states: tuple[str, ...]
    has_mean: bool


class RecurrentStep(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """One step of a recurrent layer: from (batch, 1, features) and its states to a result and new states."""

    def __init__(self, original: Any) -> None:
        super().__init__(name=f"{original.name}_step")
        self.original = original

    def call(self, inputs: list[Any]) -> list[Any]:
        """Return the output, (batch, 1, units) if the layer returns sequences, and the new states."""
        step, *states = inputs
        cell = self.original.cell
        new = advance(cell, project(cell, ops.squeeze(step, axis=1)), tuple(states))
        output = ops.expand_dims(new[0], 1) if self.original.return_sequences else new[0]
        return [output, *new]


class CausalStep(layers.Layer):  # type: ignore[misc]
    """One step of a causal `Conv1D`; the state is the past steps of its kernel, (batch, steps, features)."""

    def __init__(self, original: Any) -> None:
        super().__init__(name=f"{original.name}_step")
        self.original = original

    def call(self, inputs: list[Any]) -> list[Any]:
        """Return the output (batch, 1, filters) and the new state."""
        original = self.original
        steps = ops.concatenate([inputs[1], inputs[0]], axis=1)
        output = ops.conv(steps, original.kernel, padding="valid", dilation_rate=original.dilation_rate)
        if original.use_bias:
            output = output + original.bias
        return [original.activation(output), steps[:, 1:]]


class MeanStep(layers.Layer):  # type: ignore[misc]
    """A mean over time as a running mean; the states are the mean (batch, n) and the count (batch, 1)."""

    def call(self, inputs: list[Any]) -> list[Any]:
        """Return the running mean, then both states."""
        step, mean, count = inputs
        count = count + 1.0
        mean = mean + (ops.squeeze(step, axis=1) - mean) / count
        return [mean, mean, count]


def stream(model: Any) -> Streamed:
    """Return `model` for one step, with the same weights: after n steps its result is that of a window of n.

    Raises `ModelError` for a layer that needs later steps, drops steps or needs the whole window.
    """
    found = recurrent_layers(model)
    if not found:
        raise ModelError("--recurrent step: the model has no recurrent layer; leave the option out")
    for layer in found:
        if isinstance(layer, layers.Bidirectional) or getattr(layer, "go_backwards", False):
            raise ModelError(
                f"layer {layer.name}: starts at the last step, which a stream does not have; "
                "use --recurrent unroll"
            )
        check_layer(layer)
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        raise ModelError("--recurrent step: the model contains a nested model; build it of layers only")
    refuse_masks(model, "a single step has no mask; remove the mask and feed only the steps that are present")
    builder = _StepBuilder()
    flat = keras.Model(model.inputs, model.outputs)
    step = keras.Input(batch_shape=(1, 1, *model.inputs[0].shape[2:]), name="input")
    # As `clone_model` does, which cannot be used here: it refuses inputs that are created on the way.
    result = flat._run_through_graph([step], operation_fn=lambda layer: layer, call_fn=builder.call)
    outputs = [*keras.tree.flatten(result), *builder.after]
    return Streamed(
        keras.Model([step, *builder.before], outputs),
        tuple(state.name for state in builder.before),
        builder.has_mean,
    )


class _StepBuilder:
    """Calls each layer of a model on one step and collects the states before and after."""

    def __init__(self) -> None:
        self.before: list[Any] = []
        self.after: list[Any] = []
        self.has_mean = False

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the output of `layer` for the step."""
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        if isinstance(layer, layers.RNN):
            units = layer.cell.units
            shapes = dict.fromkeys(state_names(layer.cell), (1, units))
            return self._with_states(RecurrentStep(layer), layer.name, inputs[0], shapes)
        if not any(len(x.shape) > 2 for x in inputs):
            return layer(*args, **kwargs)
        if type(layer) is layers.Conv1D:
            return self._convolve(layer, inputs[0])
        if type(layer) is layers.GlobalAveragePooling1D and not layer.keepdims:
            self.has_mean = True
            shapes = {"mean": (1, inputs[0].shape[2]), "count": (1, 1)}
            return self._with_states(MeanStep(), layer.name, inputs[0], shapes)
        last = len(inputs[0].shape) - 1
        axes = getattr(layer, "axis", -1)
        over_last = isinstance(layer, OVER_LAST_AXIS) and axes in (-1, last, [-1], [last], (-1,), (last,))
        if not over_last and not isinstance(layer, STEPWISE):
            raise ModelError(
                f"layer {layer.name}: {type(layer).__name__} needs more than one step at a time; "
                "use --recurrent unroll"
            )
        return layer(*args, **kwargs)

    def _convolve(self, layer: Any, step: Any) -> Any:
        reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        if layer.strides[0] != 1 or (layer.padding != "causal" and reach):
            raise ModelError(
                f"layer {layer.name}: Conv1D with padding {layer.padding!r} and strides {layer.strides[0]} "
                "needs later steps or drops steps; build it with padding='causal' and strides=1, or use "
                "--recurrent unroll"
            )
        if not reach:
            return layer(step)
        return self._with_states(CausalStep(layer), layer.name, step, {"past": (1, reach, step.shape[2])})

    def _with_states(self, layer: Any, name: str, step: Any, shapes: dict[str, Any]) -> Any:
        """Call `layer` on the step and on new state inputs of these shapes; collect its new states."""
        # Numbered, because inputs and outputs are sorted by name.
        first = len(self.before)
        states = [
            keras.Input(batch_shape=shape, name=f"state_{first + i:02d}_{name}_{part}")
            for i, (part, shape) in enumerate(shapes.items())
        ]
        output, *after = layer([step, *states])
        self.before += states
        self.after += after
        return output
