"""Predictions of face model, video model and their combinations for expression onsets and clips."""

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
from models.data.face_crops import UNLEVELLED, crop_largest, grey_to_rgb
from models.training.embeddings import embed

CKPLUS_FPS = 30.0
RAMP_FPS, RAMP_HOLD, RAMP_ONSET = 10.0, 3, 10  # 1 s from neutral to the peak; held frames before and after
METHODS: tuple[Method, ...] = ("image", "video", "mean", "product", "network")


@dataclass(frozen=True, slots=True)
class VisualModels:
    """A face model with its video model and visual network."""

    face: TfliteClassifier
    video: TfliteClassifier
    network: TfliteClassifier


@dataclass(frozen=True, slots=True, eq=False)
class OnsetPredictions:
    """Predictions `p` (k, 7) of each method for an onset, at `way` (k,), 0 (neutral) to 1 (peak)."""

    name: str
    person: str
    label: int
    way: NDArray[np.float64]
    p: dict[Method, Float32]


class RecordingCombiner(ImageVideoCombiner):
    """A combiner that records both predictions of each track in order and returns that of the face model."""

    def __init__(self, models: VisualModels) -> None:
        super().__init__(models.video, method="image")
        self._models = models
        self.recorded: dict[int, list[tuple[int, FacePredictions]]] = {}

    def combine(self, prediction: Prediction, embedding: Float32 | None) -> Prediction:
        """Record both predictions."""
        assert embedding is not None, "the face models give it"
        both = self.predict(prediction, embedding)
        self.recorded.setdefault(prediction.track or 0, []).append((prediction.t_ns, both))
        return prediction

    def by_method(self, track: int) -> dict[Method, Float32]:
        """Return the predictions (k, 7) of one track by each method."""
        predictions = [both for _, both in self.recorded[track]]
        return {
            method: np.stack([combine_predictions(method, one, self._models.network) for one in predictions])
            for method in METHODS
        }


def open_visual_models(directory: Path, suffix: str = "", *, variant: str = "int8") -> VisualModels:
    """Open the three models with `suffix` (`-fold0`); raise `ModelError` if one is missing."""
    at = directory / "folds" if suffix else directory
    video = open_classifier(f"video-lstm{suffix}", task="video", directory=at, variant=variant)
    network = open_classifier(f"visual{suffix}", task="visual", directory=at, variant=variant)
    return VisualModels(open_classifier(f"face-cnn{suffix}", task="face", directory=at), video, network)


def predict_ckplus_onset(
    folder: Path, models: VisualModels, detector: FaceDetector
) -> OnsetPredictions | None:
    """Run the face pipeline on a CK+ sequence at 30 fps; return None if no face is detected."""
    recorder = RecordingCombiner(models)
    face_pipeline = FacePipeline(models.face, detector, combiner=recorder)
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    detected: list[int] = []
    for i, path in enumerate(paths):
        grey = read_grey(path)
        if face_pipeline.process(Frame(grey_to_rgb(grey), round(i / CKPLUS_FPS * 1e9))):
            detected.append(i)
    if not recorder.recorded:
        return None
    track = max(recorder.recorded, key=lambda number: len(recorder.recorded[number]))
    times_ns = np.array([t_ns for t_ns, _ in recorder.recorded[track]])
    label = LABELS.index(label_of(folder.parent.name) or "neutral")
    person = f"ckplus:{folder.name.split('_')[0]}"
    way = times_ns / 1e9 * CKPLUS_FPS / (len(paths) - 1)
    return OnsetPredictions(folder.name, person, label, way, recorder.by_method(track))


def predict_jaffe_ramps(
    directory: Path, models: VisualModels, detector: FaceDetector
) -> Iterator[OnsetPredictions]:
    """Blend each person's first neutral JAFFE image into each of the person's expressions over 1 s."""
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
            embeddings, p = embed(models.face, blend(neutral, peak, way.astype(np.float32)))
            recorder = RecordingCombiner(models)
            for k in range(len(way)):
                prediction = Prediction(Modality.FACE, p[k], 1.0, round(k / RAMP_FPS * 1e9), 1)
                recorder.combine(prediction, embeddings[k])
            yield OnsetPredictions(
                f"{person}-{i}", f"jaffe:{person}", int(jaffe.labels[i]), way, recorder.by_method(1)
            )


def label_changes(
    path: Path, models: VisualModels, detector: FaceDetector, *, every_s: float
) -> tuple[float, dict[Method, int]]:
    """Return the minutes with detected faces in a clip, and the number of label changes of each method."""
    recorder = RecordingCombiner(models)
    face_pipeline = FacePipeline(models.face, detector, combiner=recorder)
    try:
        for frame in read_video_frames(path, every_s):
            face_pipeline.process(frame)
    except MediaError:
        return 0.0, dict.fromkeys(METHODS, 0)
    changes = dict.fromkeys(METHODS, 0)
    frames = 0
    for track, recorded in recorder.recorded.items():
        frames += len(recorded)
        for method, p in recorder.by_method(track).items():
            changes[method] += int(np.count_nonzero(np.diff(p.argmax(axis=1))))
    return frames * every_s / 60, changes
