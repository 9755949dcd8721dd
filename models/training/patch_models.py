"""Trains the small networks that classify a crop of an eye or of a mouth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.card import Source, Task
from edge.inference.features import Features
from edge.values import Float32
from models.cards import draft_card, save_calibration, save_trained
from models.metrics import fit_temperature
from models.run import Run
from models.training.engine import Epoch, Schedule, train
from models.training.torch_network import Network

CALIBRATION = 400


@dataclass(frozen=True, slots=True)
class PatchModel:
    """A network for crops (height, width, 1) in [0, 1]: its layers, training and card."""

    task: Task
    build: Callable[[], Any]
    shape: tuple[int, int, int]
    features: Features
    schedule: Schedule
    sources: tuple[Source, ...]

    def train(
        self,
        run: Run,
        name: str,
        epoch_of: Epoch,
        *,
        validation: tuple[Float32, NDArray[np.int64]],
        figures_of: Callable[[Float32], Mapping[str, float]],
        held_out: Sequence[str],
    ) -> Path:
        """Train one model; write the model, calibration inputs and card; return the path of the card.

        `validation` is inputs (n, height, width, 1) and labels (n,). `figures_of` returns shares in [0, 1]
        for the log, from predictions (n, k) for these inputs.
        """
        schedule = replace(self.schedule, epochs=run.epochs or self.schedule.epochs)
        model = train(self.build, epoch_of, None, name=name, schedule=schedule, run=run)
        inputs, labels = validation
        p = Network(model).predict(inputs)
        figures = ", ".join(f"{key} {100 * value:.1f} %" for key, value in figures_of(p).items())
        run.report(f"{name}: validation: {figures}")
        save_calibration(run.out, name, epoch_of(schedule.epochs)[0][:CALIBRATION])
        card = draft_card(
            name,
            task=self.task,
            shape=(1, *self.shape),
            value_range=(0.0, 1.0),
            features=self.features,
            temperature=fit_temperature(p, labels),
            data=self.sources,
            held_out=held_out,
        )
        return save_trained(run.out, card)
