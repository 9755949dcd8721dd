"""Picture and video make one opinion of a face: by rule, by network, in the daemon's eyes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edge.face.combination import ImageVideoCombiner, Method, Opinions, combine, open_visual, visual_input
from edge.inference.card import artifacts_directory, golden_input, load_card, open_classifier
from edge.pipeline import open_face_pipeline
from edge.settings import Config, FusionSettings, ModelSettings
from edge.sources.media_files import read_video_frames
from edge.sources.replay import clip_path
from edge.values import LABELS, Float32, Frame, Modality, Prediction

METHODS: tuple[Method, ...] = ("image", "video", "mean", "product", "network")
S = 1_000_000_000


def distribution(top: int, p: float) -> Float32:
    """Return (7,) with `p` for one class and the rest even."""
    values = np.full(len(LABELS), (1 - p) / (len(LABELS) - 1), np.float32)
    values[top] = p
    return values


def configured(method: Method, video: str = "video-lstm") -> Config:
    """Return a config on the CPU with this rule."""
    return Config(models=ModelSettings(video=video), fusion=FusionSettings(visual=method))


@pytest.mark.parametrize("method", METHODS)
def test_every_rule_gives_a_distribution(method: Method) -> None:
    """It sums to 1 where both agree, and names what both name."""
    network = open_classifier("visual", task="visual")
    p = combine(method, Opinions(distribution(3, 0.9), distribution(3, 0.9), 0.9, 1.0), network)
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.argmax() == 3


@pytest.mark.parametrize("method", ["mean", "product"])
def test_video_weighs_by_what_it_has_seen(method: Method) -> None:
    """Against each other, the picture wins over a video of one step, and ever less as that has seen more."""
    shares = (0.0, 1 / 16, 0.5, 1.0)
    said = [Opinions(distribution(0, 0.8), distribution(5, 0.8), 0.9, share) for share in shares]
    p = np.stack([combine(method, opinions) for opinions in said])
    assert (np.diff(p[:, 0]) < 0).all()
    assert p[0] == pytest.approx(distribution(0, 0.8), abs=1e-5)
    assert p[-1, 0] == pytest.approx(p[-1, 5], abs=1e-5)


def test_network_reads_what_it_was_trained_on() -> None:
    """Sixteen numbers in [-1, 1]: certainty is 1, impossibility -1."""
    x = visual_input(Opinions(distribution(0, 1.0), distribution(1, 1.0), 1.0, 0.0))
    assert x.shape == load_card("visual").input.shape[1:]
    np.testing.assert_allclose(x[[0, 1, 7, 8, 14, 15]], [1, -1, -1, 1, 1, -1], atol=1e-6)


@pytest.mark.parametrize("name", ["video-lstm", "visual"])
def test_artifacts_are_small_and_loop_free(name: str) -> None:
    """Under 300 kB in int8, checked by their own cards, one input and one output."""
    card = load_card(name)
    assert card.files["int8"].bytes < 300_000
    classifier = open_classifier(name, task=card.task)
    p = classifier.classify(golden_input(card))
    assert p.shape == (7,)
    assert p.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["video-lstm", "visual"])
def test_folds_hold_out_whom_the_face_model_of_the_fold_holds_out(name: str) -> None:
    """So no figure is about anybody whom one of the three has seen."""
    folds = artifacts_directory() / "folds"
    for k in range(5):
        face = load_card(f"face-cnn-fold{k}", directory=folds)
        assert load_card(f"{name}-fold{k}", directory=folds).held_out == face.held_out


def test_noise_moves_the_opinion_over_time_less_than_the_picture_s() -> None:
    """One face in forty noisy frames: the probabilities of the video change less from frame to frame."""
    pixels = next(islice(read_video_frames(clip_path(), 0.2), 10, None)).pixels
    random = np.random.default_rng(0)
    frames = [
        Frame(np.clip(pixels + random.normal(0, 25, pixels.shape), 0, 255).astype(np.uint8), i * S // 10)
        for i in range(40)
    ]
    moved: dict[Method, float] = {}
    rules: tuple[Method, ...] = ("image", "mean", "video")
    for method in rules:
        eyes = open_face_pipeline(configured(method))
        p = np.stack([eyes.process(frame)[0].prediction.p for frame in frames])
        moved[method] = float(np.abs(np.diff(p[10:], axis=0)).mean())
    assert moved["video"] < moved["mean"] < moved["image"]


def test_still_is_judged_by_itself() -> None:
    """`look` gives the picture's opinion whatever the rule, also in the middle of a stream."""
    together, alone = open_face_pipeline(configured("mean")), open_face_pipeline(configured("image"))
    frames = list(islice(read_video_frames(clip_path(), 0.2), 8))
    for frame in frames:
        together.process(frame)
    ours, theirs = (eyes.process_still(frames[0].pixels)[0].prediction.p for eyes in (together, alone))
    np.testing.assert_array_equal(ours, theirs)
    streamed = together.process(frames[-1])[0].prediction.p
    assert not np.array_equal(streamed, alone.process_still(frames[-1].pixels)[0].prediction.p)


def test_fresh_judge_remembers_nobody() -> None:
    """The next clip begins without the last one's faces."""
    judge = open_visual(configured("video"), "face-cnn")
    assert judge is not None
    embedding = np.ones(192, np.float32)
    known = Prediction(Modality.FACE, distribution(4, 0.9), 0.8, 5 * S, 1)
    first = judge.judge(known, embedding)
    later = Prediction(Modality.FACE, distribution(4, 0.9), 0.8, 5 * S + S // 2, 1)
    assert judge.judge(later, embedding).quality > first.quality
    assert judge.fresh().judge(later, embedding).quality == first.quality
    assert judge.judge(later, None) is later


def test_pictures_count_alone_where_the_video_model_reads_another_face_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Embeddings of another network mean nothing to it: said once, and the daemon runs."""
    assert open_visual(configured("mean"), "report-face") is None
    assert "reads the embeddings of face-cnn, not of report-face" in caplog.text
    assert open_visual(configured("mean", video="none"), "face-cnn") is None
    assert open_visual(configured("image"), "face-cnn") is None


def test_directory_without_a_video_model_is_one_of_pictures(tmp_path: Path) -> None:
    """Who keeps only own face and voice models need not name `none`; a name that is given must be there."""
    own = Config(models=ModelSettings(directory=tmp_path))
    assert open_visual(own, "face-cnn") is None
    named = Config(models=ModelSettings(directory=tmp_path, video="video-lstm"))
    with pytest.raises(Exception, match="no such model card"):
        open_visual(named, "face-cnn")


def test_judge_tells_the_model_that_an_event_names() -> None:
    """`video-lstm@...` stands beside face and voice."""
    eyes = open_face_pipeline(configured("mean"))
    assert eyes.helpers["video"].name == load_card("video-lstm").identity("int8")
    assert isinstance(eyes.visual, ImageVideoCombiner)
    assert open_face_pipeline(configured("image")).helpers == {}
