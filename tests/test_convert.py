"""Converted models compute what the Keras model computes, and whatever cannot be converted says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trees

from converter.calibrate import CalibrationError, read_examples
from converter.quantize import Job, convert, read_model
from converter.verify import verify
from edge.card import Source, load_card
from edge.errors import EdgeError, ModelError
from edge.faces import FER_CROP
from edge.runtime import load_model
from edge.values import Float32
from models.cards import draft_card, save_card

keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
from keras import layers  # noqa: E402

from converter.lstm import unroll  # noqa: E402

# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROOT = Path(__file__).parent.parent
STEPS = 12


def run_command(
    *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run emotion-convert to its end."""
    return subprocess.run(
        [sys.executable, "-m", "converter", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def small_face() -> Any:
    """Return an untrained CNN with the input and output of the face models."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ]
    )


def recurrent(*stack: Any) -> Any:
    """Return an untrained model (12, 3) -> 7 around recurrent layers."""
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((STEPS, 3)), *stack, layers.Dense(7, activation="softmax")])


def write_card(directory: Path, name: str) -> None:
    """Write the draft card of a face model."""
    source = Source(name="made", use="nothing", licence="none")
    card = draft_card(
        name, task="face", shape=(1, 48, 48, 1), value_range=(0.0, 1.0), features=FER_CROP.to_features(),
        temperature=1.0, data=[source],
    )  # fmt: skip
    save_card(card, directory)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of made faces to calibrate with."""
    return trees.write_fer2013(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def converted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a small face model, its card, and its int8 and float32 files, made by the command."""
    directory = tmp_path_factory.mktemp("converted")
    small_face().save(directory / "tiny.keras")
    write_card(directory, "tiny")
    for kind in ("int8", "float32"):
        target = directory / f"tiny.{kind}.tflite"
        done = run_command(
            "convert", directory / "tiny.keras", "--to", kind, "--calibrate", pictures, "-o", target
        )
        assert done.returncode == 0, done.stderr
    return directory


LSTMS: dict[str, Callable[[], list[Any]]] = {
    "linear": lambda: [layers.LSTM(5, activation="linear")],
    "tanh": lambda: [layers.LSTM(5)],
    "relu and hard sigmoid": lambda: [layers.LSTM(5, activation="relu", recurrent_activation="hard_sigmoid")],
    "no bias": lambda: [layers.LSTM(5, use_bias=False)],
    "backwards": lambda: [layers.LSTM(5, go_backwards=True)],
    "sequences": lambda: [layers.LSTM(5, return_sequences=True), layers.Flatten()],
    "stacked": lambda: [layers.LSTM(6, return_sequences=True, activation="linear"), layers.LSTM(4)],
    "one unit": lambda: [layers.LSTM(1)],
}


@pytest.mark.parametrize("name", LSTMS)
def test_unrolled_lstm_is_the_keras_lstm(name: str) -> None:
    """Every form agrees with Keras within 1e-5, holding the very same weights."""
    model = recurrent(*LSTMS[name]())
    # Zero biases would hide a gate that reads another gate's bias.
    random = np.random.default_rng(0)
    model.set_weights([random.normal(0, 0.4, weight.shape) for weight in model.get_weights()])
    unrolled = unroll(model)
    x = random.normal(0, 1, (20, STEPS, 3)).astype(np.float32)
    np.testing.assert_allclose(
        np.asarray(unrolled(x, training=False)), np.asarray(model(x, training=False)), atol=1e-5
    )
    assert {id(weight) for weight in unrolled.weights} == {id(weight) for weight in model.weights}


def test_model_without_lstm_is_left_alone() -> None:
    """A CNN is not touched."""
    model = small_face()
    assert unroll(model) is model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "gru": (lambda: recurrent(layers.GRU(4, name="gru")), "layer gru: GRU cannot be converted yet"),
    "both ways": (
        lambda: recurrent(layers.Bidirectional(layers.LSTM(4), name="bi")),
        "layer bi: Bidirectional",
    ),
    "mask": (lambda: recurrent(layers.Masking(name="mask"), layers.LSTM(4)), "layer mask: masks cannot"),
    "state": (
        lambda: keras.Sequential(
            [keras.Input((4, 2), batch_size=1), layers.LSTM(4, stateful=True, name="s")]
        ),
        "layer s: keeps or returns its state",
    ),
    "any length": (
        lambda: keras.Sequential([keras.Input((None, 2)), layers.LSTM(4, name="free")]),
        "layer free: any number of steps",
    ),
    "too long": (lambda: keras.Sequential([keras.Input((401, 2)), layers.LSTM(4, name="long")]), "401 steps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused(name: str) -> None:
    """The sentence names the layer and the reason."""
    build, sentence = REFUSED[name]
    with pytest.raises(ModelError, match=sentence):
        unroll(build())


def read_operations(path: Path) -> set[str]:
    """Return the names of the operations in a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    return {operation["op_name"] for operation in interpreter._get_ops_details()}


def test_lstm_becomes_full_int8_without_loops(tmp_path: Path) -> None:
    """A linear LSTM of the report's shape converts to int8 in and out, no WHILE, close to Keras."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [keras.Input((40, 1)), layers.LSTM(9, activation="linear"), layers.Dense(7, activation="softmax")]
    )
    model.save(tmp_path / "voice.keras")
    data = trees.write_speech(tmp_path / "data")
    features = {"kind": "mfcc_mean", "mean": [0.0] * 40, "std": [20.0] * 40}
    target = tmp_path / "voice.int8.tflite"
    convert(
        Job(tmp_path / "voice.keras", target, "int8", calibrate=data, count=30, features=features),
        report=lambda _: None,
    )
    operations = read_operations(target)
    assert not operations & {"WHILE", "UNPACK", "UNIDIRECTIONAL_SEQUENCE_LSTM", "QUANTIZE", "DEQUANTIZE"}
    converted = load_model(target)
    assert converted.inputs[0].dtype == converted.outputs[0].dtype == np.int8
    examples = read_examples(data, (40, 1), count=30, features=features)
    expected = np.asarray(model(examples, training=False))
    np.testing.assert_allclose(run_all(converted, examples), expected, atol=0.03)


def run_all(model: Any, examples: Float32) -> Float32:
    """Run examples (n, ...) one by one: (n, 7)."""
    return np.stack([model.run(example[np.newaxis])[0][0] for example in examples])


@pytest.mark.parametrize(("kind", "atol"), [("float16", 2e-3), ("dynamic", 0.03)])
def test_other_kinds_agree_with_keras(kind: str, atol: float, pictures: Path, tmp_path: Path) -> None:
    """float16 and dynamic take floats and stay close to the Keras model."""
    model = small_face()
    model.save(tmp_path / "tiny.keras")
    target = tmp_path / f"tiny.{kind}.tflite"
    convert(Job(tmp_path / "tiny.keras", target, kind), report=lambda _: None)
    examples = read_examples(pictures, (48, 48, 1), count=10)
    converted = load_model(target)
    assert converted.inputs[0].dtype == np.float32
    np.testing.assert_allclose(
        run_all(converted, examples), np.asarray(model(examples, training=False)), atol=atol
    )


def test_int8_agrees_with_float32(converted: Path, pictures: Path) -> None:
    """On the pictures it was calibrated with, int8 is within 0.03 of float32, which is Keras within 1e-5."""
    examples = read_examples(pictures, (48, 48, 1), count=20)
    int8 = run_all(load_model(converted / "tiny.int8.tflite"), examples)
    float32 = run_all(load_model(converted / "tiny.float32.tflite"), examples)
    model = keras.models.load_model(converted / "tiny.keras")
    np.testing.assert_allclose(float32, np.asarray(model(examples, training=False)), atol=1e-5)
    np.testing.assert_allclose(int8, float32, atol=0.03)
    assert np.ptp(float32, axis=0).max() > 0.02  # the model does tell the pictures apart


def test_card_is_updated_beside_the_file(converted: Path) -> None:
    """Both kinds stand in the card with hash and golden output; the scales are those of the int8 file."""
    card = load_card("tiny", directory=converted)
    assert set(card.files) == set(card.golden.output) == {"int8", "float32"}
    info = load_model(converted / "tiny.int8.tflite").inputs[0]
    assert (card.input.dtype, card.input.zero_point) == ("int8", info.zero_point)
    assert card.input.scale == pytest.approx(info.scale)


# ai-edge-litert's Delegate fails in __del__ when its library cannot be opened.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function Delegate.__del__")
def test_verify_measures_against_float(converted: Path) -> None:
    """The JSON line says that it is good and how far int8 is from float32; its keys are fixed."""
    done = run_command("verify", converted / "tiny.int8.tflite", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert list(result) == [
        "file", "model", "variant", "sha256", "bytes", "golden_difference", "tolerance", "reference",
        "compared", "max_difference", "mean_difference", "agreement", "backends",
    ]  # fmt: skip
    assert result["reference"] == "float32"
    assert result["golden_difference"] <= 1e-6
    assert 0 < result["max_difference"] < 0.05
    assert verify(converted / "tiny.float32.tflite")["reference"] is None


def test_verify_refuses_a_changed_file(converted: Path, tmp_path: Path) -> None:
    """One flipped byte is exit 4 and a sentence about the hash."""
    for name in ("tiny.json", "tiny.int8.tflite"):
        (tmp_path / name).write_bytes((converted / name).read_bytes())
    data = bytearray((tmp_path / "tiny.int8.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "tiny.int8.tflite").write_bytes(data)
    done = run_command("verify", tmp_path / "tiny.int8.tflite")
    assert done.returncode == 4
    assert "SHA-256 is" in done.stderr


def test_verify_refuses_a_wrong_golden_output(converted: Path, tmp_path: Path) -> None:
    """A card that expects another answer is refused, although hash and shapes are right."""
    (tmp_path / "tiny.int8.tflite").write_bytes((converted / "tiny.int8.tflite").read_bytes())
    card = json.loads((converted / "tiny.json").read_text())
    card["golden"]["output"]["int8"][0] += 0.2
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"golden vector differs by 0\.2"):
        verify(tmp_path / "tiny.int8.tflite")


def test_converting_again_drops_old_figures(converted: Path, pictures: Path, tmp_path: Path) -> None:
    """Figures of a variant belong to one file; a new file of that variant has none yet."""
    for name in ("tiny.json", "tiny.keras", "tiny.int8.tflite", "tiny.float32.tflite"):
        (tmp_path / name).write_bytes((converted / name).read_bytes())
    card = json.loads((tmp_path / "tiny.json").read_text())
    card["metrics"] = {"jaffe": {"int8": {"n": 1}, "float32": {"n": 1}}}
    (tmp_path / "tiny.json").write_text(json.dumps(card))
    done = run_command("convert", tmp_path / "tiny.keras", "--calibrate", pictures)
    assert done.returncode == 0, done.stderr
    assert load_card("tiny", directory=tmp_path).metrics == {"jaffe": {"float32": {"n": 1}}}


def test_no_card_is_said(pictures: Path, tmp_path: Path) -> None:
    """Somebody's own model converts without a card, and the command says what the daemon will miss."""
    small_face().save(tmp_path / "own.keras")
    done = run_command("convert", tmp_path / "own.keras", "--calibrate", pictures, "--calibrate-count", "5")
    assert done.returncode == 0
    assert "no card beside it: the daemon needs own.json" in done.stderr
    assert load_model(tmp_path / "own.int8.tflite").inputs[0].shape == (1, 48, 48, 1)


def broken_model(kind: str, path: Path) -> None:
    """Write a Keras file that cannot be converted."""
    if kind == "text":
        path.write_text("this is no model")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
    elif kind == "nan":
        model = small_face()
        model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
        model.save(path)
    elif kind == "dynamic":
        x = keras.Input((None, None, 1))
        keras.Model(x, layers.GlobalAveragePooling2D()(x)).save(path)
    elif kind == "two inputs":
        a, b = keras.Input((3,)), keras.Input((3,))
        keras.Model([a, b], layers.Add()([a, b])).save(path)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("missing", "no such Keras file"), ("text", r"not a \.keras file"), ("empty", r"not a \.keras file"),
     ("nan", "a weight is not a number")],
)  # fmt: skip
def test_bad_model_is_one_sentence_and_no_file(kind: str, sentence: str, tmp_path: Path) -> None:
    """`ModelError` with the reason, from the child too, and nothing is left beside the model."""
    source = tmp_path / "bad.keras"
    broken_model(kind, source)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match=sentence):
        convert(Job(source, tmp_path / "bad.tflite", "float32"), report=lambda _: None)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("dynamic", "is not fixed"),
        ("two inputs", "2 inputs and 1 outputs"),
        ("zip", "not a Keras model that loads"),
    ],
)
def test_unfit_model_is_refused(kind: str, sentence: str, tmp_path: Path) -> None:
    """What cannot become one TFLite file of fixed shapes is refused when it is read."""
    broken_model(kind, tmp_path / "bad.keras")
    with pytest.raises(ModelError, match=sentence):
        read_model(tmp_path / "bad.keras")


def test_crash_of_the_child_is_one_sentence(converted: Path, tmp_path: Path) -> None:
    """When the converting process dies of a signal, the command names it, exits 4 and leaves nothing."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'converter.quantize' in sys.orig_argv: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    target = tmp_path / "out" / "tiny.tflite"
    done = run_command(
        "convert", converted / "tiny.keras", "--to", "float32", "-o", target,
        environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 4
    assert "TensorFlow crashed while converting (SIGSEGV)" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(target.parent.iterdir()) == []


def test_int8_needs_a_directory(converted: Path) -> None:
    """Without --calibrate, and with a kind that does not exist, nothing is started."""
    done = run_command("convert", converted / "tiny.keras")
    assert done.returncode == 1
    assert "--to int8 needs --calibrate DIR" in done.stderr
    assert run_command("convert", converted / "tiny.keras", "--to", "int4").returncode == 2


def test_unwritable_target_is_one_sentence(converted: Path, tmp_path: Path) -> None:
    """A file where the directory should be: exit 1, the path and what to check."""
    (tmp_path / "file").write_text("")
    done = run_command(
        "convert", converted / "tiny.keras", "--to", "float32", "-o", tmp_path / "file" / "x.tflite"
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_calibration_reads_faces_as_the_device_does(pictures: Path) -> None:
    """Pictures come as (n, 48, 48, 1) in [0, 1], drawn over the whole tree, the same at every call."""
    examples = read_examples(pictures, (48, 48, 1), count=20)
    assert examples.shape == (20, 48, 48, 1)
    assert examples.dtype == np.float32
    assert 0 <= examples.min() < 0.2
    assert 0.8 < examples.max() <= 1
    np.testing.assert_array_equal(examples, read_examples(pictures, (48, 48, 1), count=20))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("nothing", "no picture in it"),
        ("one", "1 example"),
        ("constant", "without any difference"),
        ("broken", "none of 2 files"),
        ("no directory", "no such directory"),
    ],
)
def test_poor_calibration_is_refused(content: str, sentence: str, tmp_path: Path) -> None:
    """Zero, one, constant or unreadable examples: an error that names the directory."""
    import cv2

    directory = tmp_path / "cal"
    if content != "no directory":
        directory.mkdir()
    for number in range({"one": 1, "constant": 3, "broken": 2}.get(content, 0)):
        path = directory / f"{number}.png"
        if content == "broken":
            path.write_bytes(b"no picture")
        else:
            cv2.imwrite(str(path), trees.face(1) if content == "one" else np.full((48, 48), 7, np.uint8))
    with pytest.raises(CalibrationError, match=sentence) as caught:
        read_examples(directory, (48, 48, 1), count=10)
    assert "cal" in str(caught.value)


def test_sound_needs_the_card_s_features(tmp_path: Path) -> None:
    """Without a card nothing says how sound becomes numbers, so it is refused; wrong sizes too."""
    data = trees.write_speech(tmp_path, actors=())
    with pytest.raises(CalibrationError, match="no card beside it says how"):
        read_examples(data, (40, 1), count=5)
    features = {"kind": "mfcc_mean", "mean": [0.0] * 40, "std": [1.0] * 40}
    with pytest.raises(EdgeError, match="match them"):
        read_examples(data, (39, 1), count=5, features=features)
