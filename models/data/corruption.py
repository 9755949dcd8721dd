"""Corrupts test faces and voices: the same example is corrupted in the same way at every call."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge.errors import EdgeError
from edge.inference.features import CropSpec
from edge.sources.media_files import read_audio
from edge.values import SAMPLE_RATE_HZ, Float32, UInt8
from models.data.datasets import DataError, find_set
from models.data.speech import SOUND_SUFFIXES

CLEAN = "clean"
SEED = 20_240_601
BABBLE_DB = 10.0  # speech over babble
TELEPHONE_HZ = (300.0, 3400.0)
TELEPHONE_RATE_HZ = 8000

# A webcam in a dim room: soft optics, little light, sensor noise, strong compression.
WEBCAM_BLUR_PX = 0.8
WEBCAM_LIGHT = 0.4
WEBCAM_NOISE = 4.0  # grey levels, after the loss of light
WEBCAM_JPEG_QUALITY = 40

# Errors of a face box: (side relative to the correct one, dx, dy in sides of the box).
JITTER = {
    "box-0.85": (0.85, 0.0, 0.0),
    "box-1.15": (1.15, 0.0, 0.0),
    "left-0.15": (1.0, -0.15, 0.0),
    "right-0.15": (1.0, 0.15, 0.0),
    "up-0.15": (1.0, 0.0, -0.15),
    "down-0.15": (1.0, 0.0, 0.15),
}


def jitter_crop(image: UInt8, kind: str) -> UInt8:
    """Return a crop (h, w) uint8 as if the face box had the error `JITTER[kind]`.

    Pixels outside the given crop are unknown; its border is repeated.
    """
    side, dx, dy = JITTER[kind]
    height, width = image.shape
    x, y = (width - 1) / 2, (height - 1) / 2
    matrix = np.array(
        [[1 / side, 0, x - (x + dx * width) / side], [0, 1 / side, y - (y + dy * height) / side]]
    )
    moved = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved.astype(np.uint8, copy=False)


def jitter_spec(spec: CropSpec, kind: str) -> CropSpec:
    """Return `spec` with the error `JITTER[kind]`, to crop from an uncropped image."""
    side, dx, dy = JITTER[kind]
    (left, right) = (((x - 0.5 - dx) / side + 0.5, (y - 0.5 - dy) / side + 0.5) for x, y in spec.eyes)
    mouth_y = (spec.mouth_y - 0.5 - dy) / side + 0.5
    return spec.model_copy(update={"eyes": (left, right), "mouth_y": mouth_y})


def bad_webcam(image: UInt8, index: int) -> UInt8:
    """Return a face (h, w) uint8 blurred, dark, noisy and JPEG-compressed; `index` seeds the noise."""
    noise = np.random.default_rng([SEED, index]).standard_normal(image.shape, dtype=np.float32)
    soft = cv2.GaussianBlur(image, (0, 0), WEBCAM_BLUR_PX).astype(np.float32)
    dark = np.clip(np.rint(soft * WEBCAM_LIGHT + noise * WEBCAM_NOISE), 0, 255).astype(np.uint8)
    _, pressed = cv2.imencode(".jpg", dark, [cv2.IMWRITE_JPEG_QUALITY, WEBCAM_JPEG_QUALITY])
    return np.asarray(cv2.imdecode(pressed, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def speech_power(samples: Float32) -> float:
    """Return the mean power of the 20 ms frames that are at most 15.9 dB below the average frame.

    The margin is that of ITU-T P.56; it excludes pauses from the speech level.
    """
    frame = SAMPLE_RATE_HZ // 50
    whole = samples[: max(1, samples.size // frame) * frame].astype(np.float64)
    power = np.square(whole).reshape(-1, min(frame, whole.size)).mean(axis=1)  # (frames, 320) -> (frames,)
    return float(power[power >= power.mean() * 10**-1.59].mean())


def add_noise(samples: Float32, noise: Float32, index: int, *, snr_db: float = BABBLE_DB) -> Float32:
    """Return `samples` (n,) with `noise` (m,) `snr_db` below the speech level; `index` seeds its offset."""
    start = int(np.random.default_rng([SEED, index]).integers(noise.size))
    piece = np.take(noise, np.arange(start, start + samples.size), mode="wrap")
    power = float(np.mean(np.square(piece, dtype=np.float64)))
    if not power:
        return samples
    gain = np.sqrt(speech_power(samples) / power * 10 ** (-snr_db / 10))
    return np.asarray(np.clip(samples + np.float32(gain) * piece, -1, 1), dtype=np.float32)


def find_babble(data: Path, notes: list[str]) -> Float32 | None:
    """Read the babble noise in `noise/`: `babble.*`, else the first file with babble in its name.

    Return None and add a note if there is none.
    """
    try:
        files = sorted(
            (path for path in find_set(data, "noise").rglob("*babble*")),
            key=lambda path: (path.stem != "babble", path),
        )
        files = [path for path in files if path.suffix.lower() in SOUND_SUFFIXES]
        if not files:
            raise DataError("data set noise: no audio file with babble in its name")
        samples = read_audio(files[0])
        if not samples.any():
            raise DataError(f"{files[0].name}: silent; replace it")
    except EdgeError as error:
        notes.append(f"{error}; voices in babble are not measured")
        return None
    notes.append(f"babble is {files[0].name}, {BABBLE_DB:.0f} dB below the speech")
    return samples


def telephone(samples: Float32) -> Float32:
    """Return `samples` (n,) as over a telephone: sampled at 8 kHz, band-limited to 300-3400 Hz."""
    from scipy import signal  # takes over a second to import and only this function needs it

    narrow = signal.resample_poly(samples.astype(np.float64), TELEPHONE_RATE_HZ, SAMPLE_RATE_HZ)
    band = signal.butter(4, TELEPHONE_HZ, btype="bandpass", fs=TELEPHONE_RATE_HZ, output="sos")
    wide = signal.resample_poly(signal.sosfilt(band, narrow), SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ)
    return np.asarray(np.clip(wide[: samples.size], -1, 1), dtype=np.float32)
