"""Face and voice are combined: rules against values computed by hand, and the trained network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.commands.analyze import Analyzer
from edge.config import load_config
from edge.errors import ConfigError, ModelError
from edge.inference.card import artifacts_directory
from edge.people.pooling import (
    RULES,
    TEMPERATURES,
    ModalityPrediction,
    NetworkPool,
    break_ties,
    network_features,
    open_pool,
    pool_by_rule,
    pool_name,
)
from edge.settings import Config, FusionSettings, ModelSettings
from edge.values import LABELS, Float32, Modality

ANGER = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
DISGUST = np.array([0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1])
EQUAL = {Modality.FACE: 1.0, Modality.VOICE: 1.0}


def rested(first: float, second: float, rest: float, of: float) -> list[float]:
    """Return seven numbers divided by `of`; the last five are equal."""
    return [first / of, second / of, *[rest / of] * 5]


def sure(label: str, share: float) -> Float32:
    """Return p (7,) with `share` for one label and the rest spread evenly."""
    p = np.full(len(LABELS), (1 - share) / 6, np.float32)
    p[LABELS.index(label)] = share
    return p


@pytest.fixture(scope="module")
def network() -> NetworkPool:
    """The shipped network, opened by the default configuration."""
    pool = open_pool(Config(fusion=FusionSettings(method="network")))
    assert isinstance(pool, NetworkPool)
    return pool


@pytest.mark.parametrize(
    ("method", "w", "wanted"),
    [
        ("weighted_log", (1, 1), rested(4, 4, 1, 13)),
        ("weighted_log", (1, 0.5), rested(4, 2, 1, 11)),
        ("product", (1, 1), rested(4, 4, 1, 13)),
        ("product", (1, 0.5), rested(68, 38, 17, 191)),
        ("mean", (1, 1), rested(0.25, 0.25, 0.1, 1)),
        ("mean", (1, 0.5), rested(0.3, 0.2, 0.1, 1)),
        ("max", (1, 1), rested(4, 4, 1, 13)),
        ("max", (1, 0.5), rested(4, 2, 1, 11)),
        ("bayes_sum", (1, 1), rested(50, 50, 8, 140)),
        ("bayes_sum", (1, 0.5), rested(53, 32, 11, 140)),
    ],
)
def test_rules_against_values_computed_by_hand(
    method: str, w: tuple[float, float], wanted: list[float]
) -> None:
    """Two predictions that disagree, equally reliable or not, give the result of the formula."""
    p = RULES[method](np.stack([ANGER, DISGUST]), np.array(w, np.float64))
    np.testing.assert_allclose(p, wanted, atol=1e-12)


@pytest.mark.parametrize("method", RULES)
def test_alone_zero_and_order(method: str) -> None:
    """A single prediction is unchanged, one with weight 0 is ignored, and none gives the uniform."""
    rule, both = RULES[method], np.stack([ANGER, DISGUST])
    np.testing.assert_allclose(rule(both[:1], np.array([1.0])), ANGER)
    np.testing.assert_allclose(rule(both, np.array([1.0, 0.0])), ANGER)
    np.testing.assert_allclose(rule(both, np.zeros(2)), np.full(7, 1 / 7))
    w = np.array([0.9, 0.4])
    np.testing.assert_allclose(rule(both[::-1], w[::-1]), rule(both, w))


@pytest.mark.parametrize("method", RULES)
def test_unreliable_prediction_is_flattened(method: str) -> None:
    """A single prediction with half the reliability keeps its label and loses confidence."""
    p, shares = pool_by_rule({Modality.FACE: ModalityPrediction(sure("fear", 0.9), 1.0, 0.5)}, EQUAL, method)
    assert LABELS[int(p.argmax())] == "fear"
    assert 1 / 7 < p.max() < 0.9
    assert shares == {Modality.FACE: 1.0}


def test_missing_modality_is_normal() -> None:
    """A voice alone counts in full, independent of its weight beside a face."""
    voice = sure("anger", 0.7)
    weights = {Modality.FACE: 1.0, Modality.VOICE: 0.3}
    p, _ = pool_by_rule({Modality.VOICE: ModalityPrediction(voice, 1.0)}, weights, "weighted_log")
    np.testing.assert_allclose(p, voice, atol=1e-6)


@pytest.mark.parametrize("method", RULES)
def test_shares_follow_weight_and_reliability(method: str) -> None:
    """Half the weight and half the quality give a quarter of the other's share."""
    predictions = {
        Modality.FACE: ModalityPrediction(sure("fear", 0.6), 1.0),
        Modality.VOICE: ModalityPrediction(sure("anger", 0.6), 0.5),
    }
    p, shares = pool_by_rule(predictions, {Modality.FACE: 1.0, Modality.VOICE: 0.5}, method)
    assert shares == {Modality.FACE: pytest.approx(0.8), Modality.VOICE: pytest.approx(0.2)}
    assert LABELS[int(p.argmax())] == "fear"
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)


def test_every_rule_has_a_temperature() -> None:
    """Every rule of the configuration has a temperature."""
    assert set(TEMPERATURES) == set(RULES)


def test_network_features_of_an_absent_modality_are_zero() -> None:
    """Ten numbers each: certainty is 1, the lowest p of int8 is 0, and an absent modality is all 0."""
    p = np.zeros((1, 2, 7), np.float32)
    p[0, 1, 2] = 1
    found = network_features(p, np.full((1, 2), 0.5, np.float32), np.full((1, 2), 0.25, np.float32))
    assert found.shape == (1, 20)
    np.testing.assert_allclose(found[0], [0] * 10 + [0, 0, 1, 0, 0, 0, 0, 0.5, 0.25, 1], atol=1e-6)


@pytest.mark.parametrize("label", LABELS)
def test_network_follows_two_that_agree(network: NetworkPool, label: str) -> None:
    """Two confident predictions of one label give that label above 0.5, and both have a share."""
    same = ModalityPrediction(sure(label, 0.8), 1.0)
    p, shares = network({Modality.FACE: same, Modality.VOICE: same})
    assert LABELS[int(p.argmax())] == label
    assert p.max() > 0.5
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_network_weights_a_poor_voice_less(network: NetworkPool) -> None:
    """The same voice changes the result less when its quality is low or when it is old."""

    def share(quality: float, freshness: float) -> float:
        predictions = {
            Modality.FACE: ModalityPrediction(sure("happiness", 0.7), 0.9),
            Modality.VOICE: ModalityPrediction(sure("anger", 0.7), quality, freshness),
        }
        return float(network(predictions)[0][LABELS.index("anger")])

    assert share(0.1, 1.0) < share(1.0, 1.0)
    assert share(1.0, 0.4) < share(1.0, 1.0)


@pytest.mark.parametrize("modality", list(Modality))
def test_network_alone(network: NetworkPool, modality: Modality) -> None:
    """With one modality it keeps a confident label, and the share is 1."""
    p, shares = network({modality: ModalityPrediction(sure("happiness", 0.9), 1.0)})
    assert LABELS[int(p.argmax())] == "happiness"
    assert shares == {modality: 1.0}


def test_network_order_does_not_matter(network: NetworkPool) -> None:
    """The order of the predictions does not change the result."""
    face, voice = ModalityPrediction(sure("fear", 0.6), 0.8), ModalityPrediction(sure("anger", 0.5), 0.9)
    one, _ = network({Modality.FACE: face, Modality.VOICE: voice})
    other, _ = network({Modality.VOICE: voice, Modality.FACE: face})
    np.testing.assert_array_equal(one, other)


def test_ties_are_broken_by_the_predictions() -> None:
    """Of two labels with equal int8 values, the likelier one wins; other values stay."""
    equal = np.array([0.3, 0.3, 0.1, 0.1, 0.1, 0.05, 0.05], np.float32)
    p = np.stack([sure("disgust", 0.6), np.zeros(7, np.float32)])
    assert LABELS[int(break_ties(equal, p).argmax())] == "disgust"
    np.testing.assert_allclose(break_ties(equal, p), equal, atol=1e-3)


def test_events_can_name_the_network(network: NetworkPool) -> None:
    """A network has a name and hash, a rule has none."""
    assert (pool_name(network) or "").startswith("multimodal@")
    assert pool_name(open_pool(Config(fusion=FusionSettings(method="mean")))) is None


def test_files_are_fused_as_the_daemon_fuses() -> None:
    """`analyze` opens the method of the configuration."""
    assert isinstance(Analyzer(Config()).pool, NetworkPool)
    rule = Config(fusion=FusionSettings(method="product"))
    assert not isinstance(Analyzer(rule).pool, NetworkPool)


def test_directory_does_not_hide_the_network(tmp_path: Path) -> None:
    """A directory without a fusion network leaves that of the package; an unknown name is refused."""
    settings = FusionSettings(method="network")
    config = Config(fusion=settings, models=ModelSettings(directory=tmp_path))
    assert pool_name(open_pool(config)) is not None
    wrong = Config(fusion=settings, models=ModelSettings(fusion="nothing", directory=tmp_path))
    with pytest.raises(ModelError, match=r"no nothing\.json in .* fusion\.method to weighted_log"):
        open_pool(wrong)
    face = Config(fusion=settings, models=ModelSettings(fusion="face-cnn"))
    with pytest.raises(ModelError, match="choose a multimodal model"):
        open_pool(face)


def test_unknown_method_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    """A misspelled method is named, with all methods and the nearest one."""
    path = tmp_path / "config.toml"
    path.write_text('version = 1\n[fusion]\nmethod = "netwrok"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fusion\.method = 'netwrok'.*bayes_sum.*did you mean network\?"):
        load_config(path, environ={})


def test_every_method_opens() -> None:
    """Every method of the configuration opens and combines."""
    for method in (*RULES, "network"):
        pool = open_pool(Config.model_validate({"fusion": {"method": method}}))
        p, _ = pool({Modality.FACE: ModalityPrediction(sure("sadness", 0.9), 1.0)})
        assert LABELS[int(p.argmax())] == "sadness"
    assert (artifacts_directory() / "multimodal.json").is_file()
