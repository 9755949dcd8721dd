"""Augments training audio: tempo, reverberation, noise, babble, band limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import signal

from edge.errors import MediaError
from edge.sources.media_files import read_audio
from edge.values import SAMPLE_RATE_HZ, Float32
from models.data.datasets import DataError
from models.data.speech import SOUND_SUFFIXES
from models.run import Progress

LOWEST_SNR_DB, HIGHEST_SNR_DB = 0.0, 20.0
VIDEO_SUFFIXES = (".mpg", ".mp4", ".mkv", ".webm", ".avi", ".mov")
QUIET = 1e-4  # root mean square; quieter noise is not used
BABBLE_SHARE = 0.4  # of the noise: babble is the most common background
TALKERS = (4, 9)  # simultaneous voices in babble, upper bound excluded


@dataclass(frozen=True, slots=True, eq=False)
class NoiseSources:
    """Background audio, (n,) each: noises, and single voices that are mixed to babble."""

    noises: tuple[Float32, ...]
    talkers: tuple[Float32, ...] = ()

    def draw(self, random: np.random.Generator, *, size: int) -> Float32:
        """Return one noise unchanged, or `size` samples of several voices at once."""
        if len(self.talkers) < TALKERS[0] or random.random() >= BABBLE_SHARE:
            return self.noises[int(random.integers(len(self.noises)))]
        count = min(int(random.integers(*TALKERS)), len(self.talkers))
        total = np.zeros(size, np.float32)
        for i in random.permutation(len(self.talkers))[:count]:
            voice = self.talkers[i]
            total += np.resize(np.roll(voice, -int(random.integers(voice.size))), size) / _level(voice)
        return total


def read_noise_sources(
    noise: Path, talkers: Path | None = None, *, progress: Progress | None = None
) -> NoiseSources:
    """Read noises below `noise`, and voices in audio or video files below `talkers`, at 16 kHz.

    Files with babble in their name are left out: they are for testing. Raises `DataError` without noise.
    """
    noises = _read_audio_files(noise, SOUND_SUFFIXES, progress)
    if not noises:
        raise DataError(f"data set noise: no audio file of 1 s or more in {noise}; complete the data set")
    voices = _read_audio_files(talkers, (*SOUND_SUFFIXES, *VIDEO_SUFFIXES), None) if talkers else []
    return NoiseSources(tuple(noises), tuple(voices))


def _read_audio_files(directory: Path, suffixes: Sequence[str], progress: Progress | None) -> list[Float32]:
    """Read every audio file of at least 1 s, except silence and babble."""
    paths = sorted(
        path
        for path in directory.rglob("*")
        if path.suffix.lower() in suffixes and "babble" not in path.name.lower()
    )
    sounds = []
    for done, path in enumerate(paths, start=1):
        try:
            samples = read_audio(path)
        except MediaError:
            continue
        if samples.size >= SAMPLE_RATE_HZ and _level(samples) > QUIET:
            sounds.append(samples)
        if progress:
            progress(done, len(paths))
    return sounds


def augment_audio(samples: Float32, sources: NoiseSources, random: np.random.Generator) -> Float32:
    """Return `samples` (n,) at 16 kHz with random speed, room, band limits and noise.

    Speed changes pitch, tempo and the length (n,).
    """
    chance = random.random(5)
    if chance[0] < 0.7:
        samples = _resampled(samples, random.uniform(0.87, 1.15))
    if chance[1] < 0.3:
        samples = add_echo(samples, random)
    if chance[2] < 0.3:
        samples = _band_limited(samples, random)
    if chance[3] < 0.6:
        noise = sources.draw(random, size=samples.size)
        samples = mix_noise(
            samples, noise, snr_db=random.uniform(LOWEST_SNR_DB, HIGHEST_SNR_DB), random=random
        )
    if chance[4] < 0.3:
        hiss = random.standard_normal(samples.size, dtype=np.float32)
        samples = mix_noise(samples, hiss, snr_db=random.uniform(15, 40), random=random)
    return samples


def mix_noise(samples: Float32, noise: Float32, *, snr_db: float, random: np.random.Generator) -> Float32:
    """Add `noise` from a random offset, repeated if too short, `snr_db` below the speech level.

    The speech level is that of the louder half of the clip, which excludes silence.
    """
    start = int(random.integers(noise.size))
    part = np.resize(np.roll(noise, -start) if noise.size <= samples.size else noise[start:], samples.size)
    if part.size < samples.size or _level(part) < QUIET:
        part = np.resize(noise, samples.size)
    gain = _loud_level(samples) / max(_level(part), QUIET) * 10 ** (-snr_db / 20)
    return np.asarray(samples + np.float32(gain) * part, dtype=np.float32)


def add_echo(samples: Float32, random: np.random.Generator) -> Float32:
    """Convolve with noise that decays over 0.1 to 0.6 s (Polack's room model) after the direct sound."""
    decay_s = random.uniform(0.1, 0.6)
    length = int(decay_s * SAMPLE_RATE_HZ)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    tail = random.standard_normal(length, dtype=np.float32) * np.exp(-6.9 * t / decay_s).astype(np.float32)
    tail *= np.float32(10 ** (random.uniform(-12, 0) / 20)) / np.float32(np.sqrt(np.sum(tail**2)))
    tail[0] += 1
    echoed = signal.oaconvolve(samples, tail)[: samples.size]
    return np.asarray(echoed, dtype=np.float32)


def telephone(samples: Float32, *, low_hz: float = 300.0, high_hz: float = 3400.0) -> Float32:
    """Return `samples` limited to the band from `low_hz` to `high_hz`."""
    sos = signal.butter(4, [low_hz, high_hz], btype="bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfilt(sos, samples), dtype=np.float32)


def _band_limited(samples: Float32, random: np.random.Generator) -> Float32:
    """Limit the band as a telephone or a small microphone does."""
    if random.random() < 0.4:
        return telephone(samples, low_hz=random.uniform(200, 350), high_hz=random.uniform(3200, 3800))
    return telephone(samples, low_hz=random.uniform(60, 250), high_hz=random.uniform(4500, 7500))


def _resampled(samples: Float32, speed: float) -> Float32:
    """Change the speed by linear interpolation; its error is above the relevant bands."""
    at = np.arange(0, samples.size - 1, speed)
    return np.asarray(np.interp(at, np.arange(samples.size), samples), dtype=np.float32)


def _level(samples: Float32) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if samples.size else 0.0


def _loud_level(samples: Float32) -> float:
    """Return the root mean square of the louder half of the 20 ms pieces."""
    piece = SAMPLE_RATE_HZ // 50
    count = max(1, samples.size // piece)
    power = np.square(np.resize(samples, count * piece)).reshape(count, piece).mean(axis=1)
    return float(np.sqrt(np.sort(power)[count // 2 :].mean()))
