"""Reads calibration examples with the feature code of the device, which gives the ranges of the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edge.errors import EdgeError, MediaError
from edge.face.crop import level
from edge.inference.features import CropSpec, Features
from edge.sources.media_files import read_audio, read_image
from edge.values import Float32
from edge.voice.model_input import window_input
from edge.voice.windows import clip_window
from models.data.datasets import IMAGE_SUFFIXES
from models.data.speech import SOUND_SUFFIXES
from models.run import Progress

SEED = 1


class CalibrationError(EdgeError, ValueError):
    """There are no examples to calibrate with, or all are equal."""


def read_examples(
    directory: Path,
    shape: tuple[int, ...],
    *,
    count: int,
    features: Features | None = None,
    progress: Progress | None = None,
) -> Float32:
    """Return up to `count` examples (n, *shape), drawn at random from `directory`, equal at every call.

    `directory` may also be an .npy file of model inputs, (n, *shape) floats. A `shape` of (h, w, 1) or
    (h, w, 3) reads images of faces: they are resized, scaled to [0, 1], and levelled if the `features` of the
    model's card require it. Any other shape reads audio files through `features`. Unreadable files are
    skipped; raises `CalibrationError` when fewer than two different examples are left.
    """
    if directory.suffix == ".npy":
        return _varied(_read_inputs(directory, shape, count), directory, "input")
    is_image = len(shape) == 3 and shape[2] in (1, 3)
    suffixes = IMAGE_SUFFIXES if is_image else SOUND_SUFFIXES
    what = "image" if is_image else "audio file"
    if not directory.is_dir():
        raise CalibrationError(f"--calibrate {directory}: no such directory; give a directory of {what}s")
    files = sorted(path for path in directory.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise CalibrationError(f"--calibrate {directory}: contains no {what}; this model reads {what}s")
    read = _image_reader(shape, features) if is_image else _audio_reader(shape, features)
    order = np.random.default_rng(SEED).permutation(len(files))
    examples: list[Float32] = []
    for index in order:
        try:
            examples.append(read(files[index]))
        except MediaError:
            continue
        if progress:
            progress(len(examples), min(count, len(files)))
        if len(examples) == count:
            break
    if not examples:
        raise CalibrationError(f"--calibrate {directory}: none of {len(files)} files is a readable {what}")
    return _varied(np.stack(examples), directory, what)


def _varied(examples: Float32, source: Path, what: str) -> Float32:
    """Return `examples`; raise `CalibrationError` when they are too few or too equal to give a range."""
    if len(examples) < 2 or not np.ptp(examples):
        raise CalibrationError(
            f"--calibrate {source}: {len(examples)} example(s), all equal; give a hundred different {what}s"
        )
    return examples


def _read_inputs(path: Path, shape: tuple[int, ...], count: int) -> Float32:
    try:
        inputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CalibrationError(f"--calibrate {path}: not a readable .npy file ({error})") from None
    if inputs.shape[1:] != shape:
        raise CalibrationError(
            f"--calibrate {path}: shape {inputs.shape}, but the model reads {('n', *shape)}; "
            "save one input per row"
        )
    if not np.issubdtype(inputs.dtype, np.number) or not np.all(np.isfinite(inputs)):
        raise CalibrationError(
            f"--calibrate {path}: contains values that are not finite numbers; remove these inputs"
        )
    drawn = np.random.default_rng(SEED).permutation(len(inputs))[:count]
    return np.asarray(inputs[drawn], np.float32)


def _image_reader(shape: tuple[int, ...], features: Features | None) -> Callable[[Path], Float32]:
    is_levelled = isinstance(features, CropSpec) and features.levelled

    def read(path: Path) -> Float32:
        pixels = read_image(path)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., np.newaxis] if shape[2] == 1 else pixels
        sized = cv2.resize(grey, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
        crop = np.asarray(sized.reshape(shape) / np.float32(255), dtype=np.float32)
        if is_levelled:
            level(crop)
        return crop

    return read


def _audio_reader(shape: tuple[int, ...], features: Features | None) -> Callable[[Path], Float32]:
    if features is None:
        raise CalibrationError(
            "this model reads audio and has no card with its features; --like voice-lstm takes its features"
        )
    features_of = window_input(features)

    def read(path: Path) -> Float32:
        values = features_of(clip_window(read_audio(path)))
        if values.size != np.prod(shape):
            raise CalibrationError(
                f"the features of the card have shape {values.shape}, the model reads {shape}; match them"
            )
        return values.reshape(shape)

    return read
