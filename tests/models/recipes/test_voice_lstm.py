"""The recipe of the shipped voice model: held-out speakers, augmentation, and training on a tiny corpus."""

from __future__ import annotations

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
from models.run import Run
from models.training.augmentation import augment_frames, change_tempo, mask_frames, shift_pitch
from tests.helpers import trees

pytest.importorskip("torch", reason="needs the [train] extra")
keras = pytest.importorskip("keras", reason="needs the [train] extra")

from models.recipes import voice_lstm  # noqa: E402
from models.training import engine  # noqa: E402

# TensorFlow's tensors do not support the copy keyword of NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ACTORS = ("01", "02")
FOLDS, CALIBRATION = 2, 8


def test_every_speaker_is_held_out_once() -> None:
    """Each of five folds has four of 20 actors and one of five nemo speakers; tess is in the first two."""
    nemo = [f"nemo:{name}" for name in ("EB0", "IC0", "MK0", "SM0", "WR0")]
    people = ["tess:OAF", "tess:YAF", *nemo, *(f"ravdess:{number:02d}" for number in range(1, 21))]
    folds = [voice_lstm.held_out_speakers(people, fold) for fold in range(voice_lstm.FOLDS)]
    assert sorted(person for fold in folds for person in fold) == sorted(people)
    assert [len(fold) for fold in folds] == [6, 6, 5, 5, 5]
    assert all(sum(person.startswith("nemo:") for person in fold) == 1 for fold in folds)


def test_augmented_frames_keep_energy_and_pitch() -> None:
    """Augmented frames keep energy and pitch and stay finite."""
    frames = np.random.default_rng(1).normal(0, 5, (50, 42)).astype(np.float32)
    augmented = augment_frames(frames, np.random.default_rng(2))
    np.testing.assert_array_equal(augmented[:, 0], frames[:, 0])
    np.testing.assert_array_equal(augmented[:, 40:], frames[:, 40:])
    assert np.all(np.isfinite(augmented))
    assert not np.allclose(augmented[:, 1:40], frames[:, 1:40], atol=0.1)


def test_tempo_changes_the_length_only() -> None:
    """At double speed a ramp has the same values in half the length."""
    ramp = np.arange(101, dtype=np.float32)
    np.testing.assert_allclose(change_tempo(ramp, 2.0), np.arange(0, 100, 2))


def test_masked_frames_are_zero_and_few() -> None:
    """At most two spans of 40 frames are masked, in place."""
    frames = np.ones((298, 40), np.float32)
    for seed in range(10):
        mask_frames(frames, np.random.default_rng(seed))
        assert set(np.unique(frames)) <= {0, 1}
        frames[:] = 1
    mask_frames(frames, np.random.default_rng(3))
    assert np.count_nonzero(frames[:, 0] == 0) <= 80


def test_pitch_shift_keeps_unvoiced_frames() -> None:
    """The pitch is shifted, its range is scaled, and unvoiced frames stay unvoiced."""
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


def test_weight_grows_with_the_root_of_the_speakers() -> None:
    """With equal numbers of clips, 16 speakers have four times the weight of one."""
    one = [Clip(Path("a"), "tess", "tess:YAF", "anger")] * 32
    many = [Clip(Path("b"), "ravdess", f"ravdess:{i % 16:02d}", "anger") for i in range(32)]
    weights = voice_lstm.weights_of(one + many)
    assert weights.sum() == pytest.approx(1)
    assert weights[32:].sum() / weights[:32].sum() == pytest.approx(4)


def test_weight_grows_with_the_root_of_the_clips() -> None:
    """Four times the clips of a speaker and emotion have twice the weight."""
    few = [Clip(Path("a"), "tess", "tess:YAF", "fear")] * 10
    more = [Clip(Path("b"), "tess", "tess:YAF", "anger")] * 40
    weights = voice_lstm.weights_of(few + more)
    assert weights[10:].sum() / weights[:10].sum() == pytest.approx(2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which the whole recipe ran for one epoch, with fewer folds and clips."""
    base = tmp_path_factory.mktemp("voice")
    data, out = base / "data", base / "out"
    trees.write_speech(data, actors=ACTORS, seconds=0.4)
    trees.write_wav(data / "noise" / "hum.wav", trees.buzz(1, 1.5))

    def recorded(build: Any, epoch_of: Any, scores: Any, *, name: str, **how: Any) -> Any:
        """Save the targets of the first epoch."""
        np.save(out / f"{name}.targets.npy", epoch_of(0)[1])
        return engine.train(build, epoch_of, scores, name=name, **how)

    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voice_lstm, "train", recorded)
        patch.setattr(voice_lstm, "VERSIONS", 1)
        patch.setattr(voice_lstm, "FOLDS", FOLDS)
        patch.setattr(voice_lstm, "TO_CALIBRATE", CALIBRATION)
        patch.setattr(voice_lstm, "SCHEDULE", replace(voice_lstm.SCHEDULE, batch=8))
        run = Run(data, out, epochs=1, resume=False, report=lambda _: None, bar=trees.no_bar)
        voice_lstm.train_voice_lstm(run)
    return out


def test_recipe_writes_the_model_and_its_folds(trained: Path) -> None:
    """Every model has a card with its held-out people, features and licences."""
    card = load_card("voice-lstm", directory=trained)
    assert card.held_out == ()
    assert card.input.shape == (1, 298, 40)
    licences = {source.name: source.licence for source in card.data}
    assert licences["tess"] == "CC BY-NC-ND 4.0"
    assert licences["ravdess"] == licences["nemo"] == "CC BY-NC-SA 4.0"
    assert any(name.startswith("noise") for name in licences)
    people = [
        person
        for k in range(FOLDS)
        for person in load_card(f"voice-lstm-fold{k}", directory=trained).held_out
    ]
    assert len(people) == len(set(people)) == 2 + 3 + len(ACTORS)


def test_second_generation_learns_from_the_first(trained: Path) -> None:
    """The first generation learns labels, the second also the first's predictions; only it has a card."""
    names = ("voice-lstm-fold0-teacher", "voice-lstm-fold0")
    first, second = (np.load(trained / f"{name}.targets.npy") for name in names)
    lowest = voice_lstm.SMOOTHING / 7
    np.testing.assert_allclose(first.min(axis=1), lowest, rtol=1e-5)
    np.testing.assert_allclose(second.sum(axis=1), 1, rtol=1e-5)
    assert np.abs(second.min(axis=1) - lowest).min() > 1e-5, "the teacher has no influence"
    teacher, pupil = (keras.models.load_model(trained / f"{name}.keras") for name in names)
    assert not np.allclose(teacher.get_weights()[0], pupil.get_weights()[0])
    assert not (trained / "voice-lstm-fold0-teacher.json").exists()
    assert np.load(trained / "voice-lstm-fold0.calibration.npy").shape == (CALIBRATION, 298, 40)


def test_training_and_device_compute_the_same_features(trained: Path) -> None:
    """The features by the card are the inputs that the recipe makes of a clip."""
    card = load_card("voice-lstm", directory=trained)
    path = next((trained.parent / "data" / "speech" / "ravdess").rglob("*.wav"))
    window = clip_window(read_audio(path))
    spec = card.spec(FrameSpec)
    mean, std = (np.array(values, np.float32) for values in (spec.mean, spec.std))
    expected = voice_lstm.standardised(voice_lstm.prepared(window.frames, window.speech), mean, std)
    np.testing.assert_array_equal(window_input(card.input.features)(window), expected)
