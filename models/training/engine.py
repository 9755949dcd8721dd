"""Trains a Keras network with PyTorch's kernels, twice as fast on a CPU as TensorFlow where it has bfloat16.

The network is written once, in Keras, and saved as Keras; this module runs its layers, learns, and puts the
weights back. Learning is AdamW or SGD with a cosine schedule, soft targets, and an average of the weights
(EMA), which is what is measured and kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge.errors import EdgeError
from edge.values import Float32
from models.training.epochs import Run

WARM_UP = 0.05  # of all steps
Epoch = Callable[[int], tuple[Float32, Float32]]
Scores = Callable[["Network"], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to learn: epochs, examples a step, the highest rate, decay of weights, how slow the EMA is."""

    epochs: int
    batch: int = 96
    rate: float = 2e-3
    decay: float = 0.02
    ema: float = 0.998
    seed: int = 2013


class Network(nn.Module):
    """The layers of a functional Keras model as PyTorch modules; the last softmax is left out.

    Takes (n, h, w, c) or (n, steps, c) float32 as the Keras model does and returns logits (n, classes).
    Raises `EdgeError` for a layer that it does not know.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        # In a tuple: with Keras on PyTorch its layers are modules too, and would be registered here again.
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
            # (n, h, w, c) in memory is what PyTorch calls channels_last (n, c, h, w): no copy.
            x = x.permute(0, 3, 1, 2)
        values = {self.first: x}
        for step, (inputs, output) in zip(self.steps, self.wires, strict=True):
            values[output] = step(*(values[i] for i in inputs))
        return values[self.wires[-1][1]].float()

    def pull(self) -> None:
        """Take the weights of the Keras model."""
        for step in self.steps:
            if isinstance(step, _Weighted):
                step.pull()

    def push(self) -> Any:
        """Give the weights to the Keras model and return it."""
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


def train(
    build: Callable[[], Any],
    epoch_of: Epoch,
    scores: Scores | None,
    *,
    name: str,
    schedule: Schedule,
    run: Run,
) -> Any:
    """Learn epoch by epoch; write the epoch whose averaged weights score best; return that Keras model.

    `epoch_of` gives inputs and soft targets (n, 7) of an epoch by its number; `scores` gives figures of a
    network, of which `"score"` decides; where there is nobody to choose on it is None and the last epoch is
    kept. After every epoch the whole state goes to `NAME.state.pt`, from
    which `run.resume` goes on; an epoch depends on its number only, so the end is the same.
    """
    import keras

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))
    keras.utils.set_random_seed(schedule.seed)
    run.out.mkdir(parents=True, exist_ok=True)
    out, state = run.out / f"{name}.keras", run.out / f"{name}.state.pt"
    network, average = Network(build()), Network(build())
    if not has_bfloat16():
        run.report(f"{name}: in float32, which is slower; this CPU has no bfloat16")
    average.load_state_dict(network.state_dict())
    optimizer = _optimizer(network, schedule)
    history: list[dict[str, float]] = []
    if run.resume and state.exists():
        kept = torch.load(state, weights_only=True)
        network.load_state_dict(kept["network"])
        average.load_state_dict(kept["average"])
        optimizer.load_state_dict(kept["optimizer"])
        history = kept["history"]
        run.report(f"{state.name}: resumed after epoch {len(history)}")
    for number in range(len(history), schedule.epochs):
        torch.manual_seed(schedule.seed * 1000 + number)
        with run.bar(f"{name}: epoch {number + 1} of {schedule.epochs}") as progress:
            loss = _one_epoch(network, average, optimizer, epoch_of(number), number, schedule, progress)
        if not np.isfinite(loss):
            raise EdgeError(f"{name}: loss {loss} in epoch {number + 1}; lower the rate of its schedule")
        found = scores(average) if scores else {}
        if not scores or found["score"] > max((entry["score"] for entry in history), default=-1.0):
            _save_keras(average.push(), out)
        history.append({"epoch": number + 1, "loss": round(loss, 5), **found})
        _save_state(
            state,
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": history,
            },
        )
        said = "".join(f", {key} {value:.4f}" for key, value in found.items())
        run.report(f"{name}: epoch {number + 1}/{schedule.epochs}, loss {loss:.4f}{said}")
    (run.out / f"{name}.history.json").write_text(json.dumps(history), encoding="utf-8")
    return keras.models.load_model(out, compile=False)


def has_bfloat16() -> bool:
    """Tell whether the CPU computes in bfloat16 itself; imitated it is 6 to 12 times slower than float32."""
    return any(there for name, there in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def _one_epoch(
    network: Network,
    average: Network,
    optimizer: torch.optim.Optimizer,
    examples: tuple[Float32, Float32],
    number: int,
    schedule: Schedule,
    progress: Callable[[int, int], None],
) -> float:
    inputs, targets = (torch.from_numpy(values) for values in examples)
    count = len(inputs) // schedule.batch  # a last small batch would spoil the batch statistics
    if count == 0:
        raise EdgeError(f"{len(inputs)} training examples: fewer than one step of {schedule.batch}")
    network.train()
    is_native = has_bfloat16()
    total = 0.0
    for i in range(count):
        _set_rate(optimizer, schedule, (number * count + i) / (schedule.epochs * count))
        part = slice(i * schedule.batch, (i + 1) * schedule.batch)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_native):
            logits = network(inputs[part])
        loss = functional.cross_entropy(logits, targets[part])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        _follow(average, network, min(schedule.ema, (number * count + i + 1) / (number * count + i + 10)))
        total += float(loss.detach())
        progress(i + 1, count)
    return total / count


@torch.no_grad()
def _follow(average: Network, network: Network, keep: float) -> None:
    mine = [value for value in average.state_dict().values() if value.is_floating_point()]
    theirs = [value for value in network.state_dict().values() if value.is_floating_point()]
    torch._foreach_lerp_(mine, theirs, 1 - keep)


def _optimizer(network: Network, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); biases and normalisation do not decay."""
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": schedule.decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.rate, foreach=True)


def _set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, done: float) -> None:
    """A linear climb, then half a cosine down to a hundredth (Loshchilov and Hutter 2017)."""
    if done < WARM_UP:
        share = done / WARM_UP
    else:
        share = 0.01 + 0.99 * (1 + np.cos(np.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
    for group in optimizer.param_groups:
        group["lr"] = float(schedule.rate * share)


class _Weighted(nn.Module):
    """A layer with weights: `pull` takes them from Keras's layer, `push` gives them back."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = (layer,)  # in a tuple, see Network

    def pull(self) -> None:
        with torch.no_grad():
            for mine, value in zip(self.tensors(), self.layer[0].get_weights(), strict=True):
                mine.copy_(torch.from_numpy(self.turned(value, back=False)))

    def push(self) -> None:
        self.layer[0].set_weights([self.turned(t.detach().numpy(), back=True) for t in self.tensors()])

    def tensors(self) -> list[torch.Tensor]:
        """The tensors in the order of Keras's weights."""
        raise NotImplementedError

    def turned(self, value: Float32, *, back: bool) -> Float32:
        """A kernel with its axes as the other side has them; vectors are the same on both."""
        del back
        return np.ascontiguousarray(value.T) if value.ndim == 2 else value


class _Conv(_Weighted):
    """Conv2D and Conv1D with an optional ReLU; (h, w, in, out) in Keras is (out, in, h, w) here."""

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

    def turned(self, value: Float32, *, back: bool) -> Float32:
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
    """Dense; a softmax is left to the loss."""

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
    """LSTM with tanh; both libraries order the gates input, forget, cell, output."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        if layer.activation.__name__ != "tanh" or layer.go_backwards:
            raise EdgeError(f"layer {layer.name}: only a forward LSTM with tanh is trained here")
        self.lstm = nn.LSTM(layer.input.shape[-1], layer.units, batch_first=True)
        # Keras has one bias, PyTorch two.
        dict(self.lstm.named_parameters())["bias_hh_l0"].requires_grad_(False).zero_()
        self.is_sequence = layer.return_sequences

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):  # rounding would add up over the steps
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
    made: dict[str, Callable[[Any], nn.Module]] = {
        "BatchNormalization": _Norm,
        "Dense": _Dense,
        "LSTM": _Lstm,
        "ReLU": lambda _: nn.ReLU(),
        "Add": lambda _: _Add(),
        "Concatenate": lambda _: _Join(),
        "GlobalAveragePooling2D": lambda _: _Mean(),
        "GlobalAveragePooling1D": lambda _: _Mean(),
    }
    if kind not in made:
        raise EdgeError(
            f"layer {layer.name}: {kind} is not trained here; add it to models/training/engine.py"
        )
    return made[kind](layer)


def _activation(layer: Any) -> nn.Module:
    name = layer.activation.__name__
    if name not in ("linear", "softmax", "relu"):
        raise EdgeError(f"layer {layer.name}: activation {name} is not trained here")
    return nn.ReLU() if name == "relu" else nn.Identity()


def _same_padding(layer: Any) -> list[int]:
    """Return TensorFlow's "same" padding, the last axis first: what is uneven goes after."""
    pads: list[int] = []
    sides = layer.input.shape[1:-1]
    for side, kernel, stride in reversed(list(zip(sides, layer.kernel_size, layer.strides, strict=True))):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _save_keras(model: Any, path: Path) -> None:
    part = path.with_name(f".{path.stem}.part.keras")
    model.save(part)
    part.replace(path)


def _save_state(path: Path, state: dict[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    torch.save(state, part)
    part.replace(path)
