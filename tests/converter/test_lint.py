"""`emotion-convert lint` maps every operation of a file and gives the reason for each that falls back."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from converter.__main__ import main
from converter.lint import lint
from edge.errors import EdgeError
from edge.inference.card import artifacts_directory
from tests.helpers.graphs import Op, T, vector, write_graph

ARTIFACTS = artifacts_directory()

IMAGE = T((1, 8, 8, 4))
ROW = T((1, 8))
FLOAT = T((1, 8), "FLOAT32")


def conv(**options: int) -> Op:
    """Return a 3x3 convolution with a constant filter."""
    given = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1, **options}
    return Op(
        "CONV_2D", [IMAGE, T((4, 3, 3, 4), values=[1] * 144), vector(0, 0, 0, 0)], [T((1, 6, 6, 4))], given
    )


def reasons(path: Path, target: str = "edgetpu") -> list[str | None]:
    """Return the reason of every operation."""
    return [operation["reason"] for operation in lint(path, target)["operations"]]


@pytest.mark.parametrize("name", ["face-cnn", "voice-lstm", "report-face", "report-voice"])
def test_shipped_models_map_fully(name: str) -> None:
    """Every operation of the int8 files, unrolled LSTMs included, is on the list of the Edge TPU."""
    result = lint(ARTIFACTS / f"{name}.int8.tflite", "edgetpu")
    assert [entry for entry in result["counts"] if entry["reason"]] == []
    assert result["maps"]
    assert result["mapped"] == len(result["operations"]) > 5
    assert not {"WHILE", "UNPACK"} & {entry["operation"] for entry in result["counts"]}
    assert {output["dtype"] for entry in result["operations"] for output in entry["outputs"]} == {"int8"}


@pytest.mark.parametrize("name", ["voice-lstm", "face-cnn"])
@pytest.mark.parametrize(("kind", "target"), [("int8", "cpu"), ("float16", "cpu"), ("float16", "gpu")])
def test_shipped_models_map_on_cpu_and_gpu(name: str, kind: str, target: str) -> None:
    """No operation of these files falls back on a device without an Edge TPU."""
    assert lint(ARTIFACTS / f"{name}.{kind}.tflite", target)["maps"]


def test_gpu_refuses_what_it_computes_wrongly() -> None:
    """The three strided int8 1x1 convolutions of face-cnn are refused, with float16 as the remedy."""
    found = [reason for reason in reasons(ARTIFACTS / "face-cnn.int8.tflite", "gpu") if reason]
    assert len(found) == 3
    assert all("strides is computed wrongly; use float16" in reason for reason in found)


def test_floats_do_not_map_on_the_edge_tpu() -> None:
    """No operation of a float file is mapped, and the reason is the dtype."""
    result = lint(ARTIFACTS / "face-cnn.float16.tflite", "edgetpu")
    assert not result["maps"]
    assert result["mapped"] == 0
    assert {"operation": "CONV_2D", "count": 16, "reason": "computes in float32, not in int8"} in result[
        "counts"
    ]


FALLS: dict[str, tuple[Op, str]] = {
    "a loop": (Op("WHILE", [ROW], [T((1, 8))]), "not on the Edge TPU's list"),
    "unpack": (Op("UNPACK", [T((1, 2, 8))], [ROW]), "not on the Edge TPU's list"),
    "custom": (Op("CUSTOM", [ROW], [T((1, 8))], custom="FlexErf"), "not on the Edge TPU's list"),
    "floats": (Op("TANH", [FLOAT], [T((1, 8), "FLOAT32")]), "computes in float32, not in int8"),
    "int16": (Op("ADD", [T((1, 8), "INT16"), ROW], [T((1, 8), "INT16")]), "computes in int16"),
    "dynamic": (Op("TANH", [T((1, 8), is_dynamic=True)], [T((1, 8))]), "is not fixed"),
    "batch of images": (Op("TANH", [T((2, 8, 8, 4))], [T((2, 8, 8, 4))]), "dimensions of [2, 8, 8, 4]"),
    "rows": (
        Op("FULLY_CONNECTED", [T((1, 5, 8)), T((3, 8), values=[1] * 24)], [T((1, 5, 3))]),
        "its output has 5 rows",
    ),
    "weights that are computed": (Op("FULLY_CONNECTED", [ROW, T((3, 8))], [T((1, 3))]), "is not constant"),
    "shuffled weights": (
        Op("FULLY_CONNECTED", [ROW, T((3, 8), values=[1] * 24)], [T((1, 3))], {"weightsFormat": 1}),
        "shuffled",
    ),
    "softmax of rows": (Op("SOFTMAX", [T((5, 8))], [T((5, 8))]), "its output has 5 rows"),
    "softmax of many": (Op("SOFTMAX", [T((1, 16_001))], [T((1, 16_001))]), "has 16001 elements"),
    "fused activation": (
        Op("AVERAGE_POOL_2D", [IMAGE], [T((1, 4, 4, 4))], {"fusedActivationFunction": 1}),
        "has a fused activation (RELU)",
    ),
    "uneven dilation": (conv(dilationWFactor=2), "dilation differs in x and y (2, 1)"),
    "dilated depthwise": (
        Op(
            "DEPTHWISE_CONV_2D",
            [IMAGE, T((1, 3, 3, 4), values=[1] * 36), vector(0, 0, 0, 0)],
            [T((1, 4, 4, 4))],
            {"dilationWFactor": 2, "dilationHFactor": 2},
        ),
        "is dilated (2, 2)",
    ),
    "joined constant": (
        Op("CONCATENATION", [ROW, T((1, 2), values=[1, 1])], [T((1, 10))], {"axis": 1}),
        "joins 1 constant",
    ),
    "mean of the batch": (Op("MEAN", [ROW, vector(0)], [T((8,))]), "works along the batch"),
    "mean of channels": (Op("MEAN", [IMAGE, vector(-1)], [T((1, 8, 8))]), "works along the channels"),
    "sum of the batch": (Op("SUM", [ROW, vector(0)], [T((8,))]), "works along the batch"),
    "unknown axes": (Op("MEAN", [ROW, T((1,))], [T((8,))]), "its axes are not constant"),
    "padded channels": (
        Op("PAD", [IMAGE, T((4, 2), "INT32", [0, 0, 1, 1, 1, 1, 0, 1])], [T((1, 10, 10, 5))]),
        "pads batch or channels",
    ),
    "packed batch": (Op("PACK", [ROW, ROW], [T((2, 1, 8))], {"axis": 0}), "works along the batch"),
    "split batch": (Op("SPLIT", [vector(0), T((2, 8))], [ROW]), "works along the batch"),
    "squeezed inside": (Op("SQUEEZE", [T((1, 5, 1, 8))], [T((1, 5, 8))]), "not a leading 1"),
    "sparse slice": (
        Op("STRIDED_SLICE", [ROW, vector(0, 0), vector(1, 8), vector(1, 2)], [T((1, 4))]),
        "strides other than 1",
    ),
    "new axis": (
        Op("STRIDED_SLICE", [ROW, vector(0, 0), vector(1, 8), vector(1, 1)], [ROW], {"newAxisMask": 1}),
        "an ellipsis or a new axis",
    ),
    "slopes": (Op("PRELU", [IMAGE, T((8, 8, 4), values=[1] * 256)], [IMAGE]), "one number per channel"),
}  # fmt: skip


@pytest.mark.parametrize("name", FALLS)
def test_operation_that_breaks_a_rule_falls_back(name: str, tmp_path: Path) -> None:
    """An operation that breaks one rule of the Edge TPU has the reason of that rule."""
    operation, message = FALLS[name]
    (reason,) = reasons(write_graph(tmp_path / "x.tflite", [operation]))
    assert reason is not None
    assert message in reason


MAPS: dict[str, Op] = {
    "convolution": conv(),
    "dense": Op("FULLY_CONNECTED", [ROW, T((3, 8), values=[1] * 24), vector(0, 0, 0)], [T((1, 3))]),
    "mean of steps": Op("MEAN", [T((1, 38, 80)), vector(1)], [T((1, 80))]),
    "padding": Op("PAD", [IMAGE, T((4, 2), "INT32", [0, 0, 1, 1, 1, 1, 0, 0])], [T((1, 10, 10, 4))]),
    "packed steps": Op("PACK", [ROW, ROW], [T((1, 2, 8))], {"axis": 1}),
    "split gates": Op("SPLIT", [vector(-1), T((1, 8))], [T((1, 4)), T((1, 4))]),
    "squeezed front": Op("SQUEEZE", [T((1, 1, 8))], [ROW]),
    "dense slice": Op("STRIDED_SLICE", [ROW, vector(0, 0), vector(1, 4), vector(1, 1)], [T((1, 4))]),
    "slope a channel": Op("PRELU", [IMAGE, T((1, 1, 4), values=[1] * 4)], [T((1, 8, 8, 4))]),
    "compiled": Op("CUSTOM", [ROW], [T((1, 8))], custom="edgetpu-custom-op"),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_operation_that_keeps_the_rules_is_mapped(name: str, tmp_path: Path) -> None:
    """A similar operation that keeps each rule has no reason."""
    assert reasons(write_graph(tmp_path / "x.tflite", [MAPS[name]])) == [None]


def test_operations_after_a_fallback_fall_back_too(tmp_path: Path) -> None:
    """The Edge TPU runs one subgraph; every later operation has the one that ended it as its reason."""
    a, b, c, d = (T((1, 8)) for _ in range(4))
    path = write_graph(
        tmp_path / "x.tflite", [Op("TANH", [a], [b]), Op("GELU", [b], [c]), Op("TANH", [c], [d])]
    )
    first, second, third = reasons(path)
    assert first is None
    assert second == "not on the Edge TPU's list"
    assert third == "comes after GELU (operation 1), which falls back"
    assert reasons(path, "gpu") == [None, None, None]


def test_float_input_does_not_end_the_subgraph(tmp_path: Path) -> None:
    """QUANTIZE of a float input falls back alone; the subgraph begins after it."""
    inner = T((1, 8))
    path = write_graph(
        tmp_path / "x.tflite", [Op("QUANTIZE", [FLOAT], [inner]), Op("TANH", [inner], [T((1, 8))])]
    )
    assert reasons(path) == ["computes in float32, not in int8", None]


def test_cpu_has_no_kernel_for_custom_operations(tmp_path: Path) -> None:
    """A custom operation, and one compiled for the Edge TPU, do not run on the CPU."""
    for custom, message in (("FlexErf", "a custom operation"), ("edgetpu-custom-op", "compiled for")):
        (reason,) = reasons(
            write_graph(tmp_path / "x.tflite", [Op("CUSTOM", [ROW], [T((1, 8))], custom=custom)]), "cpu"
        )
        assert reason is not None
        assert message in reason


def test_gpu_refuses_int16_and_loops(tmp_path: Path) -> None:
    """An int16 tensor and an operation that is not on the list fall back on the GPU."""
    path = write_graph(tmp_path / "x.tflite", [Op("TANH", [T((1, 8), "INT16")], [T((1, 8), "INT16")])])
    assert reasons(path, "gpu") == ["computes in int16"]
    assert reasons(write_graph(path, [Op("WHILE", [ROW], [T((1, 8))])]), "gpu") == ["not on the GPU's list"]


RESULT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["file", "target", "maps", "mapped", "fallback", "counts", "operations", "compiled"],
    "properties": {
        "file": {"type": "string"},
        "target": {"enum": ["edgetpu", "gpu", "cpu"]},
        "maps": {"type": "boolean"},
        "mapped": {"type": "integer", "minimum": 0},
        "fallback": {"type": "integer", "minimum": 0},
        "compiled": {"type": ["object", "null"]},
        "counts": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["operation", "count", "reason"],
                "properties": {
                    "operation": {"type": "string"},
                    "count": {"type": "integer", "minimum": 1},
                    "reason": {"type": ["string", "null"]},
                },
            },
        },
        "operations": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["index", "operation", "maps", "reason", "outputs"],
                "properties": {
                    "index": {"type": "integer"},
                    "operation": {"type": "string"},
                    "maps": {"type": "boolean"},
                    "reason": {"type": ["string", "null"]},
                    "outputs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["name", "shape", "dtype"],
                            "properties": {
                                "name": {"type": "string"},
                                "shape": {"type": "array", "items": {"type": "integer"}},
                                "dtype": {"type": "string"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_json_keeps_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object on stdout, exit code 0 when all maps, and counts that add up."""
    assert main(["lint", str(ARTIFACTS / "report-face.int8.tflite"), "--target", "edgetpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    jsonschema.validate(result, RESULT)
    assert sum(entry["count"] for entry in result["counts"]) == len(result["operations"])
    assert result["mapped"] + result["fallback"] == len(result["operations"])


def test_fall_back_is_exit_code_1_and_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets plain lines: operations that fall back with their reasons, then mapped ones."""
    inner = T((1, 8))
    path = write_graph(tmp_path / "x.tflite", [Op("TANH", [ROW], [inner]), Op("GELU", [inner], [T((1, 8))])])
    assert main(["lint", str(path), "--target", "edgetpu"]) == 1
    title, _, first, second = capsys.readouterr().out.splitlines()
    assert title.endswith("x.tflite: 1 of 2 operations on edgetpu")
    assert first.split() == ["GELU", "1", "cpu", "not", "on", "the", "Edge", "TPU's", "list"]
    assert second.split() == ["TANH", "1", "edgetpu"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such model file"),
        (b"", "is empty"),
        (b"this is text, not a model", "not a TFLite file"),
        (b"\x1c\x00\x00\x00TFL3", "a damaged TFLite file"),
    ],
)
def test_other_files_give_exit_code_4(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing, empty, cut or other file gives one error with the path, and nothing on stdout."""
    path = tmp_path / "x.tflite"
    if content is not None:
        path.write_bytes(content)
    assert main(["lint", str(path), "--target", "cpu"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert "x.tflite" in err
    assert message in err


def test_unknown_target_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The command line reports a usage error; the function raises an error with the known targets."""
    path = ARTIFACTS / "report-face.int8.tflite"
    with pytest.raises(SystemExit, match="2"):
        main(["lint", str(path), "--target", "npu"])
    assert "invalid choice: 'npu'" in capsys.readouterr().err
    with pytest.raises(EdgeError, match="--target npu: unknown; use one of edgetpu, gpu, cpu"):
        lint(path, "npu")
