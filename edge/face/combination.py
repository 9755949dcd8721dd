"""One opinion of a face out of two: what the picture says, and what the last one and a half seconds say.

The rules are those of Kittler et al. 1998, "On combining classifiers": the mean and the product of both
models' probabilities, the video's with the weight of what it has seen. A small network has learnt to combine
them too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edge.errors import ModelError
from edge.face.history import EmbeddingHistory, VideoSpec
from edge.inference.card import TfliteClassifier, open_classifier
from edge.settings import Config
from edge.values import Float32, Prediction

log = logging.getLogger(__name__)

Method = Literal["image", "video", "mean", "product", "network"]
FLOOR = 1e-3
LOWEST_LOG = float(np.log(FLOOR))


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """What both models say of a face: `image` and `video` (7,), quality 0..1 and share 0..1 of seen steps."""

    image: Float32
    video: Float32
    quality: float
    share: float


def combine(method: Method, said: Opinions, network: TfliteClassifier | None = None) -> Float32:
    """Return the visual opinion (7,) float32, which sums to 1, by a rule or by the given network."""
    if method == "image":
        return said.image
    if method == "video":
        return said.video
    if method == "network":
        assert network is not None, "opened with the method"
        return network.classify(visual_input(said))
    if method == "mean":
        return ((said.image + said.share * said.video) / (1 + said.share)).astype(np.float32)
    logs = _log(said.image) + said.share * _log(said.video)
    e = np.exp((logs - logs.max()) / (1 + said.share))
    return np.asarray(e / e.sum(), np.float32)


def visual_input(said: Opinions) -> Float32:
    """Return (16,) float32 in [-1, 1]: seven log p of the image, seven of the video, quality, share."""
    logs = np.concatenate([_log(said.image), _log(said.video)]) / -LOWEST_LOG * 2 + 1
    return np.concatenate([logs, [2 * said.quality - 1, 2 * said.share - 1]]).astype(np.float32)


class ImageVideoCombiner:
    """Turns the face model's opinions of a stream into visual ones; one thread at a time."""

    def __init__(
        self, video: TfliteClassifier, *, method: Method, network: TfliteClassifier | None = None
    ) -> None:
        self.video = video
        self._method = method
        self._network = network
        self._spec = VideoSpec.from_features(video.card.input.features)
        self._memory = EmbeddingHistory(self._spec)

    def judge(self, prediction: Prediction, embedding: Float32 | None) -> Prediction:
        """Return the opinion with what was seen of its track before; as it is without an embedding."""
        if embedding is None:
            return prediction
        said = self.hear(prediction, embedding)
        p = combine(self._method, said, self._network)
        # The video alone has little to say of somebody who has just come.
        quality = prediction.quality * (0.5 + 0.5 * said.share if self._method == "video" else 1.0)
        return replace(prediction, p=p, quality=quality)

    def hear(self, prediction: Prediction, embedding: Float32) -> Opinions:
        """Return both models' opinions of the next picture of a track, not combined yet."""
        steps, share = self._memory.put(prediction.track or 0, embedding, prediction.t_ns)
        return Opinions(prediction.p, self.video.classify(steps), prediction.quality, share)

    def fresh(self) -> ImageVideoCombiner:
        """Return one that remembers nobody."""
        return ImageVideoCombiner(self.video, method=self._method, network=self._network)


def open_visual(config: Config, face: str) -> ImageVideoCombiner | None:
    """Open the video model for the embeddings of the face model `face`; None where pictures count alone.

    Both models run on the CPU: they take less time there than the way to an accelerator. Raises `ModelError`.
    """
    models, method = config.models, config.fusion.visual
    if models.video == "none" or method == "image":
        return None
    is_asked_for = "video" in models.model_fields_set
    if models.directory and not is_asked_for and not (models.directory / f"{models.video}.json").is_file():
        log.info("%s: not in %s; every picture is judged by itself", models.video, models.directory)
        return None
    threads = config.inference.threads
    video = open_classifier(models.video, task="video", directory=models.directory, threads=threads)
    spec = VideoSpec.from_features(video.card.input.features)
    if spec.of != face:
        log.warning(
            "models.video %s: reads the embeddings of %s, not of %s; every picture is judged by itself",
            models.video,
            spec.of,
            face,
        )
        return None
    network = None
    if method == "network":
        network = open_classifier("visual", task="visual", directory=models.directory, threads=threads)
        if network.card.input.shape != (1, 16):
            raise ModelError(f"visual: reads {network.card.input.shape}, not (1, 16); convert it again")
    return ImageVideoCombiner(video, method=method, network=network)


def _log(p: Float32) -> Float32:
    return np.asarray(np.log(np.maximum(p, FLOOR)), np.float32)
