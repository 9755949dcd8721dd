"""A face in a frame -> `FaceMeasurements`: the state of its eyes and mouth and the pitch of its head."""

from __future__ import annotations

from edge.face.eyes import EyeStateClassifier
from edge.face.head_pose import head_pitch_deg
from edge.face.mouth import mouth_opening
from edge.face.yawning import YawnClassifier
from edge.inference.models import open_optional_model
from edge.settings import Config
from edge.values import Face, FaceMeasurements, UInt8


class FaceMeasurer:
    """Measures one face at a time, from one thread; a value without a model is None."""

    def __init__(self, eyes: EyeStateClassifier | None = None, mouth: YawnClassifier | None = None) -> None:
        self.eyes = eyes
        self.mouth = mouth

    def measure(self, pixels: UInt8, face: Face, t_ns: int) -> FaceMeasurements:
        """Return the measurements of `face` in `pixels` (h, w, 3), captured at `t_ns`."""
        return FaceMeasurements(
            face.track,
            t_ns,
            closed=None if self.eyes is None else self.eyes.p_closed(pixels, face),
            mouth=mouth_opening(face),
            yawning=None if self.mouth is None else self.mouth.p_yawning(pixels, face),
            pitch_deg=head_pitch_deg(face),
        )


def open_face_measurer(config: Config) -> FaceMeasurer:
    """Open the models `models.eyes` and `models.mouth`; none where `fatigue.enabled` is false.

    Raises `ModelError` for a model that cannot be used.
    """
    if not config.fatigue.enabled:
        return FaceMeasurer()
    eyes, mouth = open_optional_model(config, "eyes"), open_optional_model(config, "mouth")
    return FaceMeasurer(
        None if eyes is None else EyeStateClassifier(eyes), None if mouth is None else YawnClassifier(mouth)
    )
