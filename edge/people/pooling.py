"""Combines the predictions of face and voice: rules from the literature, and a small trained network.

Every rule takes the probabilities `p` (..., k, 7) and the weights `w` (..., k) in 0..1 and returns (..., 7).
A prediction with weight 0 changes nothing. A single prediction with weight 1 is returned unchanged; with a
lower weight it tends to the uniform distribution. `w` is

    modality weight x quality x 2 ** (-age / half life)

and modality weights are relative to the largest one present: a voice alone counts as much as a face alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference.models import open_model
from edge.settings import Config, FusionSettings
from edge.values import LABELS, Classifier, Float32, Modality

Float64 = NDArray[np.float64]
CLASSES = len(LABELS)
UNIFORM = 1 / CLASSES
# So that p = 0 of one model does not exclude a class for good: int8 cannot return less than 1/512.
FLOOR = 1e-3
LOWEST = 1 / 512  # as in `edge.inference.classifier.soften`
TRACE = np.float32(1e-4)
ORDER = (Modality.FACE, Modality.VOICE)
FEATURES = CLASSES + 3  # of one modality, for the network
DEFAULT_RULE = "weighted_log"


@dataclass(frozen=True, slots=True, eq=False)
class ModalityPrediction:
    """The prediction of one modality: `p` (7,), the quality of its input and its freshness, both 0..1.

    Freshness is 2 ** (-age / half life).
    """

    p: Float32
    quality: float
    freshness: float = 1.0

    @property
    def reliability(self) -> float:
        """Quality times freshness, 0..1: the weight of the prediction before the modality weight."""
        return self.quality * self.freshness


ModalityPredictions = Mapping[Modality, ModalityPrediction]
# Returns the fused p (7,) and the share of each modality in it; the shares sum to 1.
Pool = Callable[[ModalityPredictions], tuple[Float32, dict[Modality, float]]]
Rule = Callable[[Float64, Float64], Float64]
# Of the fused prediction of both modalities, fitted on validation people (`emotion-models train multimodal`).
# Below 1: two predictions that agree are right more often than the rules assume.
TEMPERATURES = {"weighted_log": 0.527, "max": 0.406, "product": 0.527, "mean": 0.36, "bayes_sum": 0.518}


def weighted_log(p: Float64, w: Float64) -> Float64:
    """Logarithmic opinion pool: prod p ** w (Genest and Zidek 1986, "Combining probability
    distributions").

    Two predictions that agree give a higher confidence than each; a single one with w < 1 is flattened.
    """
    logits = np.sum(w[..., None] * np.log(np.maximum(p, FLOOR)), axis=-2)
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return _normalised(e)


def product(p: Float64, w: Float64) -> Float64:
    """Product rule (Kittler et al. 1998, "On combining classifiers") for classes that are equally likely."""
    return _normalised(np.prod(np.maximum(discount(p, w), FLOOR), axis=-2))


def mean(p: Float64, w: Float64) -> Float64:
    """Linear opinion pool: the mean weighted by `w` (Stone 1961, "The opinion pool")."""
    total = w.sum(axis=-1)[..., None]
    average = np.sum(w[..., None] * p, axis=-2) / np.maximum(total, 1e-9)
    return discount(average, w.max(axis=-1))


def maximum(p: Float64, w: Float64) -> Float64:
    """Max rule (Kittler et al. 1998): each class has the highest p of any prediction, scaled by `w`."""
    strongest = w.max(axis=-1)
    relative = np.where(strongest[..., None] > 0, w, 1) / np.where(strongest > 0, strongest, 1)[..., None]
    return discount(_normalised(np.max(relative[..., None] * p, axis=-2)), strongest)


def bayes_sum(p: Float64, w: Float64) -> Float64:
    """Sum rule with the prior (Kittler et al. 1998): P + sum (p - P), P the uniform prior; cut at 0.

    It holds for predictions near the prior: it adds up the differences from it.
    """
    differences = np.sum(discount(p, w) - UNIFORM, axis=-2)
    return _normalised(np.maximum(UNIFORM + differences, 0))


def discount(p: Float64, w: Float64) -> Float64:
    """Return w p + (1 - w) / 7, the p of a source that is reliable with probability `w` (Shafer 1976)."""
    return w[..., None] * p + (1 - w[..., None]) * UNIFORM


RULES: dict[str, Rule] = {
    "weighted_log": weighted_log,
    "max": maximum,
    "product": product,
    "mean": mean,
    "bayes_sum": bayes_sum,
}


def pool_by_rule(
    predictions: ModalityPredictions, weights: Mapping[Modality, float], method: str
) -> tuple[Float32, dict[Modality, float]]:
    """Combine at least one prediction by one of `RULES`; the shares are those of the weights."""
    p = np.array([prediction.p for prediction in predictions.values()], np.float64)
    w = relative_weights(
        np.array([prediction.reliability for prediction in predictions.values()]),
        np.array([weights[modality] for modality in predictions]),
    )
    fused = RULES[method](p, w)
    if len(predictions) > 1:
        fused = soften_joint(fused, TEMPERATURES[method])
    total = float(w.sum())
    shares = w / total if total else w
    return fused.astype(np.float32), {m: float(share) for m, share in zip(predictions, shares, strict=True)}


def relative_weights(reliability: Float64, weights: Float64) -> Float64:
    """Return `w` (..., k) of the rules; `weights` (..., k) are 0 for an absent modality."""
    heaviest = np.max(weights, axis=-1, keepdims=True)
    return np.asarray(reliability * weights / np.where(heaviest > 0, heaviest, 1), np.float64)


class NetworkPool:
    """Combines predictions by a multimodal model.

    The share of a modality is how much the result changes without it.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.name = classifier.name
        self._classifier = classifier

    def __call__(self, predictions: ModalityPredictions) -> tuple[Float32, dict[Modality, float]]:
        """Combine at least one prediction."""
        p = self._classify(predictions)
        if len(predictions) == 1:
            return p, dict.fromkeys(predictions, 1.0)
        changes = {}
        for modality in predictions:
            others = {m: prediction for m, prediction in predictions.items() if m != modality}
            changes[modality] = float(np.abs(p - self._classify(others)).sum())
        total = sum(changes.values())
        return p, {m: change / total if total else 1 / len(changes) for m, change in changes.items()}

    def _classify(self, predictions: ModalityPredictions) -> Float32:
        p = np.zeros((1, len(ORDER), CLASSES), np.float32)
        quality, freshness = np.zeros((2, 1, len(ORDER)), np.float32)
        for i, modality in enumerate(ORDER):
            if modality in predictions:
                one = predictions[modality]
                p[0, i], quality[0, i], freshness[0, i] = one.p, one.quality, one.freshness
        fused = self._classifier.classify(network_features(p, quality, freshness))
        return break_ties(fused, p[0])


def network_features(p: Float32, quality: Float32, freshness: Float32) -> Float32:
    """Return (n, 20) float32 in [0, 1] for face and voice: `p` (n, 2, 7), all 0 where a modality is absent.

    Ten values each: log p scaled from 0 (1/512) to 1 (certainty), quality (n, 2), freshness (n, 2), presence.
    All are 0 for an absent modality.
    """
    present = p.any(axis=-1, keepdims=True)
    logs = 1 + np.log(np.maximum(p, LOWEST)) / np.log(1 / LOWEST)
    rest = np.stack([quality, freshness, np.ones_like(quality)], axis=-1)
    values = np.where(present, np.concatenate([logs, rest], axis=-1), 0)  # (n, 2, 10)
    return np.asarray(values.reshape(len(p), len(ORDER) * FEATURES), np.float32)  # (n, 20)


def break_ties(fused: Float32, p: Float32) -> Float32:
    """Return `fused` (..., 7) with a trace of the predictions `p` (..., 2, 7) added.

    An int8 softmax has steps of 1/256: without the trace the first of two equal labels would always win.
    """
    traced = fused + TRACE * p.sum(axis=-2)
    return np.asarray(traced / traced.sum(axis=-1, keepdims=True), np.float32)


def rule_pool(settings: FusionSettings) -> Pool:
    """Return the rule `fusion.method`, or `DEFAULT_RULE` where that is the network."""
    method = settings.method if settings.method in RULES else DEFAULT_RULE
    weights = {Modality.FACE: settings.face_weight, Modality.VOICE: settings.voice_weight}
    return lambda predictions: pool_by_rule(predictions, weights, method)


def open_pool(config: Config) -> Pool:
    """Return the pool of `fusion.method`; raise `ModelError` where its network cannot be used.

    The network runs on the CPU, which takes less time than the transfer to an accelerator.
    """
    if config.fusion.method != "network":
        return rule_pool(config.fusion)
    try:
        return NetworkPool(open_model(config, "multimodal"))
    except ModelError as error:
        raise ModelError(f"{error}; or set fusion.method to {DEFAULT_RULE}") from error


def pool_name(pool: Pool | None) -> str | None:
    """Return name@sha256[:12] of the network, None for a rule."""
    return pool.name if isinstance(pool, NetworkPool) else None


def soften_joint(p: Float64, temperature: float) -> Float64:
    """Return p ** (1 / temperature), normalised (Guo et al. 2017)."""
    return _normalised(np.maximum(p, LOWEST) ** (1 / temperature))


def _normalised(p: Float64) -> Float64:
    return np.asarray(p / p.sum(axis=-1, keepdims=True), np.float64)
