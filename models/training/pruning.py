"""Prunes the filters with the smallest weights of a trained network, to continue training a faster one."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.values import Float32


def prune_filters(wide: Any, narrow: Any) -> Any:
    """Copy the weights of `wide` to `narrow`, a Keras model of the same layers with fewer filters; return it.

    Where a convolution of `narrow` has fewer filters, the filters with the largest sum of absolute weights
    (Li et al. 2017, arXiv:1608.08710), times the scale of the normalisation after them, are kept in order: in
    the convolution, its normalisation and the next convolution. Raises `ValueError` for any other difference.
    """
    kept = np.arange(0)
    # A list: a different number of layers raises before any layer is changed.
    for layer, source in list(zip(_weighted(narrow), _weighted(wide), strict=True)):
        weights = source.get_weights()
        shapes = [weight.shape for weight in layer.get_weights()]
        if len(shapes[0]) == 4 and shapes[0][3] < weights[0].shape[3]:
            kept = _heaviest(wide, source, shapes[0][3])
        layer.set_weights(
            [_without(weight, shape, kept) for weight, shape in zip(weights, shapes, strict=True)]
        )
    return narrow


def _weighted(model: Any) -> list[Any]:
    return [layer for layer in model.layers if layer.weights]


def _heaviest(model: Any, convolution: Any, count: int) -> Any:
    """Return the indices of the `count` filters of `convolution` with the largest weights, sorted."""
    norm = next(layer for layer in model.layers if layer.input is convolution.output)
    gamma, _, _, variance = norm.get_weights()
    weight = np.abs(convolution.get_weights()[0]).sum(axis=(0, 1, 2)) * np.abs(gamma)
    return np.sort(np.argsort(weight / np.sqrt(variance + norm.epsilon))[-count:])


def _without(weight: Float32, shape: tuple[int, ...], kept: Any) -> Float32:
    """Select `kept` along the axis on which `weight` is longer than `shape`, if there is one."""
    for axis, (there, wanted) in enumerate(zip(weight.shape, shape, strict=True)):
        if wanted < there:
            weight = np.take(weight, kept, axis=axis)
    return weight
