"""Reads calibration examples with the device's own features: quantization sees what the device computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.errors import EdgeError, MediaError
from edge.face.crop import level
from edge.face.detector import CropSpec
from edge.sources.media_files import read_audio, read_image
from edge.values import Float32
from edge.voice.windows import clip_window, window_input
from models.data.datasets import IMAGE_SUFFIXES, Progress
from models.data.speech import SOUND_SUFFIXES

SEED = 1


class CalibrationError(EdgeError, ValueError):
    """There is nothing, or nothing varied, to calibrate with."""


def read_examples(
    directory: Path,
    shape: tuple[int, ...],
    *,
    count: int,
    features: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Float32:
    """Return up to `count` examples (n, *shape), drawn evenly over `directory`, the same at every call.

    An .npy file in place of the directory holds inputs themselves, (n, *shape) floats.

    A `shape` of (h, w, 1) or (h, w, 3) takes pictures, which are faces already and only resized, in
    [0, 1], and levelled where the `features` of the model's card say so. Any other takes sound through
    these features. Files that cannot be read
    are passed over; raises `CalibrationError` when too little is left.
    """
    if directory.suffix == ".npy":
        return _varied(_read_inputs(directory, shape, count), directory, "input")
    is_picture = len(shape) == 3 and shape[2] in (1, 3)
    suffixes = IMAGE_SUFFIXES if is_picture else SOUND_SUFFIXES
    what = "picture" if is_picture else "sound file"
    if not directory.is_dir():
        raise CalibrationError(f"--calibrate {directory}: no such directory; give one with {what}s")
    files = sorted(path for path in directory.rglob("*") if path.suffix.lower() in suffixes)
    if not files:
        raise CalibrationError(f"--calibrate {directory}: no {what} in it; this model reads {what}s")
    read = _picture_reader(shape, features) if is_picture else _sound_reader(shape, features)
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
        raise CalibrationError(
            f"--calibrate {directory}: none of {len(files)} files is a {what} that can be read"
        )
    return _varied(np.stack(examples), directory, what)


def _varied(examples: Float32, source: Path, what: str) -> Float32:
    """Return `examples`, or raise where no range can be seen in them."""
    if len(examples) < 2 or not np.ptp(examples):
        raise CalibrationError(
            f"--calibrate {source}: {len(examples)} example(s) without any difference; "
            f"give a hundred different {what}s"
        )
    return examples


def _read_inputs(path: Path, shape: tuple[int, ...], count: int) -> Float32:
    try:
        inputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CalibrationError(f"--calibrate {path}: not an .npy file that can be read ({error})") from None
    if inputs.shape[1:] != shape:
        raise CalibrationError(
            f"--calibrate {path}: its shape is {inputs.shape}, the model reads {('n', *shape)}; "
            "save one input a row"
        )
    if not np.issubdtype(inputs.dtype, np.number) or not np.all(np.isfinite(inputs)):
        raise CalibrationError(f"--calibrate {path}: has values that are not numbers; leave those inputs out")
    drawn = np.random.default_rng(SEED).permutation(len(inputs))[:count]
    return np.asarray(inputs[drawn], np.float32)


def _picture_reader(shape: tuple[int, ...], features: dict[str, Any] | None) -> Callable[[Path], Float32]:
    is_levelled = features is not None and CropSpec.from_features(features).levelled

    def read(path: Path) -> Float32:
        pixels = read_image(path)
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., np.newaxis] if shape[2] == 1 else pixels
        sized = cv2.resize(grey, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
        crop = np.asarray(sized.reshape(shape) / np.float32(255), dtype=np.float32)
        if is_levelled:
            level(crop)
        return crop

    return read


def _sound_reader(shape: tuple[int, ...], features: dict[str, Any] | None) -> Callable[[Path], Float32]:
    if features is None:
        raise CalibrationError(
            "this model reads sound and no card beside it says how; --like voice-lstm takes that model's way"
        )
    features_of = window_input(features)

    def read(path: Path) -> Float32:
        values = features_of(clip_window(read_audio(path)))
        if values.size != np.prod(shape):
            raise CalibrationError(
                f"the card's features are {values.shape}, the model reads {shape}; match them"
            )
        return values.reshape(shape)

    return read
