"""Trains a Keras network with PyTorch kernels: on a CPU with bfloat16 twice as fast as TensorFlow.

The network is defined and saved in Keras. Training uses AdamW with a cosine schedule, soft targets, and an
exponential moving average (EMA) of the weights; the averaged weights are evaluated and saved.
"""

from __future__ import annotations

import json
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
from models.files import replaced
from models.run import Run, available_cores
from models.training.torch_network import Network

WARM_UP = 0.05  # of all steps
Epoch = Callable[[int], tuple[Float32, Float32]]
Scores = Callable[[Network], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Epochs, examples a step, maximum learning rate, weight decay, decay of the EMA, seed."""

    epochs: int
    batch: int = 96
    rate: float = 2e-3
    decay: float = 0.02
    ema: float = 0.998
    seed: int = 2013


def train(
    build: Callable[[], Any],
    epoch_of: Epoch,
    scores: Scores | None,
    *,
    name: str,
    schedule: Schedule,
    run: Run,
) -> Any:
    """Train; save the epoch whose averaged weights have the best score; return it as Keras model.

    `epoch_of` returns inputs and soft targets (n, 7) of an epoch by its number. `scores` returns validation
    figures of a network, the best `"score"` wins; with None the last epoch is saved. After every epoch
    `NAME.state.pt` holds the complete state, from which `run.resume` continues. An epoch depends only on its
    number, so a resumed run ends with the same weights.
    """
    import keras

    torch.set_num_threads(available_cores())
    keras.utils.set_random_seed(schedule.seed)
    run.out.mkdir(parents=True, exist_ok=True)
    out, state = run.out / f"{name}.keras", run.out / f"{name}.state.pt"
    network, average = Network(build()), Network(build())
    if not has_bfloat16():
        run.report(f"{name}: trains in float32, which is slower: this CPU has no bfloat16")
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
            with replaced(out) as part:
                average.push().save(part)
        history.append({"epoch": number + 1, "loss": round(loss, 5), **found})
        _save_state(state, network, average, optimizer, history)
        figures = "".join(f", {key} {value:.4f}" for key, value in found.items())
        run.report(f"{name}: epoch {number + 1}/{schedule.epochs}, loss {loss:.4f}{figures}")
    with replaced(run.out / f"{name}.history.json") as part:
        part.write_text(json.dumps(history), encoding="utf-8")
    return keras.models.load_model(out, compile=False)


def has_bfloat16() -> bool:
    """Return whether the CPU has bfloat16; emulated it is 6 to 12 times slower than float32."""
    return any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


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
    count = len(inputs) // schedule.batch  # a small last batch would distort the batch statistics
    if count == 0:
        raise EdgeError(f"{len(inputs)} training examples: fewer than one step of {schedule.batch}; add data")
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
        _update_average(
            average, network, min(schedule.ema, (number * count + i + 1) / (number * count + i + 10))
        )
        total += float(loss.detach())
        progress(i + 1, count)
    return total / count


@torch.no_grad()
def _update_average(average: Network, network: Network, keep: float) -> None:
    averaged = [value for value in average.state_dict().values() if value.is_floating_point()]
    current = [value for value in network.state_dict().values() if value.is_floating_point()]
    torch._foreach_lerp_(averaged, current, 1 - keep)


def _optimizer(network: Network, schedule: Schedule) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov and Hutter 2019) without decay of biases and normalisation."""
    weights = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    rest = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": schedule.decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.rate, foreach=True)


def _set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, done: float) -> None:
    """Set the rate: linear warm-up, then a cosine down to 1 % (Loshchilov and Hutter 2017)."""
    if done < WARM_UP:
        share = done / WARM_UP
    else:
        share = 0.01 + 0.99 * (1 + np.cos(np.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
    for group in optimizer.param_groups:
        group["lr"] = float(schedule.rate * share)


def _save_state(
    path: Path,
    network: Network,
    average: Network,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, float]],
) -> None:
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    with replaced(path) as part:
        torch.save(state, part)
