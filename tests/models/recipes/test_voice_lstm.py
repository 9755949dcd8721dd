"""The recipe of the shipped voice model: who is held out, what it hears, its folds on a tiny corpus."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.inference.card import load_card
from edge.inference.features import FrameSpec
from edge.sources.media_files import read_audio
from edge.voice.model_input import window_input
from edge.voice.windows import clip_window
from models.data.speech import Clip
from models.run import Progress, Run
from models.training.augmentation import augment_frames, change_tempo, mask_frames, shift_pitch
from tests.helpers import trees

pytest.importorskip("torch", reason="needs the [train] extra")
keras = pytest.importorskip("keras", reason="needs the [train] extra")

from models.recipes import voice_lstm  # noqa: E402
from models.training import engine  # noqa: E402

# TensorFlow's tensors do not know NumPy 2's copy keyword yet, and Keras asks them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ACTORS = tuple(f"{number:02d}" for number in range(1, 6))


@contextlib.contextmanager
def no_bar(_title: str) -> Iterator[Progress]:
    """A progress bar that nobody sees."""
    yield lambda _done, _total: None


def test_every_speaker_is_held_out_once() -> None:
    """Five folds take four of 20 actors and one of five nemo speakers each; tess is in the first two."""
    nemo = [f"nemo:{name}" for name in ("EB0", "IC0", "MK0", "SM0", "WR0")]
    people = ["tess:OAF", "tess:YAF", *nemo, *(f"ravdess:{number:02d}" for number in range(1, 21))]
    folds = [voice_lstm.held_out_speakers(people, fold) for fold in range(voice_lstm.FOLDS)]
    assert sorted(person for fold in folds for person in fold) == sorted(people)
    assert [len(fold) for fold in folds] == [6, 6, 5, 5, 5]
    assert all(sum(person.startswith("nemo:") for person in fold) == 1 for fold in folds)


def test_spoilt_frames_keep_energy_and_melody() -> None:
    """Another throat and line change the bands only, and what is cut out of nothing stays finite."""
    frames = np.random.default_rng(1).normal(0, 5, (50, 42)).astype(np.float32)
    spoilt = augment_frames(frames, np.random.default_rng(2))
    np.testing.assert_array_equal(spoilt[:, 0], frames[:, 0])
    np.testing.assert_array_equal(spoilt[:, 40:], frames[:, 40:])
    assert np.all(np.isfinite(spoilt))
    assert not np.allclose(spoilt[:, 1:40], frames[:, 1:40], atol=0.1)


def test_tempo_changes_the_length_only() -> None:
    """At double speed a ramp is as high and half as long."""
    ramp = np.arange(101, dtype=np.float32)
    np.testing.assert_allclose(change_tempo(ramp, 2.0), np.arange(0, 100, 2))


def test_hidden_frames_are_zero_and_few() -> None:
    """At most two stretches of 40 are hidden, in place."""
    frames = np.ones((298, 40), np.float32)
    for seed in range(10):
        mask_frames(frames, np.random.default_rng(seed))
        assert set(np.unique(frames)) <= {0, 1}
        frames[:] = 1
    mask_frames(frames, np.random.default_rng(3))
    assert np.count_nonzero(frames[:, 0] == 0) <= 80


def test_another_voice_has_no_pitch_where_there_was_none() -> None:
    """The height moves as a whole, the melody keeps its shape, and silence stays silence."""
    height = np.array([0, 0.5, 0.7, 0], np.float32)
    melody = np.array([0, -0.1, 0.1, 0], np.float32)
    moved, wider = height.copy(), melody.copy()
    shift_pitch(wider, moved, np.random.default_rng(4))
    assert moved[0] == moved[3] == 0
    assert moved[2] - moved[1] == pytest.approx(0.2, abs=1e-6)
    assert moved[1] != pytest.approx(0.5, abs=0.01)
    factor = wider[2] / melody[2]
    assert factor > 0
    assert factor != pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(wider, factor * melody, rtol=1e-6)


def test_sixteen_voices_count_four_times_as_much_as_one() -> None:
    """Of as many clips, those of more speakers are drawn more often, by the root of their number."""
    one = [Clip(Path("a"), "tess", "tess:YAF", "anger")] * 32
    many = [Clip(Path("b"), "ravdess", f"ravdess:{i % 16:02d}", "anger") for i in range(32)]
    weights = voice_lstm.weights_of(one + many)
    assert weights.sum() == pytest.approx(1)
    assert weights[32:].sum() / weights[:32].sum() == pytest.approx(4)


def test_more_clips_of_a_voice_count_by_their_root() -> None:
    """Four times the clips of one voice and emotion are drawn twice as often."""
    few = [Clip(Path("a"), "tess", "tess:YAF", "fear")] * 10
    more = [Clip(Path("b"), "tess", "tess:YAF", "anger")] * 40
    weights = voice_lstm.weights_of(few + more)
    assert weights[10:].sum() / weights[:10].sum() == pytest.approx(2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory in which the whole recipe ran for one epoch, beside its data."""
    base = tmp_path_factory.mktemp("voice")
    data, out = base / "data", base / "out"
    trees.write_speech(data, actors=ACTORS, seconds=0.6)
    trees.write_wav(data / "noise" / "hum.wav", trees.buzz(1, 1.5))

    def recorded(build: Any, epoch_of: Any, scores: Any, *, name: str, **how: Any) -> Any:
        """Keep what a model is to learn in its first epoch."""
        np.save(out / f"{name}.targets.npy", epoch_of(0)[1])
        return engine.train(build, epoch_of, scores, name=name, **how)

    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice_lstm, "train", recorded)
        patch.setattr(voice_lstm, "VERSIONS", 1)
        patch.setattr(voice_lstm, "SCHEDULE", replace(voice_lstm.SCHEDULE, batch=8))
        run = Run(data, out, epochs=1, resume=False, report=lambda _: None, bar=no_bar)
        voice_lstm.train_voice_lstm(run)
    return out


def test_recipe_leaves_the_model_and_its_folds(trained: Path) -> None:
    """One card a model, each with its own people, features and terms."""
    card = load_card("voice-lstm", directory=trained)
    assert card.held_out == ()
    assert card.input.shape == (1, 298, 40)
    licences = {source.name: source.licence for source in card.data}
    assert licences["tess"] == "CC BY-NC-ND 4.0"
    assert licences["ravdess"] == licences["nemo"] == "CC BY-NC-SA 4.0"
    assert any(name.startswith("noise") for name in licences)
    people = [
        person
        for k in range(voice_lstm.FOLDS)
        for person in load_card(f"voice-lstm-fold{k}", directory=trained).held_out
    ]
    assert len(people) == len(set(people)) == 2 + 3 + len(ACTORS)


def test_second_generation_learns_from_the_first(trained: Path) -> None:
    """The teacher learns labels, its pupil labels and what the teacher says; only the pupil has a card."""
    names = ("voice-lstm-fold0-teacher", "voice-lstm-fold0")
    first, second = (np.load(trained / f"{name}.targets.npy") for name in names)
    lowest = voice_lstm.SMOOTHING / 7
    np.testing.assert_allclose(first.min(axis=1), lowest, rtol=1e-5)
    np.testing.assert_allclose(second.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(second.min(axis=1) - lowest).min() > 1e-5, "the teacher has no say"
    teacher, pupil = (keras.models.load_model(trained / f"{name}.keras") for name in names)
    assert not np.allclose(teacher.get_weights()[0], pupil.get_weights()[0])
    assert not (trained / "voice-lstm-fold0-teacher.json").exists()
    assert np.load(trained / "voice-lstm-fold0.calibration.npy").shape == (voice_lstm.TO_CALIBRATE, 298, 40)


def test_training_and_device_compute_the_same_features(trained: Path) -> None:
    """The card's features of a clip are what the recipe made of it: nothing can drift."""
    card = load_card("voice-lstm", directory=trained)
    path = next((trained.parent / "data" / "speech" / "ravdess").rglob("*.wav"))
    window = clip_window(read_audio(path))
    spec = card.spec(FrameSpec)
    mean, std = (np.array(values, np.float32) for values in (spec.mean, spec.std))
    expected = voice_lstm.standardised(voice_lstm.prepared(window.frames, window.speech), mean, std)
    np.testing.assert_array_equal(window_input(card.input.features)(window), expected)
