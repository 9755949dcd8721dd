"""Image prediction and video prediction of a face -> one prediction.

The image model classifies the newest frame, the video model the last 1.5 s. The rules are those of Kittler et
al. 1998, "On combining classifiers": the mean and the product of both predictions, in which the video counts
by the share of its steps that were in view. `network` is a small trained model in place of a rule.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edge.errors import ModelError
from edge.face.history import EmbeddingHistory
from edge.inference.card import Card, load_card
from edge.inference.classifier import TfliteClassifier
from edge.inference.features import VideoSpec
from edge.inference.models import NONE, find_card, open_model
from edge.settings import Config
from edge.values import Classifier, Float32, Prediction

log = logging.getLogger(__name__)

Method = Literal["image", "video", "mean", "product", "network"]
FLOOR = 1e-3
LOWEST_LOG = float(np.log(FLOOR))


@dataclass(frozen=True, slots=True, eq=False)
class FacePredictions:
    """Probabilities of one face from both models: `image` and `video` (7,).

    `quality` 0..1 is that of the image, `share` 0..1 that of the video's steps that were in view.
    """

    image: Float32
    video: Float32
    quality: float
    share: float


def combine_predictions(
    method: Method, predictions: FacePredictions, network: Classifier | None = None
) -> Float32:
    """Return the combined probabilities (7,) float32, which sum to 1; `network` serves its method only."""
    image, video, share = predictions.image, predictions.video, predictions.share
    if method == "image":
        return image
    if method == "video":
        return video
    if method == "network":
        assert network is not None, "opened with the method"
        return network.classify(network_input(predictions))
    if method == "mean":
        return ((image + share * video) / (1 + share)).astype(np.float32)
    logs = _log(image) + share * _log(video)
    e = np.exp((logs - logs.max()) / (1 + share))
    return np.asarray(e / e.sum(), np.float32)


def network_input(predictions: FacePredictions) -> Float32:
    """Return (16,) float32 in [-1, 1]: seven log p of the image, seven of the video, quality, share."""
    logs = np.concatenate([_log(predictions.image), _log(predictions.video)]) / -LOWEST_LOG * 2 + 1
    rest = [2 * predictions.quality - 1, 2 * predictions.share - 1]
    return np.concatenate([logs, rest]).astype(np.float32)


class ImageVideoCombiner:
    """Combines the image predictions of a stream with those of the video model; one thread at a time."""

    def __init__(
        self, video: TfliteClassifier, *, method: Method, network: TfliteClassifier | None = None
    ) -> None:
        self.video = video
        self._method = method
        self._network = network
        self._history = EmbeddingHistory(video.card.spec(VideoSpec))

    def combine(self, prediction: Prediction, embedding: Float32 | None) -> Prediction:
        """Return the image `prediction` combined with the video's; unchanged without an embedding."""
        if embedding is None:
            return prediction
        predictions = self.predict(prediction, embedding)
        p = combine_predictions(self._method, predictions, self._network)
        # The video alone is unreliable for a face that has just come into view.
        quality = prediction.quality * (0.5 + 0.5 * predictions.share if self._method == "video" else 1.0)
        return replace(prediction, p=p, quality=quality)

    def predict(self, prediction: Prediction, embedding: Float32) -> FacePredictions:
        """Add the embedding of the next frame to its track; return both predictions, not yet combined."""
        steps, share = self._history.add(prediction.track or 0, embedding, prediction.t_ns)
        return FacePredictions(prediction.p, self.video.classify(steps), prediction.quality, share)

    def copy_without_history(self) -> ImageVideoCombiner:
        """Return a combiner with the same models and no tracks."""
        return ImageVideoCombiner(self.video, method=self._method, network=self._network)


def open_combiner(config: Config, face: Card) -> ImageVideoCombiner | None:
    """Open the video model for the embeddings of the face model with the card `face`.

    Returns None where images are classified on their own: by configuration, or because the video model was
    trained on the embeddings of another face model. Both models run on the CPU, which takes less time than
    the transfer to an accelerator. Raises `ModelError` for a model that cannot be used.
    """
    method = config.fusion.visual
    if config.models.video == NONE or method == "image":
        return None
    video = open_model(config, "video")
    if not _reads_embeddings_of(face, video, config):
        log.warning(
            "models.video %s: trained on the embeddings of %s, not of %s; "
            'each frame is classified on its own (set models.video = "none", or a video model for %s)',
            video.card.name,
            video.card.spec(VideoSpec).of,
            face.name,
            face.name,
        )
        return None
    network = None
    if method == "network":
        network = open_model(config, "visual")
        if network.card.input.shape != (1, 16):
            raise ModelError(f"visual: reads {network.card.input.shape}, not (1, 16); convert it again")
    return ImageVideoCombiner(video, method=method, network=network)


def _reads_embeddings_of(face: Card, video: TfliteClassifier, config: Config) -> bool:
    """Return whether the video model was trained with `face`, and not with another model of that name."""
    of = video.card.spec(VideoSpec).of
    beside = find_card(config.models, "video").parent
    if face.embedding is None or face.name != of:
        return False
    return not (beside / f"{of}.json").is_file() or load_card(of, directory=beside).files == face.files


def _log(p: Float32) -> Float32:
    return np.asarray(np.log(np.maximum(p, FLOOR)), np.float32)
