"""Writes tiny data sets of generated images and audio in the layouts of the real ones."""

from __future__ import annotations

import csv
import hashlib
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from edge.values import LABELS, Float32, UInt8

FER_FOLDERS = {"Training": "train", "PublicTest": "public_test", "PrivateTest": "private_test"}
KAGGLE_ORDER = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
RAVDESS_CODES = ("01", "02", "03", "04", "05", "06", "07", "08")


@contextmanager
def no_bar(_title: str) -> Iterator[Callable[[int, int], None]]:
    """Show no progress bar."""
    yield lambda _done, _total: None


def face(seed: int, side_px: int = 48) -> UInt8:
    """Return a grey pattern (side, side) in place of a face."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 6)).astype(np.uint8)
    return cv2.resize(coarse, (side_px, side_px), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def fer_rows(per_class: int = 2) -> list[tuple[str, str, UInt8, dict[str, int]]]:
    """Return usage, label, pixels and FER+ votes of a small FER2013: `per_class` in each split."""
    rows = []
    for s, usage in enumerate(FER_FOLDERS):
        for k, label in enumerate(LABELS):
            for i in range(per_class):
                votes = {label: 6, "neutral": 3 if label != "neutral" else 9, "NF": 0}
                rows.append((usage, label, face(1000 * s + 100 * k + i), votes))
    return rows


def write_fer2013(
    directory: Path, rows: list[tuple[str, str, UInt8, dict[str, int]]] | None = None, *, suffix: str = ".png"
) -> Path:
    """Write the layout with labels.csv; return its directory."""
    lines: list[list[object]] = []
    for number, (usage, label, pixels, votes) in enumerate(fer_rows() if rows is None else rows):
        path = f"{FER_FOLDERS[usage]}/{label}/fer{number:07d}{suffix}"
        _write_image(directory / path, pixels)
        md5 = hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest()
        counts = [votes.get(word, 0) for word in (*LABELS, "NF")]
        lines.append([path, usage, label, *counts, md5])
    header = ["path", "usage", "fer_label", *(f"fp_{word}" for word in (*LABELS, "NF")), "pixel_md5"]
    write_csv(directory / "labels.csv", [[*header], *lines])
    return directory


def write_kaggle(directory: Path, rows: list[tuple[str, str, UInt8, dict[str, int]]]) -> Path:
    """Write Kaggle's fer2013.csv and FER+'s fer2013new.csv; return their directory."""
    main = [
        [KAGGLE_ORDER.index(label), " ".join(map(str, pixels.ravel())), usage]
        for usage, label, pixels, _ in rows
    ]
    plus = [[usage, *(votes.get(word, 0) for word in (*LABELS, "NF"))] for usage, _, _, votes in rows]
    write_csv(directory / "fer2013.csv", [["emotion", "pixels", "Usage"], *main])
    write_csv(directory / "fer2013new.csv", [["Usage", *LABELS, "NF"], *plus])
    return directory


def write_ckplus48(directory: Path, *, subjects: tuple[str, ...] = ("S010", "S011")) -> Path:
    """Write one picture of each of the seven words of CK+ for every subject; return its directory."""
    words = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
    for k, word in enumerate(words):
        for subject in subjects:
            _write_image(directory / word / f"{subject}_004_0000001{k}.png", face(k))
    return directory


def write_sequences(directory: Path, *, subjects: tuple[str, ...], frames: int) -> Path:
    """Write one sequence of whole pictures a subject, laid out as CK+'s; return its directory."""
    for k, subject in enumerate(subjects):
        for number in range(1, frames + 1):
            name = f"{subject}_004_{number:08d}.png"
            _write_image(directory / "anger" / f"{subject}_004" / name, face(100 * k + number, 128))
    return directory


def write_jaffe(directory: Path, *, suffix: str = ".tiff", subjects: tuple[str, ...] = ("KA",)) -> Path:
    """Write one whole picture a class and subject in one flat folder, as its owners do; return it."""
    for subject in subjects:
        for k, code in enumerate(("AN", "DI", "FE", "HA", "NE", "SA", "SU")):
            _write_image(directory / f"{subject}.{code}1.{k}{suffix}", face(k, 256))
    return directory


def write_cfe(directory: Path, *, subjects: int = 2) -> Path:
    """Write one picture in colour a class and subject as class/subject1.jpg; return its directory."""
    for k, label in enumerate(LABELS):
        for number in range(1, subjects + 1):
            pixels = np.stack([face(10 * k + number + channel, 60) for channel in (0, 100, 200)], axis=2)
            _write_image(directory / label / f"subject{number}.jpg", pixels)
    return directory


def eye(seed: int, side_px: int, *, is_open: bool) -> UInt8:
    """Return a grey drawing (side, side) of an eye, a little different for every seed."""
    random = np.random.default_rng(seed)
    c, w = side_px // 2, 0.65 * side_px
    image = np.full((side_px, side_px), random.uniform(130, 190), np.float32)
    dark = float(random.uniform(20, 60))
    almond = (round(w / 2), round(w * random.uniform(0.18, 0.26)))
    if is_open:
        cv2.ellipse(image, (c, c), almond, 0, 0, 360, 225.0, -1)
        cv2.circle(image, (c, c), max(2, round(0.2 * w)), dark, -1)
        cv2.ellipse(image, (c, c), almond, 0, 180, 360, dark, 1)
    else:
        cv2.ellipse(image, (c, c), almond, 0, 10, 170, dark, max(1, side_px // 24))
    image += random.normal(0, 2, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_cew(directory: Path, *, people: int, folders: tuple[str, str] = ("closed", "open")) -> Path:
    """Write both eyes of so many shut and so many open people as CEW's patches are named; return it."""
    for number in range(1, people + 1):
        for side in "LR":
            shut = f"closed_eye_{number:04d}.jpg_face_1_{side}.jpg"
            seed = 10 * number + (side == "R")
            _write_image(directory / folders[0] / shut, eye(seed, 24, is_open=False))
            name = f"Made_Person_{number:04d}_{side}.jpg"
            _write_image(directory / folders[1] / name, eye(1000 + seed, 24, is_open=True))
    return directory


def write_mrl(
    directory: Path, *, people: tuple[str, ...], per_state: int, as_published: bool = False
) -> Path:
    """Write infrared eyes of both states, with our table or in a folder a person; return the directory."""
    rows: list[list[object]] = [["path", "label", "subject", "source_image"]]
    for p, person in enumerate(people):
        for k in range(2 * per_state):
            state, number = k % 2, 100 * p + k
            name = f"{person}_{number:05d}_0_{k // 2 % 2}_{state}_0_{k // 2 % 2}_01"
            path = f"{person}/{name}.png" if as_published else f"{('closed', 'open')[state]}/{number:05d}.png"
            _write_image(directory / path, eye(2000 + number, 48, is_open=state == 1))
            rows.append([path, ("closed", "open")[state], person, f"{name}_png"])
    if not as_published:
        write_csv(directory / "labels.csv", rows)
    return directory


def write_yawns(directory: Path, *, shots: int, frames: int) -> Path:
    """Write so many shots of yawning and of still mouths, each of frames that look alike; return it."""
    for shot in range(shots):
        for k, folder in enumerate(("no_yawn", "yawn")):
            base = cv2.resize(face(50 + 2 * shot + k, 24), (50, 22 + 16 * k)).astype(np.float32)
            if k:
                cv2.ellipse(base, (25, 19), (20, 15), 0, 0, 360, 10.0, -1)
            for frame in range(frames):
                noise = np.random.default_rng(1000 * shot + frame).normal(0, 2, base.shape)
                pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
                _write_image(directory / folder / f"{100 * shot + frame}.png", pixels)
    return directory


def write_speech(data: Path, *, actors: tuple[str, ...] = ("01", "13", "17"), seconds: float = 0.8) -> Path:
    """Write small tess, ravdess and nemo corpora of buzzing sounds into `data`/speech; return `data`."""
    speech = data / "speech"
    words = {"anger": "angry", "happiness": "happy", "sadness": "sad", "surprise": "pleasant_surprise"}
    for k, label in enumerate(LABELS):
        word = words.get(label, label)
        for speaker in ("OAF", "YAF"):
            write_wav(speech / "tess" / f"{speaker}_{word}" / f"{speaker}_back_{word}.wav", buzz(k, seconds))
        if label != "disgust":
            for speaker in ("EB0", "SM0", "WR0"):
                write_wav(speech / "nemo" / f"{speaker}_{label}_1.wav", buzz(10 + k, seconds))
    for k, code in enumerate(RAVDESS_CODES):
        for actor in actors:
            name = f"03-01-{code}-01-01-01-{actor}.wav"
            write_wav(speech / "ravdess" / f"Actor_{actor}" / name, buzz(20 + k, seconds))
    return data


def buzz(seed: int, seconds: float, rate_hz: int = 16_000) -> Float32:
    """Return a sound (n,) with harmonics of a moving pitch, different for every seed."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = 110 + 20 * (seed % 10) + 15 * np.sin(2 * np.pi * 3 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    tone = sum(np.sin(h * phase) / h for h in range(1, 8))
    noise = np.random.default_rng(seed).normal(0, 0.02, t.size)
    return np.asarray(0.2 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)) + noise, dtype=np.float32)


def write_wav(path: Path, samples: Float32, *, rate_hz: int = 16_000, channels: int = 1) -> Path:
    """Write 16-bit PCM, the same in every channel; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.repeat(pcm[:, np.newaxis], channels, axis=1).tobytes())
    return path


def write_csv(path: Path, rows: list[list[object]]) -> None:
    """Write rows, the header first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _write_image(path: Path, pixels: UInt8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
