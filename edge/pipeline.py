"""Frames -> face results, audio -> voice results: the pipelines that the daemon and `analyze` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge.face.combination import ImageVideoCombiner, open_combiner
from edge.face.crop import FaceCropper
from edge.face.detector import FaceDetector, open_face_detector
from edge.face.measurements import FaceMeasurer, open_face_measurer
from edge.face.tracking import FaceTracker
from edge.inference.classifier import TfliteClassifier
from edge.inference.fallback import FallbackClassifier
from edge.inference.features import CropSpec
from edge.inference.models import open_model
from edge.settings import Config
from edge.values import AudioChunk, Face, FaceResult, Frame, Modality, Prediction, UInt8
from edge.voice.model_input import window_input
from edge.voice.windows import SpeechWindows, VoiceResult, Window

AnyClassifier = TfliteClassifier | FallbackClassifier


class FacePipeline:
    """Detects, tracks, crops, classifies and measures faces; one thread at a time."""

    def __init__(
        self,
        classifier: AnyClassifier,
        detector: FaceDetector,
        *,
        measurer: FaceMeasurer | None = None,
        combiner: ImageVideoCombiner | None = None,
    ) -> None:
        self.classifier = classifier
        self.detector = detector
        self.measurer = measurer
        self.combiner = combiner
        self._cropper = FaceCropper(classifier.card.spec(CropSpec))
        self._tracker = FaceTracker(detector)

    @property
    def classifiers(self) -> dict[str, AnyClassifier]:
        """The models that contribute to the emotion of a face, by task."""
        video = {} if self.combiner is None else {"video": self.combiner.video}
        return {"face": self.classifier, **video}

    def copy_without_history(self) -> FacePipeline:
        """Return a pipeline with the same models and no tracks."""
        combiner = None if self.combiner is None else self.combiner.copy_without_history()
        return FacePipeline(self.classifier, self.detector, measurer=self.measurer, combiner=combiner)

    def process(self, frame: Frame) -> list[FaceResult]:
        """Return the faces in the next frame of a stream, with stable track numbers."""
        faces = self._tracker.update(frame)
        return [self._combine(self._classify(frame.pixels, face, frame.t_ns)) for face in faces]

    def process_still(self, pixels: UInt8) -> list[FaceResult]:
        """Return the faces in a still image (h, w, 3), small faces included, best first."""
        faces = self.detector.detect_small(pixels)
        return [self._classify(pixels, face, 0) for face in faces]

    def _classify(self, pixels: UInt8, face: Face, t_ns: int) -> FaceResult:
        p = self.classifier.classify(self._cropper.crop(pixels, face))
        quality = self._cropper.quality(face)
        measurements = None if self.measurer is None else self.measurer.measure(pixels, face, t_ns)
        return FaceResult(face, Prediction(Modality.FACE, p, quality, t_ns, face.track), measurements)

    def _combine(self, face_result: FaceResult) -> FaceResult:
        """Combine the prediction of the face that was classified last with that of the video model."""
        if self.combiner is None:
            return face_result
        prediction = self.combiner.combine(face_result.prediction, self.classifier.embedding)
        return replace(face_result, prediction=prediction)


class VoicePipeline:
    """Cuts audio into windows and classifies those with speech; one thread at a time."""

    def __init__(self, classifier: AnyClassifier, *, window_s: float, hop_s: float) -> None:
        self.classifier = classifier
        self._window_s, self._hop_s = window_s, hop_s
        self._windows = SpeechWindows(window_s=window_s, hop_s=hop_s)
        self._input = window_input(classifier.card.input.features)

    def process(self, chunk: AudioChunk) -> Iterator[VoiceResult]:
        """Add the next chunk; yield the windows that it completes."""
        for window in self._windows.process(chunk):
            yield VoiceResult(window, self.classify(window))

    def classify(self, window: Window) -> Prediction | None:
        """Return the prediction for a window, None where it has too little speech."""
        if not window.has_speech:
            return None
        p = self.classifier.classify(self._input(window))
        return Prediction(Modality.VOICE, p, window.quality, window.t_ns)

    def reset(self) -> None:
        """Forget the buffered samples, so that no window spans an interruption of the audio."""
        self._windows = SpeechWindows(window_s=self._window_s, hop_s=self._hop_s)


def open_face_pipeline(
    config: Config, classifier: AnyClassifier | None = None, *, backend: str | None = None
) -> FacePipeline:
    """Open the face detector and all models of a face; `classifier` replaces the configured face model.

    Raises `ModelError` for a model, `DeviceError` for an accelerator that cannot be used.
    """
    classifier = classifier or open_model(config, "face", backend or config.inference.backend)
    return FacePipeline(
        classifier,
        open_face_detector(threads=config.inference.threads),
        measurer=open_face_measurer(config),
        combiner=open_combiner(config, classifier.card),
    )


def open_voice_pipeline(
    config: Config, classifier: AnyClassifier | None = None, *, backend: str | None = None
) -> VoicePipeline:
    """Open the voice model unless `classifier` is given.

    Raises `ModelError` for a model, `DeviceError` for an accelerator that cannot be used.
    """
    classifier = classifier or open_model(config, "voice", backend or config.inference.backend)
    return VoicePipeline(classifier, window_s=config.microphone.window_s, hop_s=config.microphone.hop_s)
