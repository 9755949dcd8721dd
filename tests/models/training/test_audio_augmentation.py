"""Training audio is augmented with the requested noise and band, determined by the seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.values import Float32
from models.data.datasets import DataError
from models.training.audio_augmentation import (
    NoiseSources,
    add_echo,
    augment_audio,
    mix_noise,
    read_noise_sources,
    telephone,
)
from tests.helpers import trees


@pytest.fixture
def random() -> np.random.Generator:
    """Return a generator with a fixed seed."""
    return np.random.default_rng(11)


def tone(hz: float, *, seconds: float = 1.0) -> Float32:
    """Return a sine with amplitude 0.5."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (0.5 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def level_db(samples: Float32) -> float:
    """Return the level in dB of full scale."""
    return float(10 * np.log10(np.mean(np.square(samples.astype(np.float64)))))


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 20.0])
@pytest.mark.parametrize("noise_s", [0.5, 1.0, 7.0])
def test_noise_has_the_requested_level(random: np.random.Generator, snr_db: float, noise_s: float) -> None:
    """For any level and length of the noise it is `snr_db` below the speech."""
    speech = tone(440)
    noise = 0.03 * random.standard_normal(int(noise_s * 16_000)).astype(np.float32)
    added = mix_noise(speech, noise, snr_db=snr_db, random=random) - speech
    assert level_db(speech) - level_db(added) == pytest.approx(snr_db, abs=0.5)


def test_silence_around_speech_does_not_count(random: np.random.Generator) -> None:
    """The speech level is that of the louder half."""
    speech = np.concatenate([np.zeros(16_000, np.float32), tone(440)])
    noise = random.standard_normal(32_000).astype(np.float32)
    added = mix_noise(speech, noise, snr_db=10, random=random) - speech
    assert level_db(tone(440)) - level_db(added) == pytest.approx(10, abs=0.5)


def test_telephone_keeps_its_band_only() -> None:
    """1 kHz passes, 100 Hz and 6 kHz do not."""
    assert level_db(telephone(tone(1000))[4000:]) == pytest.approx(level_db(tone(1000)), abs=0.5)
    for hz in (100, 6000):
        assert level_db(telephone(tone(hz))[4000:]) < level_db(tone(hz)) - 20


def test_echo_keeps_length_and_direct_sound(random: np.random.Generator) -> None:
    """A click keeps its position and is followed by reverberation."""
    click = np.zeros(16_000, np.float32)
    click[1000] = 1
    echoed = add_echo(click, random)
    assert echoed.size == click.size
    assert np.argmax(np.abs(echoed)) == 1000
    assert np.abs(echoed[:1000]).max() < 1e-4
    assert np.abs(echoed[1001:]).max() > 1e-3


def test_seed_determines_the_result() -> None:
    """The result depends only on the generator and is finite."""
    sounds = tuple(np.random.default_rng(k).standard_normal(20_000).astype(np.float32) for k in range(6))
    sources = NoiseSources(sounds[:2], sounds)
    first, second = (augment_audio(tone(300), sources, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for seed in range(20):
        assert np.all(np.isfinite(augment_audio(tone(300), sources, np.random.default_rng(seed))))


def test_short_silent_and_babble_files_are_left_out(tmp_path: Path) -> None:
    """Only files of at least 1 s that are neither silent nor babble are noises."""
    trees.write_wav(tmp_path / "a" / "long.wav", tone(200, seconds=1.0))
    trees.write_wav(tmp_path / "short.wav", tone(200, seconds=0.9))
    trees.write_wav(tmp_path / "babble.wav", tone(200, seconds=3.0))
    trees.write_wav(tmp_path / "silent.wav", np.zeros(20_000, np.float32))
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    sources = read_noise_sources(tmp_path)
    assert [noise.size for noise in sources.noises] == [16_000]
    assert sources.talkers == ()


def test_babble_is_several_people_at_once(tmp_path: Path, random: np.random.Generator) -> None:
    """Some draws are an unchanged noise, the others contain at least four equally loud voices."""
    trees.write_wav(tmp_path / "noise" / "hiss.wav", 0.1 * random.standard_normal(16_000).astype(np.float32))
    for k, hz in enumerate((500, 1000, 1500, 2000, 2500, 3000)):
        trees.write_wav(tmp_path / "talking" / f"{hz}.wav", (tone(hz) / (k + 1)).astype(np.float32))
    sources = read_noise_sources(tmp_path / "noise", tmp_path / "talking")
    voices = []
    for _ in range(40):
        drawn = sources.draw(random, size=16_000)
        if drawn is not sources.noises[0]:
            spectrum = np.abs(np.fft.rfft(drawn))
            voices.append(int((spectrum[500:3001:500] > spectrum.max() / 2).sum()))
    assert 5 <= len(voices) <= 35
    assert set(voices) <= {4, 5, 6}
    assert len(set(voices)) > 1


def test_no_noise_is_an_error(tmp_path: Path) -> None:
    """The error names the directory without audio."""
    with pytest.raises(DataError, match="noise: no audio file of 1 s or more in"):
        read_noise_sources(tmp_path)
