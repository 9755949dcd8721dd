"""The shipped models match their cards on the CPU of this machine, and so do the READMEs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.inference.backends import load_model
from edge.inference.card import Card, artifacts_directory, load_card
from edge.inference.classifier import open_classifier
from edge.inference.weights import sha256
from edge.values import Float32
from models.cards import made_input
from models.readme import BLOCK, main, updated
from models.training.fusion_pairs import CONDITIONS

NAMES = ("face-cnn", "voice-lstm", "report-face", "report-voice")
# The other models, with the data sets of their figures.
SMALL = {
    "video-lstm": {"ckplus-sequences", "jaffe-ramps"},
    "visual": {"ckplus-sequences", "jaffe-ramps"},
    "eye-state": {"cew", "mrl"},
    "mouth-state": {"yawn", "ckplus"},
    "multimodal": {
        f"{name}, {condition.name}"
        for name in ("fer2013 PrivateTest-ferplus", "fer2013 PrivateTest", "ckplus48")
        for condition in CONDITIONS
    },
}
ARTIFACTS = artifacts_directory()
CLEAN = {
    "face-cnn": {"fer2013-private", "fer2013-private-ferplus", "ckplus48-six", "jaffe-detected"},
    "voice-lstm": {"tess-folds", "ravdess-folds", "nemo-folds"},
    "report-face": {"fer2013-private", "fer2013-private-ferplus", "ckplus48-six", "jaffe-detected"},
    "report-voice": {"tess-unseen", "ravdess-unseen", "nemo-unseen"},
}
FACES_CORRUPTED = {
    "fer2013-private-crop-jitter", "fer2013-private-bad-webcam", "ckplus48-six-crop-jitter",
    "jaffe-detected-crop-jitter",
}  # fmt: skip
CORRUPTED = {
    "face-cnn": FACES_CORRUPTED,
    "report-face": FACES_CORRUPTED,
    "voice-lstm": {
        f"{name}-{how}" for name in CLEAN["voice-lstm"] for how in ("babble-10db", "telephone")
    },
    "report-voice": {
        f"{name}-{how}" for name in CLEAN["report-voice"] for how in ("babble-10db", "telephone")
    },
}  # fmt: skip


MEAN_DIFFERENCE = [("face-cnn", 0.01), ("voice-lstm", 0.02), ("report-face", 0.01), ("report-voice", 0.03)]
FOLDS = sorted(path.stem for path in (ARTIFACTS / "folds").glob("*.json"))


def load(name: str) -> Card:
    """Read a shipped card."""
    return load_card(name)


def predictions(name: str, variant: str, count: int = 40) -> Float32:
    """Return the predictions (n, 7) of a variant for synthetic inputs."""
    card = load(name)
    model = load_model(ARTIFACTS / card.files[variant].file)
    inputs = (made_input(card.input.shape, card.input.range, seed=seed) for seed in range(count))
    return np.concatenate([model.run(values)[0] for values in inputs])


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_files_match_the_card(name: str) -> None:
    """Keras, int8 and float16 exist with hash and size of the card, and there are no other files."""
    card = load(name)
    assert set(card.files) == {"keras", "int8", "float16"}
    for file in card.files.values():
        assert sha256(ARTIFACTS / file.file) == file.sha256
        assert (ARTIFACTS / file.file).stat().st_size == file.bytes
    listed = {file.file for file in card.files.values()} | {f"{name}.json"}
    assert {path.name for path in ARTIFACTS.glob(f"{name}.*")} == listed


@pytest.mark.parametrize("variant", ["int8", "float16"])
@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_variants_pass_their_own_checks(name: str, variant: str) -> None:
    """Hash, shapes, scales and golden vector are checked, and the probabilities sum to 1."""
    card = load(name)
    classifier = open_classifier(name, task=card.task, variant=variant)
    p = classifier.classify(made_input(card.input.shape, card.input.range))
    assert p.shape == (len(card.labels),)
    assert p.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("name", "mean"), MEAN_DIFFERENCE)
def test_int8_agrees_with_float16(name: str, mean: float) -> None:
    """The mean difference of a probability is small, and the predictions depend on the input."""
    int8, float16 = predictions(name, "int8"), predictions(name, "float16")
    assert np.abs(int8 - float16).mean() < mean
    assert np.ptp(float16, axis=0).max() > 0.05


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_int8_has_integer_tensors_and_no_loop(name: str) -> None:
    """Input and output are int8, and there is no operation that accelerators do not support."""
    from ai_edge_litert.interpreter import Interpreter

    path = ARTIFACTS / load(name).files["int8"].file
    model = load_model(path)
    assert model.inputs[0].dtype == model.outputs[0].dtype == np.int8
    operations = {operation["op_name"] for operation in Interpreter(model_path=str(path))._get_ops_details()}
    assert not operations & {"WHILE", "UNPACK", "QUANTIZE", "DEQUANTIZE"}


@pytest.mark.parametrize("name", FOLDS)
def test_fold_models_pass_their_own_checks(name: str) -> None:
    """Hash, shapes, scales and golden vector of every fold are checked, and it has held-out people."""
    card = load_card(name, directory=ARTIFACTS / "folds")
    assert card.name == name
    assert card.held_out
    open_classifier(name, task=card.task, directory=ARTIFACTS / "folds")


def test_folds_hold_each_person_out_once() -> None:
    """Each model has five folds, and no person is held out twice."""
    for shipped in ("face-cnn", "voice-lstm", "eye-state", "mouth-state"):
        folds = [name for name in FOLDS if name.startswith(f"{shipped}-fold")]
        people = [
            person for name in folds for person in load_card(name, directory=ARTIFACTS / "folds").held_out
        ]
        assert len(folds) == 5
        assert len(people) == len(set(people))


def test_shipped_models_are_small() -> None:
    """The limits are 2 MB for a face model, 500 kB for a voice model, 150 kB for eyes and mouths."""
    assert load("face-cnn").files["int8"].bytes < 2_000_000
    assert load("voice-lstm").files["int8"].bytes < 500_000
    assert load("eye-state").files["int8"].bytes < 150_000
    assert load("mouth-state").files["int8"].bytes < 150_000


def test_report_face_is_the_report_s_network() -> None:
    """It has 2,470,919 weights: three convolutions with pooling, 512, 7."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    model = keras.models.load_model(ARTIFACTS / "report-face.keras", compile=False)
    assert model.count_params() == 2_470_919


def test_report_voice_is_the_report_s_network() -> None:
    """It has LSTM(123) with the report's linear activation, 64, 32, 7."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    model = keras.models.load_model(ARTIFACTS / "report-voice.keras", compile=False)
    lstm = model.get_layer("lstm")
    assert (lstm.units, lstm.activation.__name__) == (123, "linear")
    units = [layer.units for layer in model.layers if type(layer).__name__ == "Dense"]
    assert units == [64, 32, 7]


@pytest.mark.parametrize("name", SMALL)
def test_card_of_another_model_has_data_and_figures(name: str) -> None:
    """It has use and licence of every data set, and figures of the int8 file on every test set."""
    card = load(name)
    assert card.data
    assert all(source.use and source.licence for source in card.data)
    assert set(card.metrics) == SMALL[name]
    for variants in card.metrics.values():
        assert variants["int8"]["n"] > 0
        low, high = variants["int8"]["interval_95_people"]
        assert low <= variants["int8"]["accuracy"] <= high


@pytest.mark.parametrize("name", NAMES)
def test_card_has_data_licences_and_figures(name: str) -> None:
    """Every data set has a use and a licence; every held-out set has figures, clean and corrupted."""
    card = load(name)
    assert card.data
    assert all(source.use and source.licence for source in card.data)
    assert set(card.metrics) == CLEAN[name] | CORRUPTED[name]
    for set_name, variants in card.metrics.items():
        assert set(variants) == ({"int8"} if set_name in CORRUPTED[name] else {"int8", "float16"})
        for figures in variants.values():
            low, high = figures["interval_95"]
            assert low <= figures["accuracy"] <= high


@pytest.mark.parametrize("name", NAMES)
def test_int8_costs_at_most_one_and_a_half_points(name: str) -> None:
    """On every set in the card the int8 accuracy is within 1.5 points of float16."""
    clean = {key: figures for key, figures in load(name).metrics.items() if "float16" in figures}
    for name_of_set, figures in clean.items():
        assert abs(figures["int8"]["accuracy"] - figures["float16"]["accuracy"]) <= 0.015, name_of_set


@pytest.mark.parametrize(("file", "tables"), [("README.md", 1), ("models/README.md", 3)])
def test_generated_tables_are_up_to_date(file: str, tables: int) -> None:
    """`python -m models.readme FILE` would not change the file."""
    text = (Path(__file__).parents[2] / file).read_text(encoding="utf-8")
    assert len(BLOCK.findall(text)) == tables
    assert updated(text) == text, f"run python -m models.readme {file}"


def test_outdated_table_is_found_and_updated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` is exit 1 and changes nothing; without it the table is replaced and the rest stays."""
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- generated: fusion -->\nold\n<!-- /generated -->\nafter\n")
    assert main([str(file), "--check"]) == 1
    assert "old" in file.read_text()
    assert main([str(file)]) == 0
    text = file.read_text()
    assert text.startswith("before\n<!-- generated: fusion -->\n| condition |")
    assert text.endswith("<!-- /generated -->\nafter\n")
    assert main([str(file), "--check"]) == 0
    assert f"wrote {file}" in capsys.readouterr().err


def test_unknown_table_is_an_error() -> None:
    """The error lists the tables."""
    with pytest.raises(EdgeError, match="generated: speed: unknown table; use one of models, "):
        updated("<!-- generated: speed -->\n<!-- /generated -->\n")


def test_cards_have_no_directories() -> None:
    """Cards have file names without directories."""
    for path in ARTIFACTS.glob("*.json"):
        for file in json.loads(path.read_text())["files"].values():
            assert "/" not in file["file"]
