"""Makes one opinion of several: the rules of the literature, and a small network that has learnt to.

Every rule takes opinions `p` (..., k, 7) and how much each counts, `w` (..., k) in 0..1, and returns
(..., 7). An opinion of weight 0 changes nothing, one of weight 1 that stands alone is returned as it is,
a weak one that stands alone tends to the uniform. `w` is

    modality weight x quality x 2 ** (-age / half life)

and modality weights count relative to the heaviest one present: a voice alone is as good as a face alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.inference.card import TfliteClassifier, open_classifier
from edge.settings import Config, FusionSettings
from edge.values import LABELS, Float32, Modality

Float64 = NDArray[np.float64]
CLASSES = len(LABELS)
UNIFORM = 1 / CLASSES
# A model that says 0 must not veto for ever: e.g. int8 cannot say less than 1/512.
FLOOR = 1e-3
LOWEST = 1 / 512  # as `edge.inference.card.soften` has it
TRACE = np.float32(1e-4)
ORDER = (Modality.FACE, Modality.VOICE)
FEATURES = CLASSES + 3  # of one modality, for the network
DEFAULT_RULE = "weighted_log"


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """What one modality says: `p` (7,), the quality of its input and its freshness, both 0..1.

    Freshness is 2 ** (-age / half life).
    """

    p: Float32
    quality: float
    freshness: float = 1.0

    @property
    def reliability(self) -> float:
        """How much the opinion counts, 0..1."""
        return self.quality * self.freshness


Opinions = Mapping[Modality, Opinion]
# Returns the fused p (7,) and the share of each modality in it; the shares sum to 1.
Pool = Callable[[Opinions], tuple[Float32, dict[Modality, float]]]
Rule = Callable[[Float64, Float64], Float64]
# Of the fused opinion where both are there, fitted on validation people, as `emotion-models train multimodal`
# prints them. Two that agree are right more often than the rules say.
TEMPERATURES = {"weighted_log": 0.527, "max": 0.406, "product": 0.527, "mean": 0.36, "bayes_sum": 0.518}


def weighted_log(p: Float64, w: Float64) -> Float64:
    """Logarithmic opinion pool: prod p ** w (Genest and Zidek 1986, "Combining probability
    distributions").

    Of two that agree it is surer than either; one of weight w < 1 that stands alone is flattened.
    """
    logits = np.sum(w[..., None] * np.log(np.maximum(p, FLOOR)), axis=-2)
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return _normalised(e)


def product(p: Float64, w: Float64) -> Float64:
    """Product rule (Kittler et al. 1998, "On combining classifiers"), for classes that are equally likely."""
    return _normalised(np.prod(np.maximum(discount(p, w), FLOOR), axis=-2))


def mean(p: Float64, w: Float64) -> Float64:
    """Linear opinion pool: the mean weighted by `w` (Stone 1961, "The opinion pool")."""
    total = w.sum(axis=-1)[..., None]
    average = np.sum(w[..., None] * p, axis=-2) / np.maximum(total, 1e-9)
    return discount(average, w.max(axis=-1))


def maximum(p: Float64, w: Float64) -> Float64:
    """Max rule (Kittler et al. 1998): each class has the highest p that anybody gives it, scaled by `w`."""
    strongest = w.max(axis=-1)
    relative = np.where(strongest[..., None] > 0, w, 1) / np.where(strongest > 0, strongest, 1)[..., None]
    return discount(_normalised(np.max(relative[..., None] * p, axis=-2)), strongest)


def bayes_sum(p: Float64, w: Float64) -> Float64:
    """Sum rule with the prior (Kittler et al. 1998): P + sum (p - P), P the prior, here uniform; cut at 0.

    It holds where opinions stray little from the prior, so it adds up what each has learnt beyond it.
    """
    learnt = np.sum(discount(p, w) - UNIFORM, axis=-2)
    return _normalised(np.maximum(UNIFORM + learnt, 0))


def discount(p: Float64, w: Float64) -> Float64:
    """Return w p + (1 - w) / 7: what a source that is right with probability `w` says (Shafer 1976)."""
    return w[..., None] * p + (1 - w[..., None]) * UNIFORM


RULES: dict[str, Rule] = {
    "weighted_log": weighted_log,
    "max": maximum,
    "product": product,
    "mean": mean,
    "bayes_sum": bayes_sum,
}


def pool_by_rule(
    opinions: Opinions, weights: Mapping[Modality, float], method: str
) -> tuple[Float32, dict[Modality, float]]:
    """Combine at least one opinion by one of `RULES`; the shares are those of the weights."""
    p = np.array([opinion.p for opinion in opinions.values()], np.float64)
    w = relative_weights(
        np.array([opinion.reliability for opinion in opinions.values()]),
        np.array([weights[modality] for modality in opinions]),
    )
    fused = RULES[method](p, w)
    if len(opinions) > 1:
        fused = soften_joint(fused, TEMPERATURES[method])
    total = float(w.sum())
    shares = w / total if total else w
    return fused.astype(np.float32), {m: float(share) for m, share in zip(opinions, shares, strict=True)}


def relative_weights(reliability: Float64, weights: Float64) -> Float64:
    """Return `w` (..., k) of the rules; `weights` (..., k) are 0 for a modality that is not there."""
    heaviest = np.max(weights, axis=-1, keepdims=True)
    return np.asarray(reliability * weights / np.where(heaviest > 0, heaviest, 1), np.float64)


class NetworkPool:
    """Asks a multimodal model; a share is how far the result moves when that modality is left out."""

    def __init__(self, classifier: TfliteClassifier) -> None:
        self.name = classifier.name
        self._classifier = classifier

    def __call__(self, opinions: Opinions) -> tuple[Float32, dict[Modality, float]]:
        """Combine at least one opinion."""
        p = self._ask(opinions)
        if len(opinions) == 1:
            return p, dict.fromkeys(opinions, 1.0)
        moved = {
            left_out: float(np.abs(p - self._ask({m: o for m, o in opinions.items() if m != left_out})).sum())
            for left_out in opinions
        }
        total = sum(moved.values())
        return p, {m: value / total if total else 1 / len(moved) for m, value in moved.items()}

    def _ask(self, opinions: Opinions) -> Float32:
        p = np.zeros((1, len(ORDER), CLASSES), np.float32)
        quality, freshness = np.zeros((2, 1, len(ORDER)), np.float32)
        for i, modality in enumerate(ORDER):
            if modality in opinions:
                opinion = opinions[modality]
                p[0, i], quality[0, i], freshness[0, i] = opinion.p, opinion.quality, opinion.freshness
        fused = self._classifier.classify(network_features(p, quality, freshness))
        return break_ties(fused, p[0])


def network_features(p: Float32, quality: Float32, freshness: Float32) -> Float32:
    """Return (n, 20) float32 in [0, 1] of face and voice: `p` (n, 2, 7), all 0 where one is not there.

    Ten numbers each: log p from 0 for 1/512 to 1 for certainty, quality, freshness (n, 2), presence. All
    are 0 for a modality that is not there.
    """
    present = p.any(axis=-1, keepdims=True)
    logs = 1 + np.log(np.maximum(p, LOWEST)) / np.log(1 / LOWEST)
    rest = np.stack([quality, freshness, np.ones_like(quality)], axis=-1)
    values = np.where(present, np.concatenate([logs, rest], axis=-1), 0)  # (n, 2, 10)
    return np.asarray(values.reshape(len(p), len(ORDER) * FEATURES), np.float32)


def break_ties(fused: Float32, p: Float32) -> Float32:
    """Return `fused` (..., 7) with a trace of the opinions `p` (..., 2, 7) in it.

    An int8 softmax knows steps of 1/256, and of two labels that it finds equal the first would win.
    """
    traced = fused + TRACE * p.sum(axis=-2)
    return np.asarray(traced / traced.sum(axis=-1, keepdims=True), np.float32)


def rule_pool(settings: FusionSettings) -> Pool:
    """Return the rule `fusion.method`, or `DEFAULT_RULE` where that is the network."""
    method = settings.method if settings.method in RULES else DEFAULT_RULE
    weights = {Modality.FACE: settings.face_weight, Modality.VOICE: settings.voice_weight}
    return lambda opinions: pool_by_rule(opinions, weights, method)


def open_pool(config: Config) -> Pool:
    """Return what `fusion.method` asks for; raise `ModelError` where its network cannot be used.

    The network is on the CPU: an accelerator takes longer to be asked than it takes to answer. It is looked
    for in the package where `models.directory`, meant for faces and voices, does not have it.
    """
    if config.fusion.method != "network":
        return rule_pool(config.fusion)
    name, directory = config.models.fusion, config.models.directory
    if directory is not None and not (directory / f"{name}.json").is_file():
        directory = None
    try:
        return NetworkPool(open_classifier(name, task="multimodal", directory=directory))
    except ModelError as error:
        raise ModelError(f"{error}; or set fusion.method to {DEFAULT_RULE}") from error


def pool_name(pool: Pool | None) -> str | None:
    """Return name@sha256[:12] of the network that pools, None for a rule."""
    return pool.name if isinstance(pool, NetworkPool) else None


def soften_joint(p: Float64, temperature: float) -> Float64:
    """Return p ** (1 / temperature), normalised (Guo et al. 2017)."""
    return _normalised(np.maximum(p, LOWEST) ** (1 / temperature))


def _normalised(p: Float64) -> Float64:
    return np.asarray(p / p.sum(axis=-1, keepdims=True), np.float64)
