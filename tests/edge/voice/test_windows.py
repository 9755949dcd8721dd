"""Voice features do not depend on the chunk sizes, and silence has no speech."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import ModelError
from edge.inference.features import FrameSpec, VisualSpec
from edge.pipeline import open_voice_pipeline
from edge.settings import Config
from edge.sources.media_files import read_audio
from edge.sources.replay import clip_path
from edge.values import AudioChunk
from edge.voice.features import FrameStream, frame_count
from edge.voice.model_input import mean_over_speech, select_frames, window_input
from edge.voice.windows import SpeechWindows, Window, clip_window


def test_frames_do_not_depend_on_the_chunks() -> None:
    """Chunks of any length give the frames of the whole clip."""
    random = np.random.default_rng(3)
    samples = random.normal(0, 0.1, 16_000 * 3).astype(np.float32)
    stream, frames, start = FrameStream(), [], 0
    while start < len(samples):
        length = int(random.integers(1, 3000))
        stream.add(samples[start : start + length])
        frames.append(stream.frames())
        start += length
    np.testing.assert_array_equal(np.concatenate(frames), clip_window(samples).frames)


def test_incremental_window_equals_the_whole() -> None:
    """Frames computed hop by hop equal those of the whole clip, also after a long silence."""
    silence = np.random.default_rng(4).normal(0, 1e-4, 16_000 * 7).astype(np.float32)
    samples = np.concatenate([read_audio(clip_path())[: 16_000 * 4], silence, read_audio(clip_path())])
    samples = samples[: 16_000 * 15]
    windows = list(SpeechWindows(window_s=3.0, hop_s=0.5).process(AudioChunk(samples, 0)))
    assert [window.t_ns for window in windows] == [round(t * 1e9) for t in np.arange(1.0, 15.1, 0.5)]
    whole = clip_window(samples).frames
    for window in windows:
        end = window.t_ns * 16_000 // 10**9 // 160 - 2  # the newest frame ends within the last two steps
        if window.has_speech:
            np.testing.assert_array_equal(window.frames, whole[max(0, end - 298) : end])
    last = windows[-1]
    assert last.has_speech
    assert last.frames.shape == (frame_count(3.0), 42) == (298, 42)
    silent = [window for window in windows if not len(window.frames)]
    assert 6 <= len(silent) < len(windows)
    assert all(window.quality == 0 and not window.has_speech for window in silent)


def test_speech_is_detected_and_noise_is_not() -> None:
    """The shipped clip has speech; silence and noise have none."""
    assert clip_window(read_audio(clip_path())).has_speech
    assert not clip_window(np.zeros(48_000, np.float32)).has_speech
    noise = np.random.default_rng(5).normal(0, 0.1, 48_000).astype(np.float32)
    assert not clip_window(noise).has_speech


@pytest.mark.parametrize("length", [0, 1, 160, 399, 400])
def test_shortest_clips_have_one_frame(length: int) -> None:
    """A clip shorter than a frame is padded with silence."""
    assert clip_window(np.ones(length, np.float32)).frames.shape == (1, 42)


def test_gap_is_silence_of_its_length() -> None:
    """Lost samples keep their place in time."""
    samples = np.full(16_000, 0.1, np.float32)
    windows = list(SpeechWindows(window_s=3.0, hop_s=0.5).process(AudioChunk(samples, 10**9, gap=16_000)))
    assert windows[-1].t_ns == 2 * 10**9
    assert len(windows[-1].speech) == frame_count(2.0)


def test_mean_uses_frames_with_speech_only() -> None:
    """The mean is over frames with speech, standardised."""
    mfcc = np.stack([np.zeros(40), np.ones(40), np.full(40, 9.0)]).astype(np.float32)
    speech = np.array([0.9, 0.9, 0.1], np.float32)
    pooled = mean_over_speech(mfcc, speech, mean=np.zeros(40, np.float32), std=np.full(40, 0.5, np.float32))
    np.testing.assert_allclose(pooled, np.ones(40))


def test_unknown_features_are_refused() -> None:
    """Features that are not of a voice are refused with a remedy."""
    with pytest.raises(ModelError, match="not features of a voice"):
        window_input(VisualSpec())


FEATURES = FrameSpec(window_s=3.0, mean=(0.0,) * 40, std=(1.0,) * 40)


def test_sequence_features_do_not_depend_on_gain() -> None:
    """A microphone twice as loud gives the model the same input."""
    samples = read_audio(clip_path())[:48_000]
    make = window_input(FEATURES.model_copy(update={"std": (20.0,) * 40}))
    np.testing.assert_allclose(
        make(clip_window(samples)), make(clip_window(samples * np.float32(0.5))), atol=0.02
    )


def test_sequence_features_keep_relative_energy() -> None:
    """A second half at a tenth of the level has a lower energy than the first half."""
    samples = np.random.default_rng(8).normal(0, 0.1, 48_000).astype(np.float32)
    samples[24_000:] *= np.float32(0.1)
    energy = window_input(FEATURES)(clip_window(samples))[:, 0]
    assert energy[:140].mean() - energy[160:].mean() == pytest.approx(4.0, abs=0.7)


@pytest.mark.parametrize("count", [1, 297, 298, 299, 900])
def test_sequence_features_have_one_shape(count: int) -> None:
    """A clip of any length gives (298, 40) finite numbers in the range of the model."""
    samples = np.random.default_rng(9).normal(0, 0.1, 240 + 160 * count).astype(np.float32)
    values = window_input(FEATURES)(clip_window(samples))
    assert values.shape == (298, 40)
    assert values.dtype == np.float32
    assert np.abs(values).max() <= 4


def test_longer_clip_gives_its_stretch_with_most_speech() -> None:
    """Silence around 3 s of speech is cut off."""
    frames = np.arange(600, dtype=np.float32)[:, None] * np.ones(42, np.float32)
    speech = np.zeros(600, np.float32)
    speech[200:498] = 1
    np.testing.assert_array_equal(select_frames(frames, speech, 298)[:, 0], np.arange(200, 498))


def test_shorter_clip_is_padded_with_its_quietest_frame() -> None:
    """The padding comes first, since the newest audio is at the end."""
    frames = np.arange(1, 11, dtype=np.float32)[:, None] * np.ones(42, np.float32)
    frames[3] = -5
    padded = select_frames(frames, np.ones(10, np.float32), 14)
    np.testing.assert_array_equal(padded[:4], np.full((4, 42), -5, np.float32))
    np.testing.assert_array_equal(padded[4:], frames)


@pytest.mark.parametrize(
    ("contrast_db", "quality"), [(5.0, 0.0), (6.0, 0.0), (16.0, 0.5), (26.0, 1.0), (60.0, 1.0)]
)
def test_quality_falls_where_noise_fills_the_pauses(contrast_db: float, quality: float) -> None:
    """Quality rises with the contrast of speech to pauses: 0 up to 6 dB, 1 from 26 dB on."""
    frames = np.zeros((298, 42), np.float32)
    frames[::2, 0] = contrast_db * np.log(10) / 10  # natural logarithms of energies
    assert Window(frames, np.ones(298, np.float32), 0).quality == pytest.approx(quality, abs=1e-5)


def test_babble_lowers_the_quality_of_a_voice() -> None:
    """The same speech with equally loud noise has a lower contrast."""
    samples = read_audio(clip_path())
    noise = np.random.default_rng(1).normal(0, 1, samples.size).astype(np.float32)
    noisy = samples + noise * np.sqrt(np.mean(np.square(samples)))
    assert clip_window(noisy).contrast_db < 0.6 * clip_window(samples).contrast_db


def test_reset_forgets_the_buffered_audio() -> None:
    """After a reset, the pipeline returns the windows of a new one."""
    samples = read_audio(clip_path())
    pipeline, new = (open_voice_pipeline(Config(), backend="cpu") for _ in range(2))
    list(pipeline.process(AudioChunk(samples[:40_100], 0)))
    pipeline.reset()
    later = AudioChunk(samples[40_100:120_000], 10**9)
    for ours, theirs in zip(pipeline.process(later), new.process(later), strict=True):
        np.testing.assert_array_equal(ours.window.frames, theirs.window.frames)
        assert ours.window.t_ns == theirs.window.t_ns
