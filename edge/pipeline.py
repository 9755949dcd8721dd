"""What the daemon and `analyze` share: frames to face opinions, sound to voice opinions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from edge.face.combination import ImageVideoCombiner, open_visual
from edge.face.detector import CropSpec, FaceCropper, FaceDetector, open_face_detector
from edge.face.measurements import FaceMeasurer, open_face_measurer
from edge.face.tracking import FaceTracker
from edge.inference.card import TfliteClassifier, open_classifier
from edge.inference.fallback import FallbackClassifier
from edge.settings import Config
from edge.values import AudioChunk, Face, FaceResult, Frame, Modality, Prediction, UInt8
from edge.voice.windows import SpeechWindows, VoiceResult, Window, window_input

AnyClassifier = TfliteClassifier | FallbackClassifier


class FacePipeline:
    """Finds, follows, crops, classifies and reads faces; one thread at a time."""

    def __init__(
        self,
        classifier: AnyClassifier,
        detector: FaceDetector,
        *,
        reader: FaceMeasurer | None = None,
        visual: ImageVideoCombiner | None = None,
    ) -> None:
        self.classifier = classifier
        self.detector = detector
        self.reader = reader
        self.visual = visual
        self._cropper = FaceCropper(CropSpec.from_features(classifier.card.input.features))
        self._tracker = FaceTracker(detector)

    @property
    def helpers(self) -> dict[str, AnyClassifier]:
        """The models that have a say in a face beside the face model, by task."""
        return {} if self.visual is None else {"video": self.visual.video}

    def fresh(self) -> FacePipeline:
        """Return eyes with the same models that remember nobody."""
        visual = None if self.visual is None else self.visual.fresh()
        return FacePipeline(self.classifier, self.detector, reader=self.reader, visual=visual)

    def process(self, frame: Frame) -> list[FaceResult]:
        """Return the faces in the next frame of a stream, with stable track numbers."""
        faces = self._tracker.update(frame)
        return [self._judge(self._classify(frame.pixels, face, frame.t_ns)) for face in faces]

    def process_still(self, pixels: UInt8) -> list[FaceResult]:
        """Return the faces in a still (h, w, 3), small ones too, best first."""
        faces = self.detector.detect_small(pixels)
        return [self._classify(pixels, face, 0) for face in faces]

    def _classify(self, pixels: UInt8, face: Face, t_ns: int) -> FaceResult:
        p = self.classifier.classify(self._cropper.crop(pixels, face))
        quality = self._cropper.quality(face)
        reading = None if self.reader is None else self.reader.read(pixels, face, t_ns)
        return FaceResult(face, Prediction(Modality.FACE, p, quality, t_ns, face.track), reading)

    def _judge(self, face_result: FaceResult) -> FaceResult:
        """Let what was seen of the face before have its say."""
        if self.visual is None:
            return face_result
        prediction = self.visual.judge(face_result.prediction, self.classifier.embedding)
        return replace(face_result, prediction=prediction)


class VoicePipeline:
    """Cuts sound into windows and classifies those with speech; one thread at a time."""

    def __init__(self, classifier: AnyClassifier, *, window_s: float, hop_s: float) -> None:
        self.classifier = classifier
        self._window_s, self._hop_s = window_s, hop_s
        self._windows = SpeechWindows(window_s=window_s, hop_s=hop_s)
        self._input = window_input(classifier.card.input.features)

    def process(self, chunk: AudioChunk) -> Iterator[VoiceResult]:
        """Take the next chunk; yield the windows that it completes."""
        for window in self._windows.push(chunk):
            yield VoiceResult(window, self.classify(window))

    def reset(self) -> None:
        """Forget the audio so far: no later window contains any of it."""
        self._windows = SpeechWindows(window_s=self._window_s, hop_s=self._hop_s)

    def classify(self, window: Window) -> Prediction | None:
        """Return what the model says of a window, None where there is too little speech."""
        if not window.has_speech:
            return None
        p = self.classifier.classify(self._input(window))
        return Prediction(Modality.VOICE, p, window.quality, window.t_ns)


def open_face_pipeline(
    config: Config, classifier: AnyClassifier | None = None, *, backend: str | None = None
) -> FacePipeline:
    """Open detector, eye model, and the face model unless it is given; `DeviceError`: of an accelerator."""
    classifier = classifier or opener(config, "face")(backend or config.inference.backend)
    return FacePipeline(
        classifier,
        open_face_detector(threads=config.inference.threads),
        reader=open_face_measurer(config),
        visual=open_visual(config, classifier.card.name),
    )


def open_voice_pipeline(
    config: Config, classifier: AnyClassifier | None = None, *, backend: str | None = None
) -> VoicePipeline:
    """Open the voice model unless it is given; `DeviceError` tells of an accelerator."""
    classifier = classifier or opener(config, "voice")(backend or config.inference.backend)
    return VoicePipeline(classifier, window_s=config.microphone.window_s, hop_s=config.microphone.hop_s)


def opener(config: Config, task: Literal["face", "voice"]) -> Callable[[str], TfliteClassifier]:
    """Return what opens the configured model of `task` on a backend."""
    return partial(_open, config, task)


def _open(config: Config, task: Literal["face", "voice"], backend: str) -> TfliteClassifier:
    return open_classifier(
        config.models.face if task == "face" else config.models.voice,
        task=task,
        directory=config.models.directory,
        backend=backend,
        threads=config.inference.threads,
    )
