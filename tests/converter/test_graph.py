"""The reader of TFLite files returns their operations, and refuses damaged files with an error."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.graph import read_graph
from converter.lint import lint
from edge.errors import ModelError
from edge.inference.backends import load_model
from edge.inference.card import artifacts_directory, load_card
from tests.helpers.graphs import Op, T, vector, write_graph

ARTIFACTS = artifacts_directory()


@pytest.mark.parametrize("name", ["face-cnn", "voice-lstm"])
def test_inputs_and_outputs_are_those_of_the_runtime(name: str) -> None:
    """Shape, dtype, scale and zero point are those that the runtime reports."""
    path = ARTIFACTS / f"{name}.int8.tflite"
    graph, model = read_graph(path), load_model(path)
    for tensor, info in zip((*graph.inputs, *graph.outputs), (*model.inputs, *model.outputs), strict=True):
        assert (tensor.shape, tensor.dtype, tensor.zero_point) == (
            info.shape,
            info.dtype.name,
            info.zero_point,
        )
        assert tensor.scale == pytest.approx(info.scale)
    assert graph.inputs[0].shape == load_card(name).input.shape


def test_operations_have_options_and_constants(tmp_path: Path) -> None:
    """Options and activations have names, axes have values, and a missing bias is None."""
    image, pooled = T((1, 8, 8, 4)), T((1, 4, 4, 4))
    pool = Op("AVERAGE_POOL_2D", [image], [pooled], {"strideW": 2, "fusedActivationFunction": 3})
    mean = Op("MEAN", [pooled, vector(1, 2)], [T((1, 4))])
    first, second = read_graph(write_graph(tmp_path / "x.tflite", [pool, mean])).operations
    assert (first.name, first.options["strideW"], first.activation) == ("AVERAGE_POOL_2D", 2, "RELU6")
    axes = second.inputs[1]
    assert axes is not None
    assert axes.values is not None
    assert axes.values.tolist() == [1, 2]
    dense = read_graph(ARTIFACTS / "report-voice.int8.tflite")
    assert any(op.name == "FULLY_CONNECTED" and op.inputs[2] is None for op in dense.operations)


def test_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """A file that is cut anywhere or has changed bytes is read or refused with `ModelError`, nothing else."""
    whole = write_graph(
        tmp_path / "whole.tflite",
        [
            Op("CONV_2D", [T((1, 8, 8, 4)), T((4, 3, 3, 4), values=[1] * 144)], [T((1, 6, 6, 4))]),
            Op("SPLIT", [vector(1), T((1, 8))], [T((1, 4)), T((1, 4))]),
        ],
    ).read_bytes()
    chance = random.Random(5)
    damaged = [whole[:length] for length in range(8, len(whole), 16)]
    for _ in range(300):
        bad = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(8, len(bad))] = chance.randrange(256)
        damaged.append(bytes(bad))
    path, refusals = tmp_path / "damaged.tflite", []
    for content in damaged:
        path.write_bytes(content)
        try:
            lint(path, "edgetpu")
        except ModelError as error:
            refusals.append(str(error))
    assert len(refusals) > len(damaged) // 10
    assert {refusal.partition(": ")[0] for refusal in refusals} == {str(path)}


def test_directory_is_refused(tmp_path: Path) -> None:
    """A directory in place of the file raises `ModelError`."""
    with pytest.raises(ModelError, match="cannot be read"):
        read_graph(tmp_path)


def test_references_to_one_part_are_refused(tmp_path: Path) -> None:
    """A file of 13 kB whose subgraphs are one subgraph, whose tensors are one tensor, is not expanded."""
    builder = flatbuffers.Builder()
    schema.TensorStart(builder)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, 3000)
    for _ in range(3000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 300)
    for _ in range(300):
        builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    path = tmp_path / "small.tflite"
    path.write_bytes(bytes(builder.Output()))
    assert path.stat().st_size < 14_000
    tracemalloc.start()
    with pytest.raises(ModelError, match="a damaged TFLite file"):
        read_graph(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
