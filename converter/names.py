"""Shortens the names in a TFLite file and puts its inputs and outputs in the order of theirs."""

from __future__ import annotations


def tidy(content: bytes) -> bytes:
    """Return the same model with short names, its inputs and outputs ordered by the names of its signature.

    The converter names a tensor after everything that was folded into it: 7 of the 8 MB of an int8 LSTM of
    400 steps were names. The first of them says where in the network a tensor is. Its inputs and outputs come
    in any order, and the states of a single step must line up.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = tensor.name.partition(b";")[0]
    main, signature = model.subgraphs[0], model.signatureDefs[0]
    for end in ("inputs", "outputs"):
        ordered = sorted(getattr(signature, end), key=lambda tensor: tensor.name)
        for tensor in ordered:
            main.tensors[tensor.tensorIndex].name = tensor.name
        setattr(main, end, [tensor.tensorIndex for tensor in ordered])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
