"""The operations that each accelerator runs, and the rules that they must fulfil there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from converter.graph import Operation, Tensor

# Returns why an operation falls back to the CPU, or None if it is mapped.
Rule = Callable[[Operation], str | None]

SOFTMAX_ELEMENTS = 16_000
COMPILED = "edgetpu-custom-op"  # replaces all operations that edgetpu_compiler maps


def _no_activation(operation: Operation) -> str | None:
    name = operation.activation
    return None if name == "NONE" else f"has a fused activation ({name})"


def _one_row(operation: Operation) -> str | None:
    rows = max(tensor.rows for tensor in operation.outputs)
    return None if rows == 1 else f"its output has {rows} rows, supported is one"


def _same_dilation(operation: Operation) -> str | None:
    x, y = (operation.options.get(key, 1) for key in ("dilationWFactor", "dilationHFactor"))
    return None if x == y else f"dilation differs in x and y ({x}, {y})"


def _no_dilation(operation: Operation) -> str | None:
    x, y = (operation.options.get(key, 1) for key in ("dilationWFactor", "dilationHFactor"))
    return None if x == y == 1 else f"is dilated ({x}, {y})"


def _default_weights(operation: Operation) -> str | None:
    return "its weights are shuffled" if operation.options.get("weightsFormat") else None


def _no_constants(operation: Operation) -> str | None:
    # The Edge TPU maps constant zeros, as padding, but the converter writes padding as PAD.
    constants = [tensor for tensor in operation.inputs if tensor is not None and tensor.is_constant]
    return f"joins {len(constants)} constant(s)" if constants else None


def _not_over_batch(axes: Iterable[int], rank: int) -> str | None:
    return "works along the batch" if any(axis % rank == 0 for axis in axes) else None


def _reduces_inside(operation: Operation) -> str | None:
    tensor, axes = operation.inputs[:2]
    if tensor is None or axes is None or axes.values is None:
        return "its axes are not constant"
    return _not_over_batch(axes.values.ravel().tolist(), len(tensor.shape))


def _reduces_x_y(operation: Operation) -> str | None:
    if reason := _reduces_inside(operation):
        return reason
    tensor, axes = operation.inputs[:2]
    assert tensor is not None
    assert axes is not None
    assert axes.values is not None
    last = len(tensor.shape) - 1
    return (
        "works along the channels"
        if any(k % len(tensor.shape) == last for k in axes.values.ravel())
        else None
    )


def _pads_x_y(operation: Operation) -> str | None:
    paddings = operation.inputs[1]
    if paddings is None or paddings.values is None:
        return "its paddings are not constant"
    rows = paddings.values
    return "pads batch or channels" if np.any(rows[0]) or np.any(rows[-1]) else None


def _packs_inside(operation: Operation) -> str | None:
    return _not_over_batch([operation.options["axis"]], len(operation.outputs[0].shape))


def _splits_inside(operation: Operation) -> str | None:
    axis = operation.inputs[0]
    if axis is None or axis.values is None:
        return "its axis is not constant"
    return _not_over_batch(axis.values.ravel().tolist(), len(operation.outputs[0].shape))


def _drops_leading_ones(operation: Operation) -> str | None:
    tensor, kept = operation.inputs[0], operation.outputs[0].shape
    assert tensor is not None
    dropped = len(tensor.shape) - len(kept)
    is_leading = tensor.shape[dropped:] == kept
    return None if is_leading else "drops a dimension that is not a leading 1"


def _plain_slice(operation: Operation) -> str | None:
    if operation.options.get("ellipsisMask") or operation.options.get("newAxisMask"):
        return "slices with an ellipsis or a new axis"
    strides = operation.inputs[3]
    is_dense = strides is not None and strides.values is not None and bool(np.all(strides.values == 1))
    return None if is_dense else "slices with strides other than 1"


def _small_softmax(operation: Operation) -> str | None:
    count = operation.outputs[0].shape[-1]
    return None if count <= SOFTMAX_ELEMENTS else f"has {count} elements, supported are {SOFTMAX_ELEMENTS}"


def _flat_alpha(operation: Operation) -> str | None:
    alpha = operation.inputs[1]
    is_flat = alpha is not None and alpha.rows == 1
    return None if is_flat else "its alpha is not one number per channel"


# Supported operations and, as rules, known limitations: Coral, "TensorFlow models on the Edge TPU",
# compiler 16 with runtime 14 (coral.ai/docs/edgetpu/models-intro).
EDGETPU: dict[str, tuple[Rule, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (_no_activation,),
    "CONCATENATION": (_no_activation, _no_constants),
    "CONV_2D": (_same_dilation,),
    "DEPTHWISE_CONV_2D": (_no_dilation,),
    "EXPAND_DIMS": (),
    "FULLY_CONNECTED": (_default_weights, _one_row),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "MAXIMUM": (),
    "MAX_POOL_2D": (_no_activation,),
    "MEAN": (_reduces_x_y,),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (_packs_inside,),
    "PAD": (_pads_x_y,),
    "PRELU": (_flat_alpha,),
    "QUANTIZE": (),
    "REDUCE_MAX": (_reduces_inside,),
    "REDUCE_MIN": (_reduces_inside,),
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (),
    "RESIZE_BILINEAR": (),
    "RESIZE_NEAREST_NEIGHBOR": (),
    "RSQRT": (),
    "SLICE": (),
    "SOFTMAX": (_one_row, _small_softmax),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (_splits_inside,),
    "SQUARED_DIFFERENCE": (),
    "SQUEEZE": (_drops_leading_ones,),
    "STRIDED_SLICE": (_plain_slice,),
    "SUB": (),
    "SUM": (_reduces_inside,),
    "TANH": (),
    "TRANSPOSE": (),
    "TRANSPOSE_CONV": (),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (),
}

# Indices of the inputs that must be constant: filter, bias, slope.
EDGETPU_CONSTANT = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "PRELU": (1,),
    "TRANSPOSE_CONV": (0, 1),
}

# From tensorflow/lite/tools/versioning/gpu_compatibility.cc, which the GPU delegate uses. Its rule that
# slices have three or four dimensions is left out: LiteRT 2.3 runs voice-lstm, which slices a matrix, fully
# on the GPU.
GPU = frozenset(
    [
        "ABS", "ADD", "ADD_N", "ATAN2", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CAST", "CEIL",
        "CONCATENATION", "CONV_2D", "COS", "CUMSUM", "DENSIFY", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE",
        "DEQUANTIZE", "DIV", "DYNAMIC_UPDATE_SLICE", "ELU", "EMBEDDING_LOOKUP", "EQUAL", "EXP", "FLOOR",
        "FLOOR_DIV", "FLOOR_MOD", "FULLY_CONNECTED", "GATHER", "GELU", "GREATER", "GREATER_EQUAL",
        "HARD_SWISH", "LEAKY_RELU", "LESS", "LESS_EQUAL", "LOG", "LOGICAL_AND", "LOGISTIC", "LSTM",
        "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MIRROR_PAD", "MUL", "NEG", "NOT_EQUAL", "ONE_HOT",
        "PACK", "PAD", "PADV2", "POW", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD",
        "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR",
        "RSQRT", "SELECT", "SELECT_V2", "SIGN", "SIN", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT",
        "SPLIT_V", "SQRT", "SQUARE", "SQUARED_DIFFERENCE", "STRIDED_SLICE", "SUB", "SUM", "TANH",
        "TILE", "TRANSPOSE", "TRANSPOSE_CONV",
    ]
)  # fmt: skip
GPU_DTYPES = ("float32", "float16", "int8", "uint8", "int32", "bool")


def edgetpu_fallback(operation: Operation) -> str | None:
    """Return why the Edge TPU does not run an operation, or None if it does."""
    if operation.name == COMPILED:
        return None
    if operation.name not in EDGETPU:
        return "not on the Edge TPU's list"
    if reason := _fixed(operation) or _integers(operation):
        return reason
    for k in EDGETPU_CONSTANT.get(operation.name, ()):
        constant = operation.inputs[k] if k < len(operation.inputs) else None
        if constant is not None and not constant.is_constant:
            return "filter, bias or slope is not constant"
    for tensor in _computed(operation):
        if np.prod(tensor.shape[:-3]) > 1:
            return f"more than the three inner dimensions of {list(tensor.shape)} are larger than 1"
    return next((reason for rule in EDGETPU[operation.name] if (reason := rule(operation))), None)


def gpu_fallback(operation: Operation) -> str | None:
    """Return why the GPU path of LiteRT does not run an operation, or None if it does."""
    if operation.name not in GPU:
        return "not on the GPU's list"
    for tensor in _computed(operation):
        if tensor.dtype not in GPU_DTYPES:
            return f"computes in {tensor.dtype}"
    return _fixed(operation) or _strided_point(operation)


def _strided_point(operation: Operation) -> str | None:
    """Refuse int8 1x1 convolutions with strides: LiteRT 2.3 computes them wrongly (face-cnn was 0.45 off)."""
    if operation.name != "CONV_2D":
        return None
    image, kernel = operation.inputs[:2]
    assert image is not None
    assert kernel is not None
    is_strided = max(operation.options["strideW"], operation.options["strideH"]) > 1
    is_wrong = is_strided and image.dtype == "int8" and kernel.shape[1:3] == (1, 1)
    return "an int8 1x1 convolution with strides is computed wrongly; use float16" if is_wrong else None


def cpu_fallback(operation: Operation) -> str | None:
    """Return why the runtime cannot run an operation: it has kernels for all but custom operations."""
    if operation.name == COMPILED:
        return "compiled for the Edge TPU"
    if operation.is_custom:
        return "a custom operation, for which the runtime has no kernel"
    return None


def _computed(operation: Operation) -> list[Tensor]:
    return [tensor for tensor in operation.tensors if not tensor.is_constant and not tensor.is_variable]


def _fixed(operation: Operation) -> str | None:
    dynamic = next((tensor for tensor in operation.tensors if tensor.is_dynamic), None)
    return None if dynamic is None else f"shape {list(dynamic.shape)} is not fixed"


def _integers(operation: Operation) -> str | None:
    wrong = next((tensor for tensor in _computed(operation) if tensor.dtype not in ("int8", "uint8")), None)
    return None if wrong is None else f"computes in {wrong.dtype}, not in int8"


TARGETS: dict[str, Rule] = {"edgetpu": edgetpu_fallback, "gpu": gpu_fallback, "cpu": cpu_fallback}
