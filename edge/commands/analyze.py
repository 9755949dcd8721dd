"""`emotion-edge analyze`: the daemon's own pipeline over files, one JSON line a file or a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.delivery import messages
from edge.errors import MediaError
from edge.people.fatigue import RANKS, FatigueMonitor, FatigueState
from edge.people.fusion import Fusion, fuse_once
from edge.people.pooling import Pool, open_pool
from edge.people.speaker import SpeakerTracker
from edge.pipeline import FacePipeline, open_face_pipeline, open_voice_pipeline
from edge.settings import Config
from edge.sources.media_files import has_audio, kind_of, read_audio, read_image, read_video_frames
from edge.values import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    FaceResult,
    Float32,
    Modality,
    Prediction,
    UInt8,
    measurements_of,
    probabilities,
)
from edge.voice.windows import VoiceResult, clip_window

# A video is looked at this often; a summary is made of these looks.
LOOK_EVERY_S = 0.1


@dataclass
class Analyzer:
    """Opens each model once, when the first file needs it. `modality` is face, voice or fused."""

    config: Config
    modality: str = "fused"
    backend: str | None = None
    _eyes: FacePipeline | None = field(default=None, repr=False)
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
        face_results = self.eyes.process_still(pixels) if self._wants(Modality.FACE) else []
        return self._line(path, "image", 0.0, _faces(face_results, pixels), face_results, None)

    def _audio(self, path: Path) -> dict[str, Any]:
        samples = read_audio(path)
        heard = self._hear_all(samples) if self._wants(Modality.VOICE) else []
        return self._line(path, "audio", 0.0, [], [], _summary(heard))

    def _video(self, path: Path) -> dict[str, Any]:
        """Summarise: every person's mean opinion, shown in the frame where most people are seen best.

        Fatigue is that of the moment when it was worst, and of the last one of these.
        """
        tracks: dict[int, list[FaceResult]] = {}
        best: tuple[float, float, list[FaceResult], UInt8 | None] = (-1.0, 0.0, [], None)
        eyes = self.eyes.fresh() if self._wants(Modality.FACE) else None
        monitor, worst = self._fatigue_monitor(), None
        for frame in read_video_frames(path, LOOK_EVERY_S):
            face_results = eyes.process(frame) if eyes else []
            if monitor is not None:
                worst = _worse(worst, _tiredness(monitor, face_results, frame.t_ns))
            for face_result in face_results:
                tracks.setdefault(face_result.face.track, []).append(face_result)
            value = sum(face_result.prediction.quality for face_result in face_results)
            if value > best[0]:
                best = (value, frame.t_ns / 1e9, face_results, frame.pixels)
        means = {track: _mean_prediction([s.prediction for s in seen]) for track, seen in tracks.items()}
        _, t_s, shown, pixels = best
        merged = [FaceResult(s.face, means[s.face.track]) for s in shown]
        faces = _faces(merged, pixels) if pixels is not None else []
        line = self._line(path, "video", t_s, faces, merged, _summary(self._sound_track(path)))
        return line | {"fatigue": _facts(worst)}

    def _steps(self, path: Path, every_s: float) -> Iterator[dict[str, Any]]:
        """One line a step, fused over time as the daemon does, which looks more often than it tells."""
        fusion, speaking = Fusion(self.config.fusion, self.pool), SpeakerTracker()
        monitor = self._fatigue_monitor()
        eyes = self.eyes.fresh() if self._wants(Modality.FACE) else None
        waiting = self._sound_track(path)
        heard: VoiceResult | None = None
        due_s = 0.0
        for frame in read_video_frames(path, min(every_s, LOOK_EVERY_S)):
            face_results = eyes.process(frame) if eyes else []
            speaking.add_faces(measurements_of(face_results))
            while waiting and waiting[0].window.t_ns <= frame.t_ns:
                heard = waiting.pop(0)
                speaking.add_window(heard.window)
                if heard.prediction is not None:
                    fusion.add(heard.prediction)
            for face_result in face_results:
                fusion.add(face_result.prediction)
            speaker = speaking.speaker(frame.t_ns)
            fused = fusion.update(frame.t_ns, speaker=speaker)
            room = fused.room
            moods = {person.subject: person.probabilities for person in fused.people}
            tiredness = _tiredness(monitor, face_results, frame.t_ns, moods) if monitor else None
            if frame.t_ns / 1e9 < due_s - 0.0005:  # as `read_video_frames` has it
                continue
            due_s = (np.floor(frame.t_ns / 1e9 / every_s + 1e-3) + 1) * every_s
            line = self._line(path, "video", frame.t_ns / 1e9, _faces(face_results, frame.pixels), [], heard)
            line["fused"] = {
                "emotion": room.emotion,
                "confidence": room.confidence,
                "probabilities": dict(room.probabilities),
            }
            line["fatigue"] = _facts(tiredness)
            line["speaker"] = speaker.word
            yield line

    def _line(
        self,
        path: Path,
        kind: str,
        t_s: float,
        faces: list[dict[str, Any]],
        face_results: Sequence[FaceResult],
        heard: VoiceResult | None,
    ) -> dict[str, Any]:
        voice = heard.prediction if heard is not None else None
        emotion, confidence, p = fuse_once(
            (s.prediction for s in face_results), voice, self.config.fusion, self.pool
        )
        return {
            "file": str(path),
            "kind": kind,
            "t_s": round(t_s, 3),
            "faces": faces,
            "voice": _voice(heard),
            "fused": {"emotion": emotion, "confidence": confidence, "probabilities": p},
            "fatigue": None,
        }

    def _sound_track(self, path: Path) -> list[VoiceResult]:
        if not self._wants(Modality.VOICE) or not has_audio(path):
            return []
        try:
            return self._hear_all(read_audio(path))
        except MediaError:
            return []  # a damaged sound track does not spoil the picture

    def _hear_all(self, samples: Float32) -> list[VoiceResult]:
        """Return the windows that the daemon would have cut; a clip too short for one is one window."""
        ears = open_voice_pipeline(self.config, backend=self.backend)
        heard = list(ears.process(AudioChunk(samples, 0)))
        if samples.size < self.config.microphone.window_s * SAMPLE_RATE_HZ:
            window = clip_window(samples)
            heard = [VoiceResult(window, ears.classify(window))]
        return heard

    def _fatigue_monitor(self) -> FatigueMonitor | None:
        """A monitor that remembers nobody; None where faces or fatigue are not asked for."""
        wanted = self._wants(Modality.FACE) and self.config.fatigue.enabled
        return FatigueMonitor(self.config.fatigue) if wanted else None

    def _wants(self, modality: Modality) -> bool:
        return self.modality in (modality.value, "fused")

    @property
    def eyes(self) -> FacePipeline:
        """The detector and face model, opened at first use."""
        if self._eyes is None:
            self._eyes = open_face_pipeline(self.config, backend=self.backend)
        return self._eyes

    @property
    def pool(self) -> Pool:
        """What makes one opinion of two, opened at first use."""
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


def _tiredness(
    monitor: FatigueMonitor,
    face_results: Iterable[FaceResult],
    t_ns: int,
    moods: Mapping[str, Mapping[str, float]] | None = None,
) -> FatigueState:
    """Show one look to the monitor; return how the room is then."""
    for reading in measurements_of(face_results):
        monitor.add(reading)
    return monitor.update(t_ns, moods).room


def _worse(a: FatigueState | None, b: FatigueState) -> FatigueState:
    """Return the worse of two moments, the later one where they are alike."""
    return b if a is None or (RANKS[b.level], b.score) >= (RANKS[a.level], a.score) else a


def _facts(state: FatigueState | None) -> dict[str, Any] | None:
    return None if state is None else messages.fatigue_facts(state)


def _voice(heard: VoiceResult | None) -> dict[str, Any] | None:
    if heard is None or heard.prediction is None:
        return None
    ratio = round(heard.window.speech_ratio, 4)
    return {"probabilities": probabilities(heard.prediction.p), "speech_ratio": ratio}


def _unit_box(box_px: tuple[float, float, float, float], width: int, height: int) -> list[float]:
    """Return x, y, w, h in 0..1, cut at the edges of the picture."""
    x, y, w, h = box_px
    left, right = np.clip([x / width, (x + w) / width], 0, 1)
    top, bottom = np.clip([y / height, (y + h) / height], 0, 1)
    return [round(float(v), 4) for v in (left, top, right - left, bottom - top)]


def _mean_prediction(predictions: Sequence[Prediction]) -> Prediction:
    """Average opinions over time, each counting by its quality."""
    quality = np.array([prediction.quality for prediction in predictions])
    p = np.average([prediction.p for prediction in predictions], axis=0, weights=quality + 1e-6)
    first = predictions[0]
    return Prediction(
        first.modality, p.astype(np.float32), float(quality.mean()), predictions[-1].t_ns, first.track
    )


def _summary(heard: Sequence[VoiceResult]) -> VoiceResult | None:
    """Return one hearing for a whole sound: the mean opinion, and the window with most speech."""
    spoken = [voice_result.prediction for voice_result in heard if voice_result.prediction is not None]
    if not spoken:
        return None
    window = max((h.window for h in heard), key=lambda w: w.speech_ratio)
    return VoiceResult(window, _mean_prediction(spoken))
