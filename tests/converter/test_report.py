"""`emotion-convert report` measures the cost of a conversion, for shipped models and for users' models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from converter.__main__ import main
from converter.graph import read_graph
from converter.labelled_set import read_labelled_set
from converter.layer_noise import layer_noise, short_name
from converter.report import Inputs, report
from edge.errors import ModelError
from edge.inference.backends import load_model
from edge.inference.card import artifacts_directory, load_card
from edge.values import LABELS
from models.cards import made_input
from models.data.datasets import DataError
from tests.helpers import trees
from tests.helpers.graphs import Op, T, write_graph

# ai-edge-litert's Delegate fails in __del__ when its library cannot be opened.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <function Delegate.__del__")

ARTIFACTS = artifacts_directory()

NUMBER, TEXT = {"type": "number"}, {"type": "string"}
FIGURES = {"type": ["object", "null"], "required": ["accuracy", "uar"]}
RESULT = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "file", "model", "variant", "bytes", "operations", "inputs", "reference", "difference", "layers",
        "layers_unmatched", "labelled", "latency",
    ],
    "properties": {
        "file": TEXT,
        "model": {"type": ["string", "null"]},
        "variant": TEXT,
        "bytes": {"type": "integer"},
        "operations": {"type": "array", "items": {"required": ["operation", "count"]}},
        "inputs": {"required": ["source", "n"]},
        "reference": {"type": ["object", "null"], "required": ["file", "bytes"]},
        "difference": {
            "type": ["object", "null"],
            "required": ["max_difference", "mean_difference", "agreement"],
        },
        "layers": {
            "type": ["array", "null"],
            "items": {
                "additionalProperties": False,
                "required": ["layer", "operation", "sqnr_db", "added_db"],
                "properties": {
                    "layer": TEXT,
                    "operation": TEXT,
                    "sqnr_db": NUMBER,
                    "added_db": {"type": ["number", "null"]},
                },
            },
        },
        "layers_unmatched": {"type": ["integer", "null"]},
        "labelled": {
            "type": ["object", "null"],
            "required": ["n", "model", "reference"],
            "properties": {"n": {"type": "integer"}, "model": FIGURES, "reference": FIGURES},
        },
        "latency": {
            "type": "array",
            "items": {
                "oneOf": [
                    {"required": ["backend", "present", "file", "ms"], "properties": {"ms": NUMBER}},
                    {"required": ["backend", "present", "reason", "message"]},
                ]
            },
        },
    },
}  # fmt: skip


def discard(_text: str) -> None:
    """Discard a progress message."""


def write_faces(directory: Path, labels: tuple[str, ...] = LABELS, each: int = 3) -> Path:
    """Write LABEL/NUMBER.png; return the directory."""
    for k, label in enumerate(labels):
        (directory / label).mkdir(parents=True)
        for number in range(each):
            cv2.imwrite(str(directory / label / f"{number}.png"), trees.face(10 * k + number))
    return directory


@pytest.mark.parametrize("name", ["face-cnn", "voice-lstm"])
def test_shipped_models_show_the_tables(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets every table: size, speed, difference, operations and the noisiest layers."""
    assert main(["report", str(ARTIFACTS / f"{name}.int8.tflite")]) == 0
    out = capsys.readouterr().out
    size = load_card(name).files["int8"].bytes
    assert f"{name}.int8.tflite: int8, {size / 1000:.0f} kB" in out
    for title in (
        "speed: time of one run",
        f"outputs compared with {name}.float16.tflite",
        " operations\n",
        "noisiest",
    ):
        assert title in out
    assert "have no counterpart" not in out


def test_json_keeps_its_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With examples and a labelled set everything is measured, int8 and float agree, worst layers first."""
    data = write_faces(tmp_path / "data")
    arguments = ["report", str(ARTIFACTS / "report-face.int8.tflite"), "--data", str(data), "--json"]
    assert main([*arguments, "--calibrate", str(data), "--calibrate-count", "6"]) == 0
    result = json.loads(capsys.readouterr().out)
    jsonschema.validate(result, RESULT)
    assert result["inputs"] == {"source": str(data), "n": 6}
    assert result["labelled"]["n"] == 21
    assert result["labelled"]["model"]["accuracy"] == pytest.approx(
        result["labelled"]["reference"]["accuracy"], abs=0.1
    )
    assert result["difference"]["max_difference"] < 0.05
    noise = [layer["sqnr_db"] for layer in result["layers"]]
    assert noise == sorted(noise)
    assert {entry["backend"] for entry in result["latency"]} == {"cpu", "gpu", "edgetpu"}


def test_noise_of_the_last_layer_is_that_of_the_outputs() -> None:
    """The SQNR of the last layer is that of the outputs of both files, and every layer has a counterpart."""
    name = "report-face"
    quantized, floats = ARTIFACTS / f"{name}.int8.tflite", ARTIFACTS / f"{name}.float16.tflite"
    card = load_card(name)
    inputs = [made_input(card.input.shape, card.input.range, seed=seed) for seed in range(5)]
    layers, unmatched = layer_noise(quantized, floats, inputs)
    exact, rough = (np.stack([load_model(path).run(x)[0][0] for x in inputs]) for path in (floats, quantized))
    expected = 10 * np.log10(np.sum(exact**2) / np.sum((rough - exact) ** 2))
    (softmax,) = [layer for layer in layers if layer["operation"] == "SOFTMAX"]
    # XNNPACK computes the outputs here and the built-in kernels the layers; they round differently.
    assert softmax["sqnr_db"] == pytest.approx(expected, abs=2)
    assert unmatched == 0
    assert len(layers) == 9


def test_file_against_itself_has_no_noise() -> None:
    """A float file compared with itself has the largest SQNR in every layer."""
    path = ARTIFACTS / "report-face.float16.tflite"
    layers, unmatched = layer_noise(path, path, [made_input((1, 48, 48, 1), (0.0, 1.0))])
    assert {layer["sqnr_db"] for layer in layers} == {120.0}
    assert unmatched == 0


def test_page_is_self_contained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page has the tables, all layers and a chart, and neither a script nor a URL."""
    page = tmp_path / "out" / "report.html"
    assert main(["report", str(ARTIFACTS / "report-voice.int8.tflite"), "--html", str(page)]) == 0
    assert f"wrote {page}" in capsys.readouterr().err
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 1
    assert text.count(">LOGISTIC</td>") > 100
    assert text.endswith("</html>\n")
    assert "http" not in text
    assert "<script" not in text


def test_unwritable_page_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in place of the directory gives exit code 1 and the path."""
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "report.html"
    assert main(["report", str(ARTIFACTS / "mouth-state.int8.tflite"), "--html", str(page)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_own_model_without_card_or_float_file(tmp_path: Path) -> None:
    """Size, operations and speed are measured; keys that need a float file are null."""
    own = tmp_path / "own.int8.tflite"
    shutil.copy(ARTIFACTS / "report-face.int8.tflite", own)
    result = report(own, Inputs(), progress=discard)
    jsonschema.validate(result, RESULT)
    assert (result["model"], result["variant"], result["bytes"]) == (None, "int8", own.stat().st_size)
    assert (result["reference"], result["difference"], result["layers"]) == (None, None, None)
    assert result["latency"][0]["ms"] > 0


@pytest.mark.usefixtures("here")
def test_float_file_is_made_from_the_keras_file(tmp_path: Path) -> None:
    """With only a .keras file, a float32 file is made for the comparison and deleted afterwards."""
    pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
    own = tmp_path / "own.int8.tflite"
    shutil.copy(ARTIFACTS / "report-face.int8.tflite", own)
    shutil.copy(ARTIFACTS / "report-face.keras", tmp_path / "own.keras")
    messages: list[str] = []
    result = report(own, Inputs(), progress=messages.append)
    assert "converting own.keras to float32" in messages
    assert result["reference"]["file"] == "own.float32.tflite"
    assert result["difference"]["max_difference"] < 0.05
    assert result["layers_unmatched"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.int8.tflite", "own.keras"]


def test_synonyms_of_labels_are_accepted(tmp_path: Path) -> None:
    """Directories named happy, sad or angry count as happiness, sadness and anger."""
    words = write_faces(
        tmp_path / "words", ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    )
    names = write_faces(tmp_path / "names")
    path, card = ARTIFACTS / "report-face.int8.tflite", load_card("report-face")
    model, graph = load_model(path), read_graph(path)
    first, second = (read_labelled_set(data, (), graph, card) for data in (words, names))
    np.testing.assert_array_equal(np.sort(first.labels), np.sort(second.labels))
    assert first.evaluate(model) == second.evaluate(model)


def test_own_labels_are_in_the_order_of_the_output(tmp_path: Path) -> None:
    """Without a card the labels are the sorted directories or the given names, in the order of the output."""
    shipped, own = ARTIFACTS / "report-face.int8.tflite", tmp_path / "own.int8.tflite"
    shutil.copy(shipped, own)
    data = write_faces(tmp_path / "data")
    model, graph = load_model(own), read_graph(own)
    card = read_labelled_set(data, (), graph, load_card("report-face")).evaluate(model)
    assert report(own, Inputs(data=data), progress=discard)["labelled"]["model"] == card
    # The accuracies of all rotations of the labels add up to 1: every prediction is right in one of them.
    rotated = [(*LABELS[k:], *LABELS[:k]) for k in range(7)]
    figures = [read_labelled_set(data, labels, graph, None).evaluate(model) for labels in rotated]
    assert figures[0] == card
    assert sum(entry["accuracy"] for entry in figures) == pytest.approx(1, abs=0.001)
    given = report(own, Inputs(data=data, labels=rotated[1]), progress=discard)["labelled"]["model"]
    assert given == figures[1]


@pytest.mark.parametrize(
    ("content", "labels", "message"),
    [
        ("missing", (), "no such directory"),
        ("empty", (), "contains no directory"),
        ("unknown label", (), "smile is not one of anger"),
        ("unreadable images", (), "none of 1 files"),
        ("good", ("a", "b"), "--labels a,b: 2 for a model with 7 outputs"),
    ],
)
def test_labelled_set_that_does_not_fit_is_refused(
    content: str, labels: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """The error names the option, its value and what is wrong."""
    data = tmp_path / "data"
    if content != "missing":
        data.mkdir()
    if content == "unknown label":
        write_faces(data, ("smile",))
    if content == "good":
        write_faces(data)
    if content == "unreadable images":
        (data / "anger").mkdir()
        (data / "anger" / "0.png").write_text("text")
    with pytest.raises(DataError, match=r"--(data|labels)") as caught:
        report(ARTIFACTS / "report-face.int8.tflite", Inputs(data=data, labels=labels), progress=discard)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such model file"), (b"", "is empty"), (b"text, no model", "not a TFLite file")],
)
def test_other_files_are_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    """A missing, empty or other file raises `ModelError` with the path."""
    path = tmp_path / "x.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        report(path, Inputs(), progress=discard)


def test_models_of_other_shapes_are_refused(tmp_path: Path) -> None:
    """A shape that is not fixed, and two inputs, raise `ModelError`."""
    path = tmp_path / "x.tflite"
    write_graph(path, [Op("TANH", [T((1, 8), is_dynamic=True)], [T((1, 8))])])
    with pytest.raises(ModelError, match=r"input shape \(1, 8\) is not fixed"):
        report(path, Inputs(), progress=discard)
    write_graph(path, [Op("ADD", [T((1, 8)), T((1, 8))], [T((1, 8))])], inputs=2)
    with pytest.raises(ModelError, match="2 inputs and 1 outputs; supported are one input"):
        report(path, Inputs(), progress=discard)


def test_short_name_is_the_part_of_the_layer() -> None:
    """The short name of fused layers is the first one, without the name of the model."""
    assert short_name("m_1/conv2d/Relu;m_1/conv2d/BiasAdd") == "conv2d/Relu"
    assert short_name("input") == "input"
