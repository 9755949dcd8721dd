"""TFLite files give the outputs of the Keras model: every kind, every recurrent form, every source format."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from converter.jobs import Job, Stage
from edge.errors import ModelError
from edge.inference.backends import load_model
from edge.sources.media_files import read_audio
from edge.sources.replay import clip_path
from edge.values import Float32
from edge.voice.windows import clip_window

keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
tf = pytest.importorskip("tensorflow", reason="the [train] extra is not installed")
from keras import layers  # noqa: E402

from converter.conversion import convert_here  # noqa: E402
from models.recipes import report_networks as networks  # noqa: E402

# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # TensorFlow's own calibration still uses the interpreter that it calls deprecated.
    pytest.mark.filterwarnings(r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"),
]

# Largest and mean difference of softmax outputs that the converter guarantees for small networks.
MAX, MEAN = 0.1, 0.02


def network(shape: tuple[int, ...], *stack: Any, seed: int = 3) -> Any:
    """Return a model from `shape` to 7 with random weights, biases too."""
    model = keras.Sequential([keras.Input(shape), *stack, layers.Dense(7, activation="softmax")])
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.35, weight.shape) for weight in model.get_weights()])
    return model


def inputs_for(model: Any, count: int = 40) -> Float32:
    """Return random inputs (count, ...)."""
    shape = (count, *model.inputs[0].shape[1:])
    return np.random.default_rng(5).normal(0, 1, shape).astype(np.float32)


def converted(source: Path, kind: str, directory: Path, *, x: Float32 | None = None, **options: Any) -> Any:
    """Convert in this process, calibrated on `x` if given; return the loaded TFLite file."""
    directory.mkdir(parents=True, exist_ok=True)
    if x is not None:
        np.save(directory / "inputs.npy", x)
        options["calibrate"] = directory / "inputs.npy"
    target = directory / f"{source.stem}.{kind}.tflite"
    target.write_bytes(convert_here(Job(source, target, kind, **options), lambda _: None))
    return load_model(target)


def saved(model: Any, path: Path) -> Path:
    """Save a Keras model and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return path


def predict(model: Any, x: Float32) -> Float32:
    """Run a Keras model: (n, 7)."""
    return np.asarray(model(x, training=False))


def predict_tflite(model: Any, x: Float32) -> Float32:
    """Run inputs (n, ...) one by one: (n, 7)."""
    return np.stack([model.run(one[np.newaxis])[0][0] for one in x])


def operations(path: Path) -> set[str]:
    """Return the names of the operations in a TFLite file."""
    from ai_edge_litert.interpreter import Interpreter

    return {operation["op_name"] for operation in Interpreter(model_path=str(path))._get_ops_details()}


ACTIVATIONS = st.sampled_from(["linear", "relu", "tanh", "sigmoid", "relu6"])
CELLS = st.sampled_from([layers.LSTM, layers.GRU, layers.SimpleRNN])


Build = Callable[[], Any]


@st.composite
def small_cnns(draw: st.DrawFn) -> Build:
    """Draw a CNN: one or two convolutions of any width and activation, with either kind of pooling."""
    side, depth, seed = draw(st.integers(8, 16)), draw(st.sampled_from([1, 3])), draw(st.integers(0, 99))
    convolution = st.tuples(
        st.integers(1, 8), st.sampled_from([1, 3]), st.sampled_from(["same", "valid"]), ACTIVATIONS
    )
    convolutions = draw(st.lists(convolution, min_size=1, max_size=2))
    pool = draw(st.sampled_from([layers.MaxPooling2D, layers.AveragePooling2D]))
    end = draw(st.sampled_from([layers.Flatten, layers.GlobalAveragePooling2D]))

    def build() -> Any:
        stack = [
            layers.Conv2D(width, kernel, padding=padding, activation=activation)
            for width, kernel, padding, activation in convolutions
        ]
        return network((side, side, depth), *stack, pool(2), end(), seed=seed)

    return build


@st.composite
def small_recurrent_nets(draw: st.DrawFn) -> Build:
    """Draw one or two recurrent layers of any cell, width, activation, length and direction."""
    steps, features, seed = draw(st.integers(2, 10)), draw(st.integers(1, 4)), draw(st.integers(0, 99))
    layer = st.tuples(CELLS, st.integers(1, 6), ACTIVATIONS)
    first, last = draw(st.lists(layer, max_size=1)), draw(layer)
    both_ways = draw(st.booleans())

    def build() -> Any:
        stack = [
            cell(units, activation=activation, return_sequences=True) for cell, units, activation in first
        ]
        cell, units, activation = last
        end = cell(units, activation=activation)
        return network((steps, features), *stack, layers.Bidirectional(end) if both_ways else end, seed=seed)

    return build


# Without shrinking: a failing example is already small, and shrinking it costs minutes.
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(build=st.one_of(small_cnns(), small_recurrent_nets()))
def test_int8_of_any_small_network_is_close_to_float(
    build: Build, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Random layers, widths, activations and lengths give all-integer files with outputs close to Keras."""
    directory = tmp_path_factory.mktemp("any")
    model = build()
    x = inputs_for(model)
    int8 = converted(saved(model, directory / "any.keras"), "int8", directory / "int8", x=x)
    assert int8.inputs[0].dtype == int8.outputs[0].dtype == np.int8
    difference = np.abs(predict_tflite(int8, x) - predict(model, x))
    assert difference.max() <= MAX
    assert difference.mean() <= MEAN
    found = operations(directory / "int8" / "any.int8.tflite")
    assert not found & {"WHILE", "UNPACK", "DEQUANTIZE"}


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of one tanh LSTM over 10 steps."""
    return saved(network((10, 3), layers.LSTM(6)), tmp_path_factory.mktemp("lstm") / "lstm.keras")


@pytest.mark.parametrize(
    ("kind", "io", "dtype", "atol"),
    [
        ("float32", None, np.float32, 1e-5),
        ("float16", None, np.float32, 2e-3),
        ("dynamic", None, np.float32, 0.03),
        ("int8", "float", np.float32, 0.05),
        ("int16x8", None, np.int16, 0.01),
        ("int16x8", "float", np.float32, 0.01),
    ],
)
def test_kinds_agree_with_keras(
    kind: str, io: str | None, dtype: Any, atol: float, lstm: Path, tmp_path: Path
) -> None:
    """Every kind has the requested type at input and output, and is as close to Keras as its bits allow."""
    model = keras.models.load_model(lstm)
    x = inputs_for(model)
    file = converted(lstm, kind, tmp_path, x=x, io=io)
    assert file.inputs[0].dtype == file.outputs[0].dtype == dtype
    np.testing.assert_allclose(predict_tflite(file, x), predict(model, x), atol=atol)


@pytest.mark.parametrize(
    "build",
    [
        networks.report_face,
        partial(networks.report_face_rgb, 88),
        networks.report_voice,
        partial(networks.report_voice, activation="tanh"),
    ],
    ids=["CNN of 48 grey", "CNN of 88 RGB", "linear LSTM", "tanh LSTM"],
)
def test_networks_of_the_report_become_int8(build: Build, tmp_path: Path) -> None:
    """Each stays within the bounds and has no float operation and no loop."""
    model = build()
    x = np.random.default_rng(5).random((20, *model.inputs[0].shape[1:]), dtype=np.float32)
    file = converted(saved(model, tmp_path / "net.keras"), "int8", tmp_path / "out", x=x)
    difference = np.abs(predict_tflite(file, x) - predict(model, x))
    assert difference.max() <= MAX
    assert difference.mean() <= MEAN
    found = operations(tmp_path / "out" / "net.int8.tflite")
    assert not found & {"WHILE", "UNPACK", "DEQUANTIZE"}


def test_percentile_narrows_the_ranges(tmp_path: Path) -> None:
    """One outlier in the calibration set costs min-max ranges their resolution, percentile ranges none."""
    model = network((10, 10, 1), layers.Conv2D(4, 3, activation="relu"), layers.Flatten())
    source, x = saved(model, tmp_path / "net.keras"), inputs_for(model, 200)
    outlier = x.copy()
    outlier[0, 0, 0, 0] = 400
    scales, errors = {}, {}
    for ranges in ("minmax", "percentile"):
        file = converted(source, "int8", tmp_path / ranges, x=outlier, ranges=ranges)
        scales[ranges] = file.inputs[0].scale
        errors[ranges] = np.abs(predict_tflite(file, x[1:40]) - predict(model, x[1:40])).mean()
    assert scales["minmax"] > 1.5
    assert scales["percentile"] < 0.1
    assert errors["percentile"] < errors["minmax"] / 4


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_fused_lstm_is_one_operation(kind: str, tmp_path: Path) -> None:
    """Bidirectional layers and sequences use the fused kernel and agree with Keras."""
    stack = [layers.Bidirectional(layers.LSTM(5, return_sequences=True)), layers.LSTM(4, use_bias=False)]
    model = network((10, 3), *stack)
    x = inputs_for(model)
    file = converted(saved(model, tmp_path / "net.keras"), kind, tmp_path, x=x, recurrent="fused")
    found = operations(tmp_path / f"net.{kind}.tflite")
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in found
    assert not found & {"WHILE", "LOGISTIC", "TANH"}
    atol = 1e-5 if kind == "float32" else 0.05
    np.testing.assert_allclose(predict_tflite(file, x), predict(model, x), atol=atol)


def predict_steps(file: Any, window: Float32) -> list[Float32]:
    """Feed a window (steps, n) step by step, from zero states; return the result (7,) after each step."""
    states = [np.zeros(info.shape, np.float32) for info in file.inputs[1:]]
    results = []
    for step in window:
        result, *states = file.run(step[np.newaxis, np.newaxis], *states)
        results.append(result[0])
    return results


def test_steps_over_a_spoken_sentence_are_the_window(tmp_path: Path) -> None:
    """After 20 steps over a sentence, the single-step model has the result of the unrolled window."""
    frames = clip_window(read_audio(clip_path())).frames[::15][:20]
    window = np.asarray((frames - frames.mean(axis=0)) / (frames.std(axis=0) + 1e-3), np.float32)
    stack = [layers.LSTM(8, activation="linear", return_sequences=True), layers.GRU(6, return_sequences=True)]
    model = network(window.shape, *stack, layers.GlobalAveragePooling1D())
    source = saved(model, tmp_path / "voice.keras")
    (whole,) = predict_tflite(converted(source, "float32", tmp_path / "window"), window[np.newaxis])
    step = converted(source, "float32", tmp_path / "step", recurrent="step")
    results = predict_steps(step, window)
    np.testing.assert_allclose(results[-1], whole, atol=1e-4)
    assert np.abs(results[-1] - results[10]).max() > 1e-3  # the result depends on the input


def test_int8_step_keeps_its_states_in_integers(lstm: Path, tmp_path: Path) -> None:
    """Calibration runs over whole windows, so that the states have int8 ranges too."""
    model = keras.models.load_model(lstm)
    x = inputs_for(model)
    step = converted(lstm, "int8", tmp_path, x=x, recurrent="step")
    assert {info.dtype for info in (*step.inputs, *step.outputs)} == {np.dtype(np.int8)}
    results = np.stack([predict_steps(step, window)[-1] for window in x])
    np.testing.assert_allclose(results, predict(model, x), atol=0.08)


def test_running_mean_is_refused_in_integers(tmp_path: Path) -> None:
    """A step count exceeds every integer range, so that the conversion is refused."""
    model = network((10, 3), layers.LSTM(3, return_sequences=True), layers.GlobalAveragePooling1D())
    source = saved(model, tmp_path / "net.keras")
    with pytest.raises(ModelError, match="the step count of a running mean"):
        converted(source, "int8", tmp_path, x=inputs_for(model), recurrent="step")


def with_stale_keys(source: Path, target: Path) -> Path:
    """Write a .keras file as `tf_keras` would: with keys that Keras 3 does not know."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                text = content.decode().replace('"go_backwards"', '"time_major": false, "go_backwards"')
                assert "time_major" in text
                content = text.encode()
            new.writestr(name, content)
    return target


def test_files_of_tf_keras_are_read(lstm: Path, tmp_path: Path) -> None:
    """Keys in the file that Keras 3 refuses are removed, and the outputs do not change."""
    model = keras.models.load_model(lstm)
    old = with_stale_keys(lstm, tmp_path / "old.keras")
    with pytest.raises(ValueError, match="time_major"):
        keras.models.load_model(old)
    x = inputs_for(model, 3)
    file = converted(old, "float32", tmp_path)
    np.testing.assert_allclose(predict_tflite(file, x), predict(model, x), atol=1e-5)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_h5_is_read(lstm: Path, tmp_path: Path) -> None:
    """The older file format converts like the newer one."""
    model = keras.models.load_model(lstm)
    x = inputs_for(model, 3)
    file = converted(saved(model, tmp_path / "net.h5"), "float32", tmp_path)
    np.testing.assert_allclose(predict_tflite(file, x), predict(model, x), atol=1e-5)


def test_saved_model_is_converted_without_its_layers(tmp_path: Path) -> None:
    """A SavedModel of any batch size becomes one of batch 1, in integers too."""
    model = network((10, 10, 1), layers.Conv2D(4, 3, activation="relu"), layers.Flatten())
    model.export(tmp_path / "net", verbose=False)
    x = inputs_for(model)
    file = converted(tmp_path / "net", "int8", tmp_path / "out", x=x)
    assert file.inputs[0].shape == (1, 10, 10, 1)
    np.testing.assert_allclose(predict_tflite(file, x), predict(model, x), atol=0.05)


def test_loop_of_a_saved_model_is_refused_in_integers(lstm: Path, tmp_path: Path) -> None:
    """Calibrating a loop crashes TensorFlow, so that an error with a remedy comes first."""
    model = keras.models.load_model(lstm)
    one = [keras.InputSpec(shape=(1, *model.inputs[0].shape[1:]), dtype="float32")]
    model.export(tmp_path / "net", verbose=False, input_signature=one)
    x = inputs_for(model)
    with pytest.raises(ModelError, match=r"has a loop .*give the \.keras file"):
        converted(tmp_path / "net", "int8", tmp_path / "out", x=x)
    file = converted(tmp_path / "net", "float32", tmp_path / "float")
    np.testing.assert_allclose(predict_tflite(file, x), predict(model, x), atol=1e-4)
    with pytest.raises(ModelError, match="a SavedModel has no layers to rewrite"):
        converted(tmp_path / "net", "float32", tmp_path / "again", recurrent="unroll")


def test_loop_over_an_open_batch_is_refused(lstm: Path, tmp_path: Path) -> None:
    """TFLite does not support it even in floats; the error explains how to export the model."""
    keras.models.load_model(lstm).export(tmp_path / "net", verbose=False)
    with pytest.raises(ModelError, match=r"loop over a batch of any size.*a batch of 1"):
        converted(tmp_path / "net", "float32", tmp_path / "out")


def test_stages_only_go_forward(lstm: Path, tmp_path: Path) -> None:
    """The fraction that is done grows from stage to stage, and every stage has a text."""
    x = tmp_path / "inputs.npy"
    np.save(x, inputs_for(keras.models.load_model(lstm)))
    stages: list[Stage] = []
    convert_here(Job(lstm, tmp_path / "out.tflite", "int8", calibrate=x), stages.append)
    done = [stage.done for stage in stages]
    assert done == sorted(done)
    assert {"reading the model", "recurrent layers: unrolled, 10 steps", "calibrating with 40 examples"} <= {
        stage.text for stage in stages
    }
