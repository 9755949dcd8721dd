"""The embedding of a face model becomes a second output, and the probabilities do not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from converter.__main__ import main
from converter.expose import expose
from converter.graph import read_graph
from edge.errors import ModelError
from edge.inference.backends import load_model
from edge.inference.card import artifacts_directory, golden_input, load_card
from edge.inference.classifier import open_classifier
from edge.values import Float32
from models.cards import made_input
from tests.helpers.graphs import Op, T, vector, write_graph

ARTIFACTS = artifacts_directory()
FACES = ["face-cnn", *(f"folds/face-cnn-fold{k}" for k in range(5))]


def without_embedding(path: Path, target: Path) -> Path:
    """Write the file without its second output, as the converter makes it."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    model.subgraphs[0].outputs = model.subgraphs[0].outputs[:1]
    model.signatureDefs[0].outputs = model.signatureDefs[0].outputs[:1]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def examples(count: int) -> list[Float32]:
    """Return generated crops."""
    return [made_input((1, 48, 48, 1), (0.0, 1.0), seed=seed) for seed in range(count)]


@pytest.mark.parametrize("variant", ["int8", "float16"])
@pytest.mark.parametrize("name", FACES)
def test_every_face_model_has_an_embedding(name: str, variant: str) -> None:
    """The outputs of six models in int8 and float16 are (1, 7) and (1, 192), as in the card."""
    path = ARTIFACTS / f"{name}.{variant}.tflite"
    graph = read_graph(path)
    assert [tensor.shape for tensor in graph.outputs] == [(1, 7), (1, 192)]
    card = load_card(path.name.split(".")[0], directory=path.parent)
    assert card.embedding is not None
    assert card.embedding.shape == (1, 192)


@pytest.mark.parametrize("variant", ["int8", "float16"])
def test_probabilities_are_bit_identical(tmp_path: Path, variant: str) -> None:
    """The second output does not change the first, and exposing twice returns the same file."""
    path = ARTIFACTS / f"face-cnn.{variant}.tflite"
    plain = without_embedding(path, tmp_path / "plain.tflite")
    exposed = tmp_path / "exposed.tflite"
    exposed.write_bytes(expose(plain.read_bytes(), name="plain"))
    again, before = load_model(exposed), load_model(plain)
    shipped = load_model(path)
    for x in examples(10):
        (p,) = before.run(x)
        for model in (again, shipped):
            np.testing.assert_array_equal(model.run(x)[0], p)
        np.testing.assert_array_equal(shipped.run(x)[1], again.run(x)[1])
    assert expose(exposed.read_bytes(), name="x") == exposed.read_bytes()


def test_embedding_is_the_pooled_output_of_the_keras_model() -> None:
    """float16 agrees with the mean before the dense layer within 0.01, int8 within 40 of its steps."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    model = keras.models.load_model(ARTIFACTS / "face-cnn.keras", compile=False)
    pooled = keras.Model(model.input, model.layers[-3].output)
    card = load_card("face-cnn")
    assert card.embedding is not None
    expected = np.asarray(pooled(np.concatenate(examples(4))))
    for variant, most in (("float16", 0.01), ("int8", 40 * card.embedding.scale)):
        file = load_model(ARTIFACTS / f"face-cnn.{variant}.tflite")
        embeddings = np.concatenate([file.run(x)[1] for x in examples(4)])
        assert np.abs(embeddings - expected).max() < most
        assert np.corrcoef(embeddings.ravel(), expected.ravel())[0, 1] > 0.98


def test_classifier_keeps_the_embedding_of_its_last_prediction() -> None:
    """(192,) after a prediction; None before the first one, and for a model without embedding."""
    face, voice = open_classifier("face-cnn", task="face"), open_classifier("voice-lstm", task="voice")
    before = face.embedding
    assert before is None
    first, second = examples(2)
    face.classify(first)
    kept = face.embedding
    assert kept is not None
    copy = kept.copy()
    face.classify(second)
    np.testing.assert_array_equal(kept, copy)
    assert face.embedding is not None
    assert face.embedding.shape == (192,)
    assert not np.array_equal(face.embedding, kept)
    voice.classify(golden_input(voice.card))
    assert voice.embedding is None


def test_command_changes_the_file_and_its_card(tmp_path: Path) -> None:
    """The card has hash, tensor and size of the new file, keeps its figures, and passes the checks."""
    without_embedding(ARTIFACTS / "face-cnn.int8.tflite", tmp_path / "face-cnn.int8.tflite")
    card = load_card("face-cnn").model_copy(update={"embedding": None})
    (tmp_path / "face-cnn.json").write_text(card.model_dump_json())
    assert main(["expose", str(tmp_path / "face-cnn.int8.tflite")]) == 0
    changed = load_card("face-cnn", directory=tmp_path)
    assert changed.embedding == load_card("face-cnn").embedding
    assert changed.metrics == card.metrics
    open_classifier("face-cnn", task="face", directory=tmp_path, variant="int8")


def test_network_without_pooling_is_refused(tmp_path: Path) -> None:
    """The error for a network with another end, or for another kind of file, has a name and a remedy."""
    mean = Op("MEAN", [T((1, 8, 8, 4)), vector(1, 2)], [T((1, 4))])
    with pytest.raises(ModelError, match=r"x.tflite: .* so it has no embedding"):
        expose(write_graph(tmp_path / "x.tflite", [mean]).read_bytes(), name="x.tflite")
    with pytest.raises(ModelError, match="not a TFLite file"):
        expose(b"nothing", name="x.tflite")
