"""`emotion-edge analyze`: files through the pipelines and the scene of the daemon, as JSON lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.delivery import messages
from edge.errors import MediaError
from edge.people.fatigue import RANKS, FatigueState
from edge.people.fusion import fuse_once
from edge.people.pooling import Pool, open_pool
from edge.people.scene import Moment, Scene
from edge.pipeline import FacePipeline, open_face_pipeline, open_voice_pipeline
from edge.settings import Config
from edge.sources.media_files import has_audio, kind_of, read_audio, read_image, read_video_frames
from edge.values import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    FaceResult,
    Float32,
    Frame,
    Modality,
    Prediction,
    UInt8,
    probabilities,
)
from edge.voice.windows import VoiceResult, clip_window

STEP_S = 0.1  # between two frames of a video that are processed


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One frame of a video, the newest window of audio before it, and the scene then."""

    frame: Frame
    face_results: list[FaceResult]
    voice_result: VoiceResult | None
    moment: Moment


@dataclass
class Analyzer:
    """Analyses files with the models of `config`, each opened when the first file needs it.

    `modality` is face, voice or fused.
    """

    config: Config
    modality: str = "fused"
    backend: str | None = None
    _face_pipeline: FacePipeline | None = field(default=None, repr=False)
    _pool: Pool | None = field(default=None, repr=False)

    def analyze(self, path: Path, *, every_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield the lines of one file: one, or for a video one for every `every_s`.

        Raises `MediaError` for a file that cannot be read.
        """
        kind = kind_of(path)
        if kind == "image":
            yield self._image(path)
        elif kind == "audio":
            yield self._audio(path)
        elif every_s is None:
            yield self._video(path)
        else:
            yield from self._steps(path, every_s)

    def _image(self, path: Path) -> dict[str, Any]:
        pixels = read_image(path)
        face_results = self.face_pipeline.process_still(pixels) if self._wants(Modality.FACE) else []
        return self._line(path, "image", 0.0, _faces(face_results, pixels), face_results, None)

    def _audio(self, path: Path) -> dict[str, Any]:
        samples = read_audio(path)
        voice_results = self._process_audio(samples) if self._wants(Modality.VOICE) else []
        return self._line(path, "audio", 0.0, [], [], _mean_voice(voice_results))

    def _video(self, path: Path) -> dict[str, Any]:
        """Return one line: the mean prediction of each person, in the frame with the best view of all.

        Fatigue is the worst of the whole video, the latest of several equal ones; emotions do not add to it.
        """
        predictions: dict[int, list[Prediction]] = {}
        best: _Step | None = None
        best_quality = -1.0
        worst: FatigueState | None = None
        for step in self._process_video(path, STEP_S, [], uses_emotions_for_fatigue=False):
            if step.moment.fatigue is not None:
                worst = _worse(worst, step.moment.fatigue.room)
            for face_result in step.face_results:
                predictions.setdefault(face_result.face.track, []).append(face_result.prediction)
            quality = sum(face_result.prediction.quality for face_result in step.face_results)
            if quality > best_quality:
                best, best_quality = step, quality
        t_s, means, faces = 0.0, [], []
        if best is not None:
            t_s = best.frame.t_ns / 1e9
            means = [
                FaceResult(r.face, _mean_prediction(predictions[r.face.track])) for r in best.face_results
            ]
            faces = _faces(means, best.frame.pixels)
        line = self._line(path, "video", t_s, faces, means, _mean_voice(self._sound_track(path)))
        return line | {"fatigue": _fatigue(worst)}

    def _steps(self, path: Path, every_s: float) -> Iterator[dict[str, Any]]:
        """Yield one line every `every_s`; frames in between are processed as the daemon does."""
        due_s = 0.0
        voice_results = self._sound_track(path)
        for step in self._process_video(
            path, min(every_s, STEP_S), voice_results, uses_emotions_for_fatigue=True
        ):
            t_s, moment = step.frame.t_ns / 1e9, step.moment
            if t_s < due_s - 0.0005:  # as `read_video_frames` has it
                continue
            due_s = (np.floor(t_s / every_s + 1e-3) + 1) * every_s
            faces = _faces(step.face_results, step.frame.pixels)
            line = self._line(path, "video", t_s, faces, [], step.voice_result)
            line["fused"] = {
                "emotion": moment.room.emotion,
                "confidence": moment.room.confidence,
                "probabilities": dict(moment.room.probabilities),
            }
            line["fatigue"] = _fatigue(None if moment.fatigue is None else moment.fatigue.room)
            line["speaker"] = moment.speaker.label
            yield line

    def _process_video(
        self,
        path: Path,
        step_s: float,
        voice_results: Iterable[VoiceResult],
        *,
        uses_emotions_for_fatigue: bool,
    ) -> Iterator[_Step]:
        """Yield a frame every `step_s`, through the pipeline and the scene of the daemon."""
        wants_faces = self._wants(Modality.FACE)
        pipeline = self.face_pipeline.copy_without_history() if wants_faces else None
        scene = Scene(
            self.config.fusion,
            fatigue=self.config.fatigue if wants_faces and self.config.fatigue.enabled else None,
            pool=self.pool,
            uses_emotions_for_fatigue=uses_emotions_for_fatigue,
        )
        waiting = deque(voice_results)
        voice_result: VoiceResult | None = None
        for frame in read_video_frames(path, step_s):
            face_results = pipeline.process(frame) if pipeline else []
            scene.add_faces(face_results)
            while waiting and waiting[0].window.t_ns <= frame.t_ns:
                voice_result = waiting.popleft()
                scene.add_voice(voice_result)
            yield _Step(frame, face_results, voice_result, scene.update(frame.t_ns))

    def _line(
        self,
        path: Path,
        kind: str,
        t_s: float,
        faces: list[dict[str, Any]],
        face_results: Sequence[FaceResult],
        voice_result: VoiceResult | None,
    ) -> dict[str, Any]:
        """Return a line without fatigue, fused without memory."""
        voice = voice_result.prediction if voice_result is not None else None
        emotion, confidence, p = fuse_once(
            (face_result.prediction for face_result in face_results), voice, self.config.fusion, self.pool
        )
        return {
            "file": str(path),
            "kind": kind,
            "t_s": round(t_s, 3),
            "faces": faces,
            "voice": _voice(voice_result),
            "fused": {"emotion": emotion, "confidence": confidence, "probabilities": p},
            "fatigue": None,
        }

    def _sound_track(self, path: Path) -> list[VoiceResult]:
        if not self._wants(Modality.VOICE) or not has_audio(path):
            return []
        try:
            return self._process_audio(read_audio(path))
        except MediaError:
            return []  # a damaged sound track must not prevent the analysis of the video

    def _process_audio(self, samples: Float32) -> list[VoiceResult]:
        """Return the result of each window as the daemon cuts them; a shorter clip is one window."""
        pipeline = open_voice_pipeline(self.config, backend=self.backend)
        voice_results = list(pipeline.process(AudioChunk(samples, 0)))
        if samples.size < self.config.microphone.window_s * SAMPLE_RATE_HZ:
            window = clip_window(samples)
            voice_results = [VoiceResult(window, pipeline.classify(window))]
        return voice_results

    def _wants(self, modality: Modality) -> bool:
        return self.modality in (modality.value, "fused")

    @property
    def face_pipeline(self) -> FacePipeline:
        """The face pipeline, opened at first use."""
        if self._face_pipeline is None:
            self._face_pipeline = open_face_pipeline(self.config, backend=self.backend)
        return self._face_pipeline

    @property
    def pool(self) -> Pool:
        """The fusion of two modalities, opened at first use."""
        if self._pool is None:
            self._pool = open_pool(self.config)
        return self._pool


def _faces(face_results: Iterable[FaceResult], pixels: UInt8) -> list[dict[str, Any]]:
    height, width = pixels.shape[:2]
    return [
        {
            **({"subject": f"person-{face_result.face.track}"} if face_result.face.track else {}),
            "box": _unit_box(face_result.face.box_px, width, height),
            "score": round(min(1.0, face_result.face.score), 4),
            "probabilities": probabilities(face_result.prediction.p),
        }
        for face_result in face_results
    ]


def _worse(a: FatigueState | None, b: FatigueState) -> FatigueState:
    """Return the worse of two states, the later one `b` if they are equal."""
    return b if a is None or (RANKS[b.level], b.score) >= (RANKS[a.level], a.score) else a


def _fatigue(state: FatigueState | None) -> dict[str, Any] | None:
    return None if state is None else messages.fatigue_fields(state)


def _voice(voice_result: VoiceResult | None) -> dict[str, Any] | None:
    if voice_result is None or voice_result.prediction is None:
        return None
    ratio = round(voice_result.window.speech_ratio, 4)
    return {"probabilities": probabilities(voice_result.prediction.p), "speech_ratio": ratio}


def _unit_box(box_px: tuple[float, float, float, float], width: int, height: int) -> list[float]:
    """Return x, y, w, h in 0..1, cut at the edges of the image."""
    x, y, w, h = box_px
    left, right = np.clip([x / width, (x + w) / width], 0, 1)
    top, bottom = np.clip([y / height, (y + h) / height], 0, 1)
    return [round(float(v), 4) for v in (left, top, right - left, bottom - top)]


def _mean_prediction(predictions: Sequence[Prediction]) -> Prediction:
    """Return the mean over time, weighted by quality."""
    quality = np.array([prediction.quality for prediction in predictions])
    p = np.average([prediction.p for prediction in predictions], axis=0, weights=quality + 1e-6)
    first = predictions[0]
    return Prediction(
        first.modality, p.astype(np.float32), float(quality.mean()), predictions[-1].t_ns, first.track
    )


def _mean_voice(voice_results: Sequence[VoiceResult]) -> VoiceResult | None:
    """Return one result for a whole sound track: the mean prediction, and the window with most speech."""
    predictions = [result.prediction for result in voice_results if result.prediction is not None]
    if not predictions:
        return None
    window = max((result.window for result in voice_results), key=lambda window: window.speech_ratio)
    return VoiceResult(window, _mean_prediction(predictions))
