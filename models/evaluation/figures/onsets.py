"""What picture, video and both say of expressions that come up, and of clips: what is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.face.combination import FacePredictions, ImageVideoCombiner, Method, combine_predictions
from edge.face.crop import FaceCropper
from edge.face.detector import FaceDetector
from edge.inference.classifier import TfliteClassifier, open_classifier
from edge.pipeline import FacePipeline
from edge.sources.media_files import read_video_frames
from edge.values import LABELS, Float32, Frame, Modality, Prediction
from models.data.datasets import IMAGE_SUFFIXES, label_of, load_jaffe
from models.data.expression_sequences import NEUTRAL, blend, read_grey
from models.data.face_crops import UNLEVELLED, crop_largest
from models.training.embeddings import embed

CKPLUS_FPS = 30.0
RAMP_FPS, RAMP_HOLD, RAMP_ONSET = 10.0, 3, 10  # a second from neutral to the peak, held before and after
METHODS: tuple[Method, ...] = ("image", "video", "mean", "product", "network")


@dataclass(frozen=True, slots=True)
class Pair:
    """A video model and a visual network that belong to one face model."""

    face: TfliteClassifier
    video: TfliteClassifier
    network: TfliteClassifier


@dataclass(frozen=True, slots=True, eq=False)
class OnsetPredictions:
    """What was said of one person: `p` (k, 7) a method, at `way` (k,) 0..1 between neutral and the peak."""

    name: str
    person: str
    label: int
    way: NDArray[np.float64]
    p: dict[Method, Float32]


class RecordingCombiner(ImageVideoCombiner):
    """A judge that keeps what was said of each track, in order, and leaves the opinion as it is."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.video, method="image")
        self._pair = pair
        self.heard: dict[int, list[tuple[int, FacePredictions]]] = {}

    def combine(self, prediction: Prediction, embedding: Float32 | None) -> Prediction:
        """Keep both opinions."""
        assert embedding is not None, "the face models give it"
        said = self.predict(prediction, embedding)
        self.heard.setdefault(prediction.track or 0, []).append((prediction.t_ns, said))
        return prediction

    def told(self, track: int) -> dict[Method, Float32]:
        """Return (k, 7) of one track by each method."""
        said = [opinions for _, opinions in self.heard[track]]
        return {
            method: np.stack([combine_predictions(method, one, self._pair.network) for one in said])
            for method in METHODS
        }


def open_pair(directory: Path, suffix: str = "", *, variant: str = "int8") -> Pair:
    """Open the three models that end in `suffix` (`-fold0`); raises `ModelError` where one is not there."""
    at = directory / "folds" if suffix else directory
    video = open_classifier(f"video-lstm{suffix}", task="video", directory=at, variant=variant)
    network = open_classifier(f"visual{suffix}", task="visual", directory=at, variant=variant)
    return Pair(open_classifier(f"face-cnn{suffix}", task="face", directory=at), video, network)


def predict_ckplus_onset(folder: Path, pair: Pair, detector: FaceDetector) -> OnsetPredictions | None:
    """Show one of CK+'s sequences to the device's eyes at 30 frames a second; None where no face is seen."""
    listener = RecordingCombiner(pair)
    eyes = FacePipeline(pair.face, detector, combiner=listener)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    seen: list[int] = []
    for i, path in enumerate(paths):
        grey = read_grey(path)
        pixels = np.ascontiguousarray(np.repeat(grey[..., np.newaxis], 3, axis=2))  # (h, w) -> (h, w, 3)
        if eyes.process(Frame(pixels, round(i / CKPLUS_FPS * 1e9))):
            seen.append(i)
    if not listener.heard:
        return None
    track = max(listener.heard, key=lambda number: len(listener.heard[number]))
    times_ns = np.array([t_ns for t_ns, _ in listener.heard[track]])
    label = LABELS.index(label_of(folder.parent.name) or "neutral")
    person = f"ckplus:{folder.name.split('_')[0]}"
    way = times_ns / 1e9 * CKPLUS_FPS / (len(paths) - 1)
    return OnsetPredictions(folder.name, person, label, way, listener.told(track))


def predict_jaffe_ramps(directory: Path, pair: Pair, detector: FaceDetector) -> Iterator[OnsetPredictions]:
    """Blend each woman's first neutral picture into each of her others, over a second."""
    jaffe = load_jaffe(directory)
    cropper = FaceCropper(UNLEVELLED)
    crops = [crop_largest(image, detector, cropper) for image in jaffe.images]
    way = np.concatenate([np.zeros(RAMP_HOLD), np.linspace(0, 1, RAMP_ONSET), np.ones(RAMP_HOLD)])
    for person in sorted(set(jaffe.subjects)):
        mine = [i for i, subject in enumerate(jaffe.subjects) if subject == person and crops[i] is not None]
        neutral = next(crops[i] for i in mine if jaffe.labels[i] == NEUTRAL)
        for i in mine:
            peak = crops[i]
            if jaffe.labels[i] == NEUTRAL or neutral is None or peak is None:
                continue
            seen, p = embed(pair.face, blend(neutral, peak, way.astype(np.float32)))
            listener = RecordingCombiner(pair)
            for k in range(len(way)):
                prediction = Prediction(Modality.FACE, p[k], 1.0, round(k / RAMP_FPS * 1e9), 1)
                listener.combine(prediction, seen[k])
            yield OnsetPredictions(
                f"{person}-{i}", f"jaffe:{person}", int(jaffe.labels[i]), way, listener.told(1)
            )


def label_changes(
    path: Path, pair: Pair, detector: FaceDetector, *, every_s: float
) -> tuple[float, dict[Method, int]]:
    """Return the minutes in which faces are seen in a clip, and how often each method changes its label."""
    listener = RecordingCombiner(pair)
    eyes = FacePipeline(pair.face, detector, combiner=listener)
    try:
        for frame in read_video_frames(path, every_s):
            eyes.process(frame)
    except MediaError:
        return 0.0, dict.fromkeys(METHODS, 0)
    changes = dict.fromkeys(METHODS, 0)
    seen = 0
    for track, heard in listener.heard.items():
        seen += len(heard)
        for method, p in listener.told(track).items():
            changes[method] += int(np.count_nonzero(np.diff(p.argmax(axis=1))))
    return seen * every_s / 60, changes
