"""The values that flow through the pipeline, all frozen: from a frame to the event that leaves the device.

Times are `*_ns` from `time.monotonic_ns()` at capture; boxes are pixels. Only `EmotionEvent` can become JSON:
pixels, samples and embeddings are never serialised.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

LABELS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
UNCERTAIN = "uncertain"
ABSENT = "absent"
SAMPLE_RATE_HZ = 16_000
PARTS = ("camera", "microphone")  # devices with a switch

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


class Modality(StrEnum):
    """Where a prediction comes from."""

    FACE = "face"
    VOICE = "voice"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image: `pixels` (h, w, 3) uint8 RGB, captured at `t_ns`.

    `dropped` counts the frames lost since the previous one, because the reader was busy or they were damaged.
    Frames above the configured rate do not count.
    """

    pixels: UInt8
    t_ns: int
    dropped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """Consecutive audio: `samples` (n,) float32 in [-1, 1]; `t_ns` is the capture time of the first one.

    `gap` counts the samples lost since the previous chunk.
    """

    samples: Float32
    t_ns: int
    rate_hz: int = SAMPLE_RATE_HZ
    gap: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face in one frame.

    `box_px` is x, y, w, h; `landmarks` (n, 2) float32 pixels, or None where only a box is known;
    `score` 0..1 of the detector; `track` is a number that a person keeps while in view, 0 without tracking.
    """

    box_px: tuple[float, float, float, float]
    score: float
    landmarks: Float32 | None = None
    track: int = 0


@dataclass(frozen=True, slots=True)
class FaceMeasurements:
    """Eyes, mouth and head of one face at `t_ns`, each None where it cannot be measured.

    `closed` and `yawning` are probabilities 0..1; `mouth` is the opening of the lips over the width of the
    mouth, 0 when shut; `pitch_deg` is positive when the head is bowed.
    """

    track: int
    t_ns: int
    closed: float | None = None
    mouth: float | None = None
    yawning: float | None = None
    pitch_deg: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The output of one model: `p` (7,) float32 in the order of `LABELS`, sums to 1.

    `quality` 0..1 is that of the input (size and angle of a face, amount and clarity of speech).
    `track` is the number of the face, None for a voice. `t_ns` is the capture time of the newest input.
    """

    modality: Modality
    p: Float32
    quality: float
    t_ns: int
    track: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FaceResult:
    """One face in one frame with its prediction and its measurements."""

    face: Face
    prediction: Prediction
    measurements: FaceMeasurements | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The part of one modality in a fused state: its own probabilities, quality and share 0..1."""

    probabilities: Mapping[str, float]
    quality: float
    weight: float


@dataclass(frozen=True, slots=True)
class SubjectState:
    """The fused state of one subject (`person-3` or `room`) at `t_ns`.

    `emotion` is a label, `uncertain` or `absent`; `probabilities` are empty when absent.
    """

    subject: str
    emotion: str
    confidence: float
    probabilities: Mapping[str, float]
    face: Evidence | None
    voice: Evidence | None
    t_ns: int


@dataclass(frozen=True, slots=True)
class EmotionEvent:
    """A change to report: the only value that is serialised to a message of its own.

    `type` is one of emotion.changed, presence.gained, presence.lost, fatigue.changed,
    device.degraded, device.recovered. `data` holds numbers, labels and names, never arrays.
    `t_ns` is the monotonic capture time of its cause, `time` the same instant on the wall clock.
    """

    id: str
    type: str
    time: datetime
    t_ns: int
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_cloudevent(self, *, device: str, sequence: int) -> dict[str, Any]:
        """Return the CloudEvents 1.0 structured form; `sequence` comes from the outbox, gapless."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": f"emotion-edge/{device}",
            "type": self.type,
            "subject": str(self.data.get("subject", "room")),
            "time": rfc3339(self.time),
            "datacontenttype": "application/json",
            "sequence": sequence,
            "data": dict(self.data),
        }


def measurements_of(face_results: Iterable[FaceResult]) -> list[FaceMeasurements]:
    """Return the measurements of the faces that have any."""
    return [face_result.measurements for face_result in face_results if face_result.measurements is not None]


def encode(payload: Mapping[str, Any] | str) -> bytes:
    """Return the bytes of a payload: a str unchanged, a mapping as compact JSON."""
    if isinstance(payload, str):
        return payload.encode()
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def rfc3339(moment: datetime) -> str:
    """Format an aware datetime as RFC 3339 UTC with milliseconds, the format of all times in messages."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def probabilities(p: Float32) -> dict[str, float]:
    """Return `p` (7,) by label, rounded to 4 places, for messages."""
    return {label: round(float(value), 4) for label, value in zip(LABELS, p, strict=True)}


T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Frames or audio chunks from a device or a file.

    Iterating blocks until the next item, ends when a file ends, and raises `DeviceError` when a
    device fails. `close` may be called from another thread, more than once, and ends the iteration.
    """

    name: str

    def __iter__(self) -> Iterator[T_co]: ...

    def close(self) -> None: ...


class Classifier(Protocol):
    """A model of one modality: features in, `p` (7,) float32 that sums to 1 out."""

    name: str

    def classify(self, features: Float32) -> Float32: ...
