"""Runs the layers of a Keras model as PyTorch modules and copies the weights both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge.errors import EdgeError
from edge.values import Float32


class Network(nn.Module):
    """The layers of a functional Keras model as PyTorch modules, without the final softmax.

    Takes (n, h, w, c) or (n, steps, c) float32 as the Keras model and returns logits (n, classes).
    Raises `EdgeError` for an unsupported layer.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        # In a tuple: with Keras on PyTorch, layers are modules and would be registered as submodules.
        self.keras = (model,)
        self.steps = nn.ModuleList()
        self.wires: list[tuple[list[int], int]] = []
        self.first = id(model.inputs[0])
        for layer in model.layers:
            if type(layer).__name__ == "InputLayer":
                continue
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            self.steps.append(_module(layer))
            self.wires.append(([id(tensor) for tensor in inputs], id(layer.output)))
        self.pull()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run all layers in the order of the Keras model."""
        if x.ndim == 4:
            # (n, h, w, c) in memory is channels_last (n, c, h, w) in PyTorch: no copy.
            x = x.permute(0, 3, 1, 2)
        values = {self.first: x}
        for step, (inputs, output) in zip(self.steps, self.wires, strict=True):
            values[output] = step(*(values[i] for i in inputs))
        return values[self.wires[-1][1]].float()

    def pull(self) -> None:
        """Copy the weights of the Keras model into this network."""
        for step in self.steps:
            if isinstance(step, _Weighted):
                step.pull()

    def push(self) -> Any:
        """Copy the weights of this network into the Keras model and return it."""
        for step in self.steps:
            if isinstance(step, _Weighted):
                step.push()
        return self.keras[0]

    @torch.inference_mode()
    def predict(self, inputs: Float32, *, batch: int = 256) -> Float32:
        """Return probabilities (n, classes) in float32 arithmetic."""
        self.eval()
        parts = [self(torch.from_numpy(inputs[i : i + batch])) for i in range(0, len(inputs), batch)]
        return functional.softmax(torch.cat(parts), dim=1).numpy().astype(np.float32)


class _Weighted(nn.Module):
    """A layer with weights; `pull` copies them from the Keras layer, `push` copies them back."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = (layer,)  # in a tuple, see Network

    def pull(self) -> None:
        with torch.no_grad():
            for mine, value in zip(self.tensors(), self.layer[0].get_weights(), strict=True):
                mine.copy_(torch.from_numpy(self.reordered(value, back=False)))

    def push(self) -> None:
        self.layer[0].set_weights([self.reordered(t.detach().numpy(), back=True) for t in self.tensors()])

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors in the order of Keras's weights."""
        raise NotImplementedError

    def reordered(self, value: Float32, *, back: bool) -> Float32:
        """Return a kernel with the axis order of the other library; vectors need no change."""
        del back
        return np.ascontiguousarray(value.T) if value.ndim == 2 else value


class _Conv(_Weighted):
    """Conv2D and Conv1D with an optional ReLU; (h, w, in, out) in Keras is (out, in, h, w) in PyTorch."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        shape = layer.kernel.shape
        kind = nn.Conv2d if len(shape) == 4 else nn.Conv1d
        stride = tuple(layer.strides)
        self.conv = kind(shape[-2], shape[-1], shape[:-2], stride=stride, bias=layer.use_bias)
        self.pads = _same_padding(layer) if layer.padding == "same" else []
        self.act = _activation(layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.conv, nn.Conv1d):
            x = x.transpose(1, 2)  # (n, steps, c) -> (n, c, steps)
        if any(self.pads):
            x = functional.pad(x, self.pads)
        x = self.conv(x)
        x = self.act(x)
        return x.transpose(1, 2) if isinstance(self.conv, nn.Conv1d) else x

    def tensors(self) -> list[torch.Tensor]:
        return [self.conv.weight] if self.conv.bias is None else [self.conv.weight, self.conv.bias]

    def reordered(self, value: Float32, *, back: bool) -> Float32:
        if value.ndim < 3:
            return value
        space = tuple(range(2, value.ndim)) if back else tuple(range(value.ndim - 2))
        order = (*space, 1, 0) if back else (value.ndim - 1, value.ndim - 2, *space)
        return np.ascontiguousarray(value.transpose(order))


class _Norm(_Weighted):
    """BatchNormalization over the last axis."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        width, self.is_sequence = layer.gamma.shape[0], len(layer.input.shape) == 3
        kind = nn.BatchNorm1d if self.is_sequence else nn.BatchNorm2d
        self.norm = kind(width, eps=layer.epsilon, momentum=1 - layer.momentum)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_sequence:
            x = x.transpose(1, 2)
        y: torch.Tensor = self.norm(x)
        return y.transpose(1, 2) if self.is_sequence else y

    def tensors(self) -> list[torch.Tensor]:
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return [norm.weight, norm.bias, norm.running_mean, norm.running_var]


class _Dense(_Weighted):
    """Dense; the loss applies the softmax."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.linear = nn.Linear(*layer.kernel.shape)
        self.act = _activation(layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(self.linear(x))
        return y

    def tensors(self) -> list[torch.Tensor]:
        return [self.linear.weight, self.linear.bias]


class _Lstm(_Weighted):
    """LSTM with tanh; both libraries have the gate order input, forget, cell, output."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        if layer.activation.__name__ != "tanh" or layer.go_backwards:
            raise EdgeError(f"layer {layer.name}: only a forward LSTM with tanh is supported")
        self.lstm = nn.LSTM(layer.input.shape[-1], layer.units, batch_first=True)
        # Keras has one bias vector, PyTorch two.
        dict(self.lstm.named_parameters())["bias_hh_l0"].requires_grad_(False).zero_()
        self.is_sequence = layer.return_sequences

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):  # rounding errors would accumulate over the steps
            states: torch.Tensor = self.lstm(x.float())[0]
        return states if self.is_sequence else states[:, -1]

    def tensors(self) -> list[torch.Tensor]:
        parameters = dict(self.lstm.named_parameters())
        return [parameters[name] for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")]


class _Add(nn.Module):
    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return torch.stack(values).sum(dim=0) if len(values) > 2 else values[0] + values[1]


class _Mean(nn.Module):
    """Global average pooling over (h, w) of (n, c, h, w), or over the steps of (n, steps, c)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) if x.ndim == 4 else x.mean(dim=1)


class _Join(nn.Module):
    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return torch.cat(values, dim=-1)


def _module(layer: Any) -> nn.Module:
    kind = type(layer).__name__
    if kind in ("Conv2D", "Conv1D"):
        return _Conv(layer)
    if kind == "Dropout":
        return nn.Dropout(layer.rate)
    modules: dict[str, Callable[[Any], nn.Module]] = {
        "BatchNormalization": _Norm,
        "Dense": _Dense,
        "LSTM": _Lstm,
        "ReLU": lambda _: nn.ReLU(),
        "Add": lambda _: _Add(),
        "Concatenate": lambda _: _Join(),
        "GlobalAveragePooling2D": lambda _: _Mean(),
        "GlobalAveragePooling1D": lambda _: _Mean(),
    }
    if kind not in modules:
        raise EdgeError(
            f"layer {layer.name}: {kind} is not supported; add it to models/training/torch_network.py"
        )
    return modules[kind](layer)


def _activation(layer: Any) -> nn.Module:
    name = layer.activation.__name__
    if name not in ("linear", "softmax", "relu"):
        raise EdgeError(
            f"layer {layer.name}: activation {name} is not supported; use linear, relu or softmax"
        )
    return nn.ReLU() if name == "relu" else nn.Identity()


def _same_padding(layer: Any) -> list[int]:
    """Return TensorFlow's "same" padding, last axis first; with an odd total one more after."""
    pads: list[int] = []
    sides = layer.input.shape[1:-1]
    for side, kernel, stride in reversed(list(zip(sides, layer.kernel_size, layer.strides, strict=True))):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return pads
