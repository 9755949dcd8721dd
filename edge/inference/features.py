"""`input.features` of a model card: which features a model reads, one class for each `kind`.

The code that computes them is in `edge.face` and `edge.voice`; a class here holds the parameters only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


class Spec(BaseModel):
    """What one kind of features needs; the names of the fields are those of the card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return `kind` and the fields that were set: a card is saved with the keys it was read with."""
        return {
            key: value
            for key, value in serialize(self).items()
            if key == "kind" or key in self.model_fields_set
        }


class CropSpec(Spec):
    """The crop of a face: its side in pixels, and where the eyes and the mouth lie in it, 0..1.

    A `levelled` crop has a fixed mean and contrast, independent of light and camera.
    """

    kind: Literal["face_crop"] = "face_crop"
    size: int
    eyes: tuple[tuple[float, float], tuple[float, float]]
    mouth_y: float
    levelled: bool = False


class EyeSpec(Spec):
    """The crop of an eye: its side in pixels, and the share of it between the corners of the eye.

    An eye is hidden from the probability `hidden` on; training chooses it with the model.
    """

    kind: Literal["eye_crop"] = "eye_crop"
    size: int
    width: float
    hidden: float


class MouthSpec(Spec):
    """The crop of a mouth: height and width in pixels, filled by the lips."""

    kind: Literal["lips_box"] = "lips_box"
    height: int
    width: int


class VideoSpec(Spec):
    """A course of embeddings of the face model `of`: `steps` of them at `rate_hz`."""

    kind: Literal["face_embeddings"] = "face_embeddings"
    of: str
    steps: int
    rate_hz: float

    @property
    def span_ns(self) -> int:
        """Nanoseconds from the first step to the last."""
        return round((self.steps - 1) / self.rate_hz * 1e9)


class VisualSpec(Spec):
    """Image and video prediction of a face as log p, with quality and share: `edge.face.combination`."""

    kind: Literal["image_video_log_p"] = "image_video_log_p"


class PooledMfccSpec(Spec):
    """The mean of 40 MFCC over the frames with speech, standardised by `mean` and `std` (40,)."""

    kind: Literal["mfcc_mean"] = "mfcc_mean"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window_s: float


class FrameSpec(Spec):
    """MFCC and pitch of every frame of `window_s`, standardised by `mean` and `std` (40,)."""

    kind: Literal["mfcc_pitch_frames"] = "mfcc_pitch_frames"
    window_s: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class FusionSpec(Spec):
    """Predictions of the modalities in `order` as log p, `lowest` the smallest p: `edge.people.pooling`."""

    kind: Literal["opinions"] = "opinions"
    order: tuple[str, ...]
    lowest: float


Features = Annotated[
    CropSpec | EyeSpec | MouthSpec | VideoSpec | VisualSpec | PooledMfccSpec | FrameSpec | FusionSpec,
    Field(discriminator="kind"),
]
