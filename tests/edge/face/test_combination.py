"""Image and video prediction of a face are combined by rule, by network, and in the face pipeline."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ModelError
from edge.face.combination import (
    FacePredictions,
    Method,
    combine_predictions,
    network_input,
    open_combiner,
)
from edge.inference.card import artifacts_directory, golden_input, load_card
from edge.inference.classifier import open_classifier
from edge.pipeline import open_face_pipeline
from edge.settings import Config, FusionSettings, ModelSettings
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from edge.values import LABELS, Float32, Frame, Modality, Prediction

METHODS: tuple[Method, ...] = ("image", "video", "mean", "product", "network")
S = 1_000_000_000


def distribution(top: int, p: float) -> Float32:
    """Return (7,) with `p` for one class and the rest spread evenly."""
    values = np.full(len(LABELS), (1 - p) / (len(LABELS) - 1), np.float32)
    values[top] = p
    return values


def configured(method: Method, video: str = "video-lstm") -> Config:
    """Return a config with this rule."""
    return Config(models=ModelSettings(video=video), fusion=FusionSettings(visual=method))


@pytest.mark.parametrize("method", METHODS)
def test_every_rule_returns_a_distribution(method: Method) -> None:
    """Two predictions that agree give their label, and the probabilities sum to 1."""
    network = open_classifier("visual", task="visual")
    p = combine_predictions(
        method, FacePredictions(distribution(3, 0.9), distribution(3, 0.9), 0.9, 1.0), network
    )
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.argmax() == 3


@pytest.mark.parametrize("method", ["mean", "product"])
def test_video_counts_by_its_share_in_view(method: Method) -> None:
    """Of two predictions that disagree, the image's counts less the more steps of the video were in view."""
    shares = (0.0, 1 / 16, 0.5, 1.0)
    pairs = [FacePredictions(distribution(0, 0.8), distribution(5, 0.8), 0.9, share) for share in shares]
    p = np.stack([combine_predictions(method, pair) for pair in pairs])
    assert (np.diff(p[:, 0]) < 0).all()
    assert p[0] == pytest.approx(distribution(0, 0.8), abs=1e-5)
    assert p[-1, 0] == pytest.approx(p[-1, 5], abs=1e-5)


def test_input_of_the_network_is_scaled() -> None:
    """Sixteen numbers in [-1, 1]: certainty is 1, impossibility is -1."""
    x = network_input(FacePredictions(distribution(0, 1.0), distribution(1, 1.0), 1.0, 0.0))
    assert x.shape == load_card("visual").input.shape[1:]
    np.testing.assert_allclose(x[[0, 1, 7, 8, 14, 15]], [1, -1, -1, 1, 1, -1], atol=1e-6)


@pytest.mark.parametrize("name", ["video-lstm", "visual"])
def test_artifacts_are_small(name: str) -> None:
    """The int8 files are under 300 kB and run the golden input of their cards."""
    card = load_card(name)
    assert card.files["int8"].bytes < 300_000
    classifier = open_classifier(name, task=card.task)
    p = classifier.classify(golden_input(card))
    assert p.shape == (7,)
    assert p.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["video-lstm", "visual"])
def test_folds_hold_out_the_people_of_the_face_model(name: str) -> None:
    """No figure of a fold is about a person in the training data of one of its models."""
    folds = artifacts_directory() / "folds"
    for k in range(5):
        face = load_card(f"face-cnn-fold{k}", directory=folds)
        assert load_card(f"{name}-fold{k}", directory=folds).held_out == face.held_out


def test_video_steadies_the_prediction_of_a_noisy_face() -> None:
    """Over forty noisy frames of one face, the video's probabilities change less from frame to frame."""
    pixels = next(islice(read_video_frames(clip_path(), 0.2), 10, None)).pixels
    random = np.random.default_rng(0)
    frames = [
        Frame(np.clip(pixels + random.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8), i * S // 10)
        for i in range(40)
    ]
    change: dict[Method, float] = {}
    rules: tuple[Method, ...] = ("image", "mean", "video")
    for method in rules:
        pipeline = open_face_pipeline(configured(method))
        p = np.stack([pipeline.process(frame)[0].prediction.p for frame in frames])
        change[method] = float(np.abs(np.diff(p[10:], axis=0)).mean())
    assert change["video"] < change["mean"] < change["image"]


def test_still_is_classified_without_history() -> None:
    """`process_still` returns the image prediction for every rule, also in the middle of a stream."""
    mean, image = open_face_pipeline(configured("mean")), open_face_pipeline(configured("image"))
    frames = list(islice(read_video_frames(clip_path(), 0.2), 8))
    for frame in frames:
        mean.process(frame)
    first, second = (each.process_still(frames[0].pixels)[0].prediction.p for each in (mean, image))
    np.testing.assert_array_equal(first, second)
    streamed = mean.process(frames[-1])[0].prediction.p
    assert not np.array_equal(streamed, image.process_still(frames[-1].pixels)[0].prediction.p)


def test_copy_has_no_history() -> None:
    """The next clip starts without the faces of the last one."""
    combiner = open_combiner(configured("video"), load_card("face-cnn"))
    assert combiner is not None
    embedding = np.ones(192, np.float32)
    prediction = Prediction(Modality.FACE, distribution(4, 0.9), 0.8, 5 * S, 1)
    first = combiner.combine(prediction, embedding)
    later = Prediction(Modality.FACE, distribution(4, 0.9), 0.8, 5 * S + S // 2, 1)
    assert combiner.combine(later, embedding).quality > first.quality
    assert combiner.copy_without_history().combine(later, embedding).quality == first.quality
    assert combiner.combine(later, None) is later


def test_frames_are_classified_alone_where_the_video_model_does_not_fit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A video model of another face model is left out with one line in the log."""
    assert open_combiner(configured("mean"), load_card("report-face")) is None
    assert [record.getMessage() for record in caplog.records] == [
        "models.video video-lstm: trained on the embeddings of face-cnn, not of report-face; each frame "
        'is classified on its own (set models.video = "none", or a video model for report-face)'
    ]
    assert open_combiner(configured("mean", video="none"), load_card("face-cnn")) is None
    assert open_combiner(configured("image"), load_card("face-cnn")) is None


def test_video_model_does_not_fit_another_model_of_the_same_name() -> None:
    """A retrained `face-cnn` has other embeddings, whatever its name."""
    card = load_card("face-cnn")
    files = {key: file.model_copy(update={"sha256": "0" * 64}) for key, file in card.files.items()}
    assert open_combiner(configured("mean"), card.model_copy(update={"files": files})) is None
    assert open_combiner(configured("mean"), card) is not None


def test_missing_video_model_is_refused(tmp_path: Path) -> None:
    """A directory of other models leaves the video model of the package; an unknown name is an error."""
    own = Config(models=ModelSettings(directory=tmp_path))
    assert open_combiner(own, load_card("face-cnn")) is not None
    named = Config(models=ModelSettings(directory=tmp_path, video="video-gru"))
    with pytest.raises(ModelError, match=r"models\.video video-gru: no video-gru\.json in .* or the package"):
        open_combiner(named, load_card("face-cnn"))


def test_pipeline_names_the_models_of_an_event() -> None:
    """Events name the video model beside the face model."""
    pipeline = open_face_pipeline(configured("mean"))
    assert pipeline.classifiers["face"] is pipeline.classifier
    assert pipeline.classifiers["video"].name == load_card("video-lstm").identity("int8")
    assert list(open_face_pipeline(configured("image")).classifiers) == ["face"]
