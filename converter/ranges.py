"""Narrows calibrated ranges to a percentile, so that rare outliers do not cost resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from edge.values import Float32

# Share of the values of an activation that stay inside its range; half of the rest is cut at each end.
PERCENTILE = 99.99
BINS = 2048

Feed = Callable[[], Iterable[dict[str, Float32]]]


def clip_ranges(calibrated: bytes, feed: Feed, *, percentile: float = PERCENTILE) -> bytes:
    """Return the calibrated float model with the range of every activation cut to `percentile` of its values.

    `feed` yields the calibration examples, each a dict of input name to array.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(calibrated))
    graph = model.subgraphs[0]
    ranges = {
        index: (float(tensor.quantization.min[0]), float(tensor.quantization.max[0]))
        for index, tensor in enumerate(graph.tensors)
        if tensor.quantization is not None
        and tensor.quantization.min is not None
        and len(tensor.quantization.min) == 1
        and tensor.quantization.max[0] > tensor.quantization.min[0]
    }
    for index, counts in _histograms(calibrated, feed, ranges).items():
        low, high = _cut(counts, ranges[index], percentile)
        quantization = graph.tensors[index].quantization
        quantization.min, quantization.max = [low], [high]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _histograms(
    calibrated: bytes, feed: Feed, ranges: dict[int, tuple[float, float]]
) -> dict[int, NDArray[np.int64]]:
    """Run all examples; return for each tensor a histogram of its values over its range, in `BINS` bins."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=calibrated,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    counts = {index: np.zeros(BINS, np.int64) for index in ranges}
    for example in feed():
        runner(**example)
        for index, counted in counts.items():
            counted += np.histogram(interpreter.get_tensor(index), BINS, ranges[index])[0]
    return counts


def _cut(counts: NDArray[np.int64], limits: tuple[float, float], percentile: float) -> tuple[float, float]:
    """Return the range without (100 - `percentile`) / 2 per cent at each end; it always includes zero."""
    total = counts.sum()
    if not total:
        return limits
    edges = np.linspace(*limits, BINS + 1)
    share = np.cumsum(counts) / total
    outside = (100 - percentile) / 200
    low = edges[int(np.searchsorted(share, outside, side="right"))]
    high = edges[min(int(np.searchsorted(share, 1 - outside)) + 1, BINS)]
    return min(float(low), 0.0), max(float(high), 0.0)
