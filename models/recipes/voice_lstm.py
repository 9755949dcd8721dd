"""The shipped voice model: convolutions over MFCC frames, then an LSTM, for a window of 3 s.

It is trained on all speakers of tess, ravdess and nemo (`voice-lstm`), and once for each fold without a
part of them. Each fold holds out some ravdess actors and one nemo speaker; folds 0 and 1 also hold out one
tess speaker each. So every clip is predicted once by a model that was not trained on its speaker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import MediaError
from edge.inference.card import Source
from edge.inference.features import FrameSpec
from edge.sources.media_files import read_audio
from edge.values import LABELS, Float32
from edge.voice.features import COEFFICIENTS, clip_frames, frame_count
from edge.voice.model_input import HEIGHT, MELODY, RANGE, normalize_frames, select_frames
from edge.voice.windows import clip_window
from models.cards import draft_card, save_calibration, save_trained
from models.data.datasets import DataError, find_set, need_every_class
from models.data.speech import CORPORA, SPEECH_LICENCES, Clip, list_clips
from models.metrics import fit_temperature
from models.run import Run
from models.training.audio_augmentation import augment_audio, read_noise_sources
from models.training.augmentation import (
    augment_frames,
    change_tempo,
    mask_frames,
    mixup,
    shift_pitch,
    soft_targets,
)
from models.training.engine import Schedule, train
from models.training.torch_network import Network

WINDOW_S = 3.0
SCHEDULE = Schedule(epochs=40, batch=64, rate=2e-3, decay=0.05, ema=0.995)
TEACHER_SEED, SEED = 1, 2
SMOOTHING = 0.1
TEACHER_SHARE = 0.5  # of the targets of the second generation
VERSIONS, AUGMENTATION_SEED = 5, 7  # augmented versions of each clip, made once
CLEAN_SHARE = 0.3
TO_CALIBRATE = 400
FOLDS = 5
FRAMES = frame_count(WINDOW_S)
NOISE = Source(
    name="noise: ESC-10, NOISEX and other test signals, Speech Commands backgrounds",
    use="mixed under the training clips at 0 to 20 dB, all files but the babble of the figures",
    licence="CC BY-NC 3.0 (ESC-10), CC BY 4.0 (Speech Commands), not stated (the rest)",
)
TALKING = Source(
    name="ten voices of the GRID corpus",
    use="talking at once under the training clips; their own speech has no label here",
    licence="CC BY 4.0",
)


def build() -> Any:
    """Return (298, 40) standardised frames -> (7,) that sums to 1; 38 steps of the LSTM."""
    import keras
    from keras import layers

    voice = keras.Input((FRAMES, COEFFICIENTS), name="voice")
    x = voice
    for width in (64, 96, 96):  # 298 -> 149 -> 75 -> 38 steps of 80 ms
        y = layers.Conv1D(width, 5, strides=2, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv1D(width, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        x = layers.Conv1D(width, 1, strides=2, use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([layers.BatchNormalization()(x), y]))
    x = layers.Dropout(0.3)(x)
    x = layers.LSTM(80, return_sequences=True, name="lstm")(x)
    x = layers.GlobalAveragePooling1D()(x)  # (38, 80) -> (80,)
    x = layers.Dropout(0.3)(x)
    p = layers.Dense(len(LABELS), activation="softmax", name="p")(x)
    return keras.Model(voice, p, name="voice-lstm")


def held_out_speakers(speakers: Sequence[str], fold: int) -> tuple[str, ...]:
    """Return the `speakers` that fold 0..4 holds out: a part of each corpus; tess is in two folds."""
    left_out: list[str] = []
    for corpus in CORPORA:
        people = sorted({name for name in speakers if name.startswith(f"{corpus}:")})
        left_out += [name for i, name in enumerate(people) if i % FOLDS == fold]
    return tuple(left_out)


@dataclass(frozen=True, slots=True, eq=False)
class AnalysedClips:
    """Clips with frames (`takes`: clean, then augmented) and speech probabilities of the clean take."""

    clips: tuple[Clip, ...]
    takes: tuple[tuple[NDArray[np.float16], ...], ...]
    speech: tuple[Float32, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels (n,) as indices into `LABELS`."""
        return np.array([LABELS.index(clip.label) for clip in self.clips], dtype=np.int64)


def train_voice_lstm(run: Run) -> Path:
    """Train one model for each fold without its people, then the shipped one on all; return its card.

    Each is trained twice, the second time from scratch with the first as teacher (born-again networks,
    Furlanello et al. 2018, arXiv:1805.04770). All train for the same number of epochs and keep the last,
    since no validation people are left. The temperature of a fold is fitted on the held-out predictions of
    the other folds, with equal weight for every person, since the target is an unseen person, not an unseen
    clip.
    """
    training = _Training(run)
    predictions = [training.train_two_generations(f"voice-lstm-fold{k}", fold=k) for k in range(FOLDS)]
    for k in range(FOLDS):
        training.finish(
            f"voice-lstm-fold{k}", fold=k, held_out=[p for j, p in enumerate(predictions) if j != k]
        )
    training.train_two_generations("voice-lstm", fold=None)
    return training.finish("voice-lstm", fold=None, held_out=predictions)


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOutPredictions:
    """Predictions (n, 7) of a model for held-out people (n,), with labels (n,)."""

    p: Float32
    labels: NDArray[np.int64]
    people: NDArray[np.str_]


class _Training:
    """The training data of all models of this recipe, and the training of one model."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.analysed = analyse_clips(run)
        self._labels = self.analysed.labels
        need_every_class("speech", self._labels)
        self._speakers = np.array([clip.speaker for clip in self.analysed.clips])
        self._frames = np.stack(
            [
                prepared(takes[0], speech)
                for takes, speech in zip(self.analysed.takes, self.analysed.speech, strict=True)
            ]
        )

    def train_two_generations(self, name: str, *, fold: int | None) -> _HeldOutPredictions:
        """Train a teacher and then `name` without the people of `fold`; return predictions for them."""
        teacher = self.train_one(f"{name}-teacher", fold=fold, seed=TEACHER_SEED)
        return self.predict_held_out(self.train_one(name, fold=fold, seed=SEED, teacher=teacher), fold=fold)

    def train_one(self, name: str, *, fold: int | None, seed: int, teacher: Network | None = None) -> Network:
        """Train `name` without the people of `fold`; half of each target is the teacher's prediction.

        Also writes `NAME.calibration.npy`, inputs for the int8 conversion.
        """
        index = np.flatnonzero(~np.isin(self._speakers, self._people(fold)))
        need_every_class(f"{name}: its training people", self._labels[index])
        mean, std = self._scale(fold)
        weight = weights_of([self.analysed.clips[i] for i in index])
        targets = soft_targets(self._labels, len(LABELS), smoothing=SMOOTHING)
        schedule = replace(SCHEDULE, epochs=self.run.epochs or SCHEDULE.epochs, seed=seed)

        def epoch_of(number: int, count: int = len(index)) -> tuple[Float32, Float32]:
            random = np.random.default_rng([schedule.seed, number])
            drawn = random.choice(index, count, p=weight)
            augmented = np.stack([self._augmented(i, random) for i in drawn])
            inputs = standardised(augmented, mean, std)
            for frames in inputs:
                mask_frames(frames, random)
            inputs, mixed = mixup(inputs, targets[drawn], random, share=0.5, alpha=0.4)
            if teacher is not None:
                mixed = (1 - TEACHER_SHARE) * mixed + TEACHER_SHARE * teacher.predict(inputs)
            return inputs, np.asarray(mixed, np.float32)

        network = Network(train(build, epoch_of, None, name=name, schedule=schedule, run=self.run))
        save_calibration(self.run.out, name, epoch_of(schedule.epochs, TO_CALIBRATE)[0])
        return network

    def predict_held_out(self, network: Network, *, fold: int | None) -> _HeldOutPredictions:
        """Return predictions for the clean clips of the people that `fold` holds out."""
        is_held_out = np.isin(self._speakers, self._people(fold))
        if not is_held_out.any():
            return _HeldOutPredictions(
                np.empty((0, len(LABELS)), np.float32), np.empty(0, np.int64), np.empty(0, str)
            )
        p = network.predict(standardised(self._frames[is_held_out], *self._scale(fold)))
        return _HeldOutPredictions(p, self._labels[is_held_out], self._speakers[is_held_out])

    def finish(self, name: str, *, fold: int | None, held_out: Sequence[_HeldOutPredictions]) -> Path:
        """Write the card of a trained model with the temperature fitted on `held_out`."""
        p = np.concatenate([part.p for part in held_out])
        labels = np.concatenate([part.labels for part in held_out])
        people = np.concatenate([part.people for part in held_out])
        mean, std = self._scale(fold)
        card = draft_card(
            name,
            task="voice",
            shape=(1, FRAMES, COEFFICIENTS),
            value_range=(-float(RANGE), float(RANGE)),
            features=FrameSpec(
                window_s=WINDOW_S,
                mean=tuple(round(float(value), 5) for value in mean),
                std=tuple(round(float(value), 5) for value in std),
            ),
            temperature=fit_temperature(p, labels, people.tolist()),
            data=[*(_source(corpus) for corpus in CORPORA), NOISE, TALKING],
            held_out=self._people(fold),
        )
        return save_trained(self.run.out, card)

    def _scale(self, fold: int | None) -> tuple[Float32, Float32]:
        """Return mean and standard deviation (40,) of the frames of the training clips."""
        frames = self._frames[~np.isin(self._speakers, self._people(fold))]
        return frames.mean(axis=(0, 1)), frames.std(axis=(0, 1))

    def _people(self, fold: int | None) -> tuple[str, ...]:
        return () if fold is None else held_out_speakers(self._speakers.tolist(), fold)

    def _augmented(self, i: int, random: np.random.Generator) -> Float32:
        """Return one clip (298, 40), augmented: room, tempo, position, vocal tract and pitch."""
        takes, speech = self.analysed.takes[i], self.analysed.speech[i]
        is_clean = random.random() < CLEAN_SHARE or len(takes) == 1
        frames = takes[0 if is_clean else int(random.integers(1, len(takes)))].astype(np.float32)
        # The take may have another tempo than the clean one, for which the speech probabilities are known.
        at = np.linspace(0, len(speech) - 1, len(frames))
        speech = np.interp(at, np.arange(len(speech)), speech).astype(np.float32)
        if random.random() < 0.5:
            speed = float(random.uniform(0.85, 1.18))
            frames, speech = change_tempo(frames, speed), change_tempo(speech, speed)
        frames = _random_span(frames, speech, random)
        if random.random() < 0.7:
            frames = augment_frames(frames, random)
        values = normalize_frames(frames)
        shift_pitch(values[:, MELODY], values[:, HEIGHT], random)
        return values


def analyse_clips(run: Run) -> AnalysedClips:
    """Read every clip and compute the frames of the clean clip and of `VERSIONS` augmented ones."""
    clips: list[Clip] = []
    for corpus in CORPORA:
        found, strange = list_clips(run.data, corpus)
        clips += found
        for note in strange:
            run.report(note)
    try:
        talkers = find_set(run.data, "talking")
    except DataError as error:
        talkers = None
        run.report(f"{error}; training continues without babble")
    with run.bar("reading noises") as progress:
        noises = read_noise_sources(find_set(run.data, "noise"), talkers, progress=progress)
    good, takes, speech, bad = [], [], [], []
    with run.bar("reading the corpora") as progress:
        for number, clip in enumerate(clips):
            try:
                samples = read_audio(clip.path)
            except MediaError:
                bad.append(clip.path.name)
                continue
            window = clip_window(samples)
            random = np.random.default_rng([AUGMENTATION_SEED, number])
            versions = [clip_frames(augment_audio(samples, noises, random)) for _ in range(VERSIONS)]
            good.append(clip)
            # float16 halves the memory; its error of 1e-3 is far below microphone noise.
            takes.append(tuple(frames.astype(np.float16) for frames in (window.frames, *versions)))
            speech.append(window.speech)
            progress(number + 1, len(clips))
    if not good:
        raise DataError(f"speech: no clip can be read, {len(bad)} tried; check {run.data}")
    if bad:
        run.report(f"speech: {len(bad)} of {len(clips)} clips cannot be read (first {bad[0]})")
    return AnalysedClips(tuple(good), tuple(takes), tuple(speech))


def weights_of(clips: Sequence[Clip]) -> NDArray[np.float64]:
    """Return the sampling probability of each clip (n,).

    Corpora differ in emotions, size and speakers. The probability of an emotion of a corpus is proportional
    to the square root of its number of clips, which balances sizes without frequent repetition, and to the
    square root of its number of speakers: many speakers generalise better to unseen ones than many clips of
    one.
    """
    cells = [(clip.corpus, clip.label) for clip in clips]
    count = Counter(cells)
    speakers = Counter(cell for cell, _ in {((clip.corpus, clip.label), clip.speaker) for clip in clips})
    weight = np.array([(speakers[cell] / count[cell]) ** 0.5 for cell in cells])
    return np.asarray(weight / weight.sum(), np.float64)


def prepared(frames: NDArray[np.floating[Any]], speech: Float32) -> Float32:
    """Return the frames (298, 40) of a clip as on the device, before standardisation."""
    return normalize_frames(select_frames(frames.astype(np.float32), speech, FRAMES))


def standardised(frames: Float32, mean: Float32, std: Float32) -> Float32:
    """Return frames (..., 40) standardised and clipped at `RANGE`, as on the device."""
    return np.asarray(np.clip((frames - mean) / std, -RANGE, RANGE), dtype=np.float32)


def _random_span(frames: Float32, speech: Float32, random: np.random.Generator) -> Float32:
    """Return 298 frames: a span near the one with most speech, or all with silence on both sides."""
    count = len(frames)
    if count > FRAMES:
        total = np.concatenate([[0.0], np.cumsum(speech, dtype=np.float64)])
        best = int(np.argmax(total[FRAMES:] - total[:-FRAMES]))
        start = int(np.clip(best + random.integers(-40, 41), 0, count - FRAMES))
        return frames[start : start + FRAMES]
    before = int(random.integers(0, FRAMES - count + 1))
    quietest = frames[np.argmin(frames[:, 0])][None]
    silence = np.repeat(quietest, before, axis=0), np.repeat(quietest, FRAMES - count - before, axis=0)
    return np.concatenate([silence[0], frames, silence[1]])


def _source(corpus: str) -> Source:
    return Source(
        name=corpus,
        use="trained on; the figures are from folds that left people out",
        licence=SPEECH_LICENCES[corpus],
    )
