"""`input.features` of a model card: which features a model reads, one class for each `kind`.

The code that computes them is in `edge.face` and `edge.voice`; a class here holds the parameters only.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

MIN_DISTANCE = 0.01  # between eyes, and between eyes and mouth, in sides of the crop: nothing divides by zero


# Of a model or a file beside its card; never a path.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]
Side = Annotated[int, Field(ge=1, le=1024)]  # in pixels
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0.1, le=60)]
Statistics = Annotated[tuple[float, ...], Field(min_length=40, max_length=40)]
Deviations = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=40, max_length=40)]


class Spec(BaseModel):
    """What one kind of features needs; the names of the fields are those of the card."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether these features fill an input of this shape, as far as they determine it."""
        raise NotImplementedError

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
    size: Side
    eyes: tuple[tuple[Share, Share], tuple[Share, Share]]
    mouth_y: Share
    levelled: bool = False

    @model_validator(mode="after")
    def _is_face(self) -> CropSpec:
        (left, left_y), (right, right_y) = self.eyes
        if right - left < MIN_DISTANCE or self.mouth_y - (left_y + right_y) / 2 < MIN_DISTANCE:
            raise ValueError("the eyes must lie side by side, and the mouth below them")
        return self

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is (1, size, size, 1)."""
        return shape == (1, self.size, self.size, 1)


class EyeSpec(Spec):
    """The crop of an eye: its side in pixels, and the share of it between the corners of the eye.

    An eye is hidden from the probability `hidden` on; training chooses it with the model.
    """

    kind: Literal["eye_crop"] = "eye_crop"
    size: Side
    width: Annotated[float, Field(ge=0.05, le=1)]
    hidden: Share

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is (1, size, size, 1)."""
        return shape == (1, self.size, self.size, 1)


class MouthSpec(Spec):
    """The crop of a mouth: height and width in pixels, filled by the lips."""

    kind: Literal["lips_box"] = "lips_box"
    height: Side
    width: Side

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is (1, height, width, 1)."""
        return shape == (1, self.height, self.width, 1)


class VideoSpec(Spec):
    """A course of embeddings of the face model `of`: `steps` of them at `rate_hz`."""

    kind: Literal["face_embeddings"] = "face_embeddings"
    of: Name
    steps: Annotated[int, Field(ge=2, le=1000)]
    rate_hz: Annotated[float, Field(ge=0.1, le=100)]

    @property
    def span_ns(self) -> int:
        """Nanoseconds from the first step to the last."""
        return round((self.steps - 1) / self.rate_hz * 1e9)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is (1, steps, n)."""
        return len(shape) == 3 and shape[:2] == (1, self.steps)


class VisualSpec(Spec):
    """Image and video prediction of a face as log p, with quality and share: `edge.face.combination`."""

    kind: Literal["image_video_log_p"] = "image_video_log_p"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is (1, 16): twice seven log p, quality and share."""
        return shape == (1, 16)


class PooledMfccSpec(Spec):
    """The mean of 40 MFCC over the frames with speech, standardised by `mean` and `std` (40,)."""

    kind: Literal["mfcc_mean"] = "mfcc_mean"
    mean: Statistics
    std: Deviations
    window_s: Seconds

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` has 40 values."""
        return math.prod(shape) == len(self.mean)


class FrameSpec(Spec):
    """MFCC and pitch of every frame of `window_s`, standardised by `mean` and `std` (40,)."""

    kind: Literal["mfcc_pitch_frames"] = "mfcc_pitch_frames"
    window_s: Seconds
    mean: Statistics
    std: Deviations

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is (1, frames, 40)."""
        return len(shape) == 3 and shape[0] == 1 and shape[2] == len(self.mean)


class FusionSpec(Spec):
    """Predictions of the modalities in `order` as log p, `lowest` the smallest p: `edge.people.pooling`."""

    kind: Literal["opinions"] = "opinions"
    order: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    lowest: Annotated[float, Field(gt=0, lt=0.1)]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether `shape` is one row."""
        return len(shape) == 2 and shape[0] == 1


Features = Annotated[
    CropSpec | EyeSpec | MouthSpec | VideoSpec | VisualSpec | PooledMfccSpec | FrameSpec | FusionSpec,
    Field(discriminator="kind"),
]
