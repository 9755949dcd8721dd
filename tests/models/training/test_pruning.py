"""Pruning keeps the filters with the largest weights and their function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.networks import shaken

keras = pytest.importorskip("keras", reason="needs the [train] extra")

from keras import layers  # noqa: E402  # after the skip

from models.training.pruning import prune_filters  # noqa: E402

# TensorFlow's tensors do not support the copy keyword of NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FACES = np.random.default_rng(7).random((5, 12, 10, 1), dtype=np.float32)


def network(inside: int, *, depth: int = 1) -> Any:
    """Return a residual CNN with `inside` filters between the two convolutions of each block."""
    x = face = keras.Input((12, 10, 1))
    for _ in range(depth):
        y = layers.Conv2D(inside, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", use_bias=False)(y))
        x = layers.ReLU()(layers.Add()([layers.Conv2D(6, 1, use_bias=False)(x), y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(face, layers.Dense(7, activation="softmax")(x))


def convolutions(model: Any) -> list[Any]:
    """Return the first convolution of each block."""
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)][::3]


def norm_after(model: Any, convolution: Any) -> Any:
    """Return the normalisation after `convolution`."""
    norms = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    return next(norm for norm in norms if norm.input is convolution.output)


@pytest.mark.parametrize("depth", [1, 2])
def test_pruning_zero_filters_changes_nothing(depth: int) -> None:
    """If the pruned filters have zero weights, the output stays the same."""
    wide = shaken(network(8, depth=depth))
    for convolution in convolutions(wide):
        norm = norm_after(wide, convolution)
        for weights, layer in ((norm.get_weights(), norm), (convolution.get_weights(), convolution)):
            for weight in weights[: 3 if layer is norm else 1]:  # not the variance
                weight[..., [1, 4, 6]] = 0
            layer.set_weights(weights)
    slim = prune_filters(wide, network(5, depth=depth))
    assert slim.count_params() < wide.count_params()
    np.testing.assert_allclose(slim(FACES).numpy(), wide(FACES).numpy(), atol=1e-6)


def test_normalisation_counts_for_the_weight() -> None:
    """The weight of a filter includes the scale of the normalisation after it."""
    wide = shaken(network(4))
    convolution = convolutions(wide)[0]
    (kernel,) = convolution.get_weights()
    kernel[:] = [1, 2, 3, 4]
    convolution.set_weights([kernel])
    norm = norm_after(wide, convolution)
    gamma, beta, mean, variance = norm.get_weights()
    gamma[:], variance[:] = [-9, 1, 1, 2], [1, 1, 25, 1]  # weights of the filters: 9, 2, 0.6 and 8
    norm.set_weights([gamma, beta, mean, variance])
    slim = prune_filters(wide, network(2))
    np.testing.assert_array_equal(convolutions(slim)[0].get_weights()[0], kernel[..., [0, 3]])
    np.testing.assert_array_equal(norm_after(slim, convolutions(slim)[0]).get_weights()[0], [-9, 2])


def test_the_same_size_is_a_copy() -> None:
    """With the same number of filters all weights are copied."""
    wide = shaken(network(4))
    copy = prune_filters(wide, network(4))
    for mine, theirs in zip(copy.get_weights(), wide.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("narrow", [network(4, depth=2), network(6)], ids=["another depth", "wider"])
def test_another_network_is_refused(narrow: Any) -> None:
    """A network with other layers or more filters is an error."""
    with pytest.raises(ValueError, match=r"shape|argument"):
        prune_filters(shaken(network(4)), narrow)
