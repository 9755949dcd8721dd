"""Renders montages as frames and audio and runs the pipeline of the daemon on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge.people.speaker import SpeakerTracker
from edge.pipeline import FacePipeline
from edge.sources.media_files import read_audio, read_video_frames
from edge.values import SAMPLE_RATE_HZ, AudioChunk, Frame, UInt8, measurements_of
from edge.voice.windows import SpeechWindows
from models.evaluation.figures.montages import HOP_S, MONTAGE_S, WINDOW_S, Instant, Montage, Talker

HEIGHT_PX = 240  # of a tile; two tiles have the width of a camera frame


def play_rendered(
    montage: Montage,
    paths: Sequence[Path],
    talkers: Sequence[Talker],
    *,
    face_pipeline: FacePipeline,
    fps: float,
) -> list[Instant]:
    """Run a new `face_pipeline` on the montage of the clips at `paths`.

    Tracks in the result are numbers of tiles from 1, as in `montages.play`.
    """
    speaking, audible = SpeakerTracker(), talkers[montage.audible]
    tile_of: dict[int, int] = {}
    frames = _frames(montage, paths, talkers, fps)
    waiting = next(frames, None)
    instants = []
    for window in SpeechWindows(window_s=WINDOW_S, hop_s=HOP_S).process(
        _audio(paths[montage.audible], audible)
    ):
        while waiting is not None and waiting.t_ns <= window.t_ns:
            face_results = face_pipeline.process(waiting)
            for face_result in face_results:
                x, y, w, h = face_result.face.box_px
                tile = _tile_at(x + w / 2, y + h / 2, waiting.pixels)
                tile_of.setdefault(face_result.face.track, tile)
            speaking.add_faces(measurements_of(face_results))
            waiting = next(frames, None)
        speaker = speaking.add_window(window)
        if speaker.track is not None:
            speaker = replace(speaker, track=tile_of[speaker.track])
        instants.append(Instant(window.t_ns / 1e9, audible.speaks(window.t_ns / 1e9), speaker))
    return instants


def _audio(path: Path, talker: Talker) -> AudioChunk:
    """Return the audio of a clip, looped to the length of a montage."""
    size = round(talker.length_s * SAMPLE_RATE_HZ)
    samples = read_audio(path)[:size]
    once = np.pad(samples, (0, size - samples.size))
    return AudioChunk(np.resize(once, round(MONTAGE_S * SAMPLE_RATE_HZ)).astype(np.float32), 0)


def _frames(
    montage: Montage, paths: Sequence[Path], talkers: Sequence[Talker], fps: float
) -> Iterator[Frame]:
    """Yield the frames of a montage: two tiles a row, padded with a grey tile."""
    clips = [[_tile(frame.pixels) for frame in read_video_frames(paths[who])] for who in montage.faces]
    blank = np.full_like(clips[0][0], 128)
    for number in range(round(MONTAGE_S * fps)):
        tiles = []
        for clip, who, start_s in zip(clips, montage.faces, montage.starts_s, strict=True):
            at_s = (number / fps + start_s) % talkers[who].length_s
            shown = int(np.searchsorted(talkers[who].frame_s, at_s + 1e-6, side="right")) - 1
            tiles.append(clip[max(0, shown)])
        tiles += [blank] * (len(tiles) % 2)
        rows = [np.concatenate(tiles[i : i + 2], axis=1) for i in range(0, len(tiles), 2)]
        yield Frame(np.concatenate(rows), round(number / fps * 1e9))


def _tile(pixels: UInt8) -> UInt8:
    height, width = pixels.shape[:2]
    size = (round(width * HEIGHT_PX / height / 2) * 2, HEIGHT_PX)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _tile_at(x: float, y: float, pixels: UInt8) -> int:
    """Return the number of the tile, from 1, that contains a point."""
    return 1 + int(x > pixels.shape[1] / 2) + 2 * int(y // HEIGHT_PX)
