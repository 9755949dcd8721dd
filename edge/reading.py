"""What eyes, mouth and head of a face do, read from one picture by everything that can read them."""

from __future__ import annotations

from edge.card import TfliteClassifier, open_classifier
from edge.eyestate import EyeReader
from edge.headpose import head_pitch_deg
from edge.mouth import mouth_opening
from edge.settings import Config
from edge.values import Face, Reading, UInt8

NOTHING = "none"  # in place of a model's name
READING_TASKS = ("eyes",)  # each is a key of `models` with a model of that task


class FaceReader:
    """Reads faces one by one, from one thread; without an eye model it says nothing of the eyes."""

    def __init__(self, eyes: EyeReader | None) -> None:
        self.eyes = eyes

    def read(self, pixels: UInt8, face: Face, t_ns: int) -> Reading:
        """Return what `face` does in `pixels` (h, w, 3), captured at `t_ns`."""
        return Reading(
            face.track,
            t_ns,
            closed=None if self.eyes is None else self.eyes.closed(pixels, face),
            mouth=mouth_opening(face),
            pitch_deg=head_pitch_deg(face),
        )


def open_face_reader(config: Config) -> FaceReader:
    """Open the models that `config.models` names; `ModelError` tells of one that is not what it should be."""
    name = config.models.eyes
    return FaceReader(None if name == NOTHING else EyeReader(open_reading_model(config, "eyes")))


def open_reading_model(config: Config, task: str) -> TfliteClassifier:
    """Open the configured model of `task`, on the CPU: it costs less than the way to an accelerator.

    One that `models.directory` does not have is the package's: who replaces the face model has no eye model.
    """
    name, directory = getattr(config.models, task), config.models.directory
    if directory is not None and not (directory / f"{name}.json").exists():
        directory = None
    return open_classifier(name, task=task, directory=directory)
