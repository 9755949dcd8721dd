"""Shortens the tensor names of a TFLite file and sorts its inputs and outputs by name."""

from __future__ import annotations


def tidy_names(content: bytes) -> bytes:
    """Return the same model with short tensor names, and inputs and outputs sorted by their signature names.

    The converter joins the names of all operations that it folds into a tensor: names were 7 of the 8 MB of
    an int8 LSTM of 400 steps. Only the first is kept, which locates the tensor in the network. The converter
    leaves inputs and outputs in any order; sorted, the states of a single step have the same order in both.
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
