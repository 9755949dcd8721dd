"""What eyes, mouth and head of a face do, read from one picture by everything that can read them."""

from __future__ import annotations

from typing import Literal

from edge.face.eyes import EyeStateClassifier
from edge.face.head_pose import head_pitch_deg
from edge.face.mouth import mouth_opening
from edge.face.yawning import YawnClassifier
from edge.inference.card import TfliteClassifier, open_classifier
from edge.settings import Config
from edge.values import Face, FaceMeasurements, UInt8

NOTHING = "none"  # in place of a model's name
MeasurementTask = Literal["eyes", "mouth"]
MEASUREMENT_TASKS: tuple[MeasurementTask, ...] = ("eyes", "mouth")  # each is a key of `models`


class FaceMeasurer:
    """Reads faces one by one, from one thread; what it has no model for is None."""

    def __init__(self, eyes: EyeStateClassifier | None = None, mouth: YawnClassifier | None = None) -> None:
        self.eyes = eyes
        self.mouth = mouth

    def read(self, pixels: UInt8, face: Face, t_ns: int) -> FaceMeasurements:
        """Return what `face` does in `pixels` (h, w, 3), captured at `t_ns`."""
        return FaceMeasurements(
            face.track,
            t_ns,
            closed=None if self.eyes is None else self.eyes.closed(pixels, face),
            mouth=mouth_opening(face),
            yawning=None if self.mouth is None else self.mouth.yawning(pixels, face),
            pitch_deg=head_pitch_deg(face),
        )


def open_face_measurer(config: Config) -> FaceMeasurer:
    """Open the models that `config.models` names; `ModelError` tells of one that is not what it should be.

    Where fatigue is switched off nobody asks for eyes and yawns, so none is opened.
    """
    if not config.fatigue.enabled:
        return FaceMeasurer()
    eyes, mouth = (open_measurement_model(config, task) for task in MEASUREMENT_TASKS)
    return FaceMeasurer(
        None if eyes is None else EyeStateClassifier(eyes), None if mouth is None else YawnClassifier(mouth)
    )


def open_measurement_model(config: Config, task: MeasurementTask) -> TfliteClassifier | None:
    """Open the configured model of `task` on the CPU, which costs less than the way to an accelerator.

    Returns None for `none`. One that `models.directory` does not have is the package's: who replaces the
    face model has no eye model.
    """
    name, directory = getattr(config.models, task), config.models.directory
    if name == NOTHING:
        return None
    if directory is not None and not (directory / f"{name}.json").exists():
        directory = None
    return open_classifier(name, task=task, directory=directory)
