"""The embedding of a face model is an output beside the probabilities, which stay what they were."""

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
from edge.inference.card import artifacts_directory, golden_input, load_card, open_classifier
from edge.values import Float32
from models.cards import made_input
from tests.helpers.graphs import Op, T, vector, write_graph

ARTIFACTS = artifacts_directory()
FACES = ["face-cnn", *(f"folds/face-cnn-fold{k}" for k in range(5))]


def without_embedding(path: Path, target: Path) -> Path:
    """Write the file as the converter had made it: one output."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    model.subgraphs[0].outputs = model.subgraphs[0].outputs[:1]
    model.signatureDefs[0].outputs = model.signatureDefs[0].outputs[:1]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def examples(count: int) -> list[Float32]:
    """Return made crops."""
    return [made_input((1, 48, 48, 1), (0.0, 1.0), seed=seed) for seed in range(count)]


@pytest.mark.parametrize("variant", ["int8", "float16"])
@pytest.mark.parametrize("name", FACES)
def test_every_face_model_gives_it(name: str, variant: str) -> None:
    """Six models, int8 and float16: (1, 7) first, (1, 192) second, as the card says."""
    path = ARTIFACTS / f"{name}.{variant}.tflite"
    graph = read_graph(path)
    assert [tensor.shape for tensor in graph.outputs] == [(1, 7), (1, 192)]
    card = load_card(path.name.split(".")[0], directory=path.parent)
    assert card.embedding is not None
    assert card.embedding.shape == (1, 192)


@pytest.mark.parametrize("variant", ["int8", "float16"])
def test_probabilities_are_the_same_to_the_bit(tmp_path: Path, variant: str) -> None:
    """With and without the second output, and exposing again gives the very file back."""
    path = ARTIFACTS / f"face-cnn.{variant}.tflite"
    plain = without_embedding(path, tmp_path / "plain.tflite")
    exposed = tmp_path / "exposed.tflite"
    exposed.write_bytes(expose(plain.read_bytes(), name="plain"))
    ours, before = load_model(exposed), load_model(plain)
    shipped = load_model(path)
    for x in examples(10):
        (p,) = before.run(x)
        for model in (ours, shipped):
            np.testing.assert_array_equal(model.run(x)[0], p)
        np.testing.assert_array_equal(shipped.run(x)[1], ours.run(x)[1])
    assert expose(exposed.read_bytes(), name="x") == exposed.read_bytes()


def test_embedding_is_what_the_keras_model_pools() -> None:
    """float16 agrees with the average before the dense layer to 0.01, int8 to a few of its steps."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    model = keras.models.load_model(ARTIFACTS / "face-cnn.keras", compile=False)
    pooled = keras.Model(model.input, model.layers[-3].output)
    card = load_card("face-cnn")
    assert card.embedding is not None
    theirs = np.asarray(pooled(np.concatenate(examples(4))))
    for variant, most in (("float16", 0.01), ("int8", 40 * card.embedding.scale)):
        file = load_model(ARTIFACTS / f"face-cnn.{variant}.tflite")
        ours = np.concatenate([file.run(x)[1] for x in examples(4)])
        assert np.abs(ours - theirs).max() < most
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.98


def test_classifier_keeps_it_with_the_answer() -> None:
    """(192,) of the last answer; None before the first one, and of a model that has none."""
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
    """Hash, tensor and size are those of the new file, the figures stay, and the checks pass."""
    without_embedding(ARTIFACTS / "face-cnn.int8.tflite", tmp_path / "face-cnn.int8.tflite")
    card = load_card("face-cnn").model_copy(update={"embedding": None})
    (tmp_path / "face-cnn.json").write_text(card.model_dump_json())
    assert main(["expose", str(tmp_path / "face-cnn.int8.tflite")]) == 0
    changed = load_card("face-cnn", directory=tmp_path)
    assert changed.embedding == load_card("face-cnn").embedding
    assert changed.metrics == card.metrics
    open_classifier("face-cnn", task="face", directory=tmp_path, variant="int8")


def test_network_that_pools_nothing_is_refused(tmp_path: Path) -> None:
    """A file that ends in something else, or is no file of TFLite, is named with a remedy."""
    mean = Op("MEAN", [T((1, 8, 8, 4)), vector(1, 2)], [T((1, 4))])
    with pytest.raises(ModelError, match=r"x.tflite: .* so it has no embedding to give"):
        expose(write_graph(tmp_path / "x.tflite", [mean]).read_bytes(), name="x.tflite")
    with pytest.raises(ModelError, match="not a TFLite file"):
        expose(b"nothing", name="x.tflite")
