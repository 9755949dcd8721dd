"""The shipped models are what their cards say, on this machine's CPU, and the README says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edge.inference.backends import load_model
from edge.inference.card import Card, artifacts_directory, load_card
from edge.inference.classifier import open_classifier
from edge.inference.weights import sha256
from edge.values import Float32
from models.cards import made_input
from models.training.fusion_pairs import CONDITIONS

NAMES = ("face-cnn", "voice-lstm", "report-face", "report-voice")
# What the daemon runs beside face and voice, with the sets of its figures.
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
FACES_SPOILT = {
    "fer2013-private-crop-jitter", "fer2013-private-bad-webcam", "ckplus48-six-crop-jitter",
    "jaffe-detected-crop-jitter",
}  # fmt: skip
CORRUPTED = {
    "face-cnn": FACES_SPOILT,
    "report-face": FACES_SPOILT,
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


def answers(name: str, variant: str, count: int = 40) -> Float32:
    """Return what a variant says (n, 7) to inputs made for the purpose."""
    card = load(name)
    model = load_model(ARTIFACTS / card.files[variant].file)
    inputs = (made_input(card.input.shape, card.input.range, seed=seed) for seed in range(count))
    return np.concatenate([model.run(values)[0] for values in inputs])


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_every_file_is_the_one_in_the_card(name: str) -> None:
    """Keras, int8 and float16 are there with hash and size, and nothing lies there that no card lists."""
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
    """Hash, shapes, scales and golden vector hold, and an answer is a distribution."""
    card = load(name)
    classifier = open_classifier(name, task=card.task, variant=variant)
    p = classifier.classify(made_input(card.input.shape, card.input.range))
    assert p.shape == (len(card.labels),)
    assert p.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("name", "mean"), MEAN_DIFFERENCE)
def test_int8_says_what_float16_says(name: str, mean: float) -> None:
    """Quantization moves a probability by little on average, and the answers are not all one."""
    int8, float16 = answers(name, "int8"), answers(name, "float16")
    assert np.abs(int8 - float16).mean() < mean
    assert np.ptp(float16, axis=0).max() > 0.05


@pytest.mark.parametrize("name", [*NAMES, *SMALL])
def test_int8_is_int8_and_has_no_loop(name: str) -> None:
    """Integers in and out, and no operation that an accelerator cannot take."""
    from ai_edge_litert.interpreter import Interpreter

    path = ARTIFACTS / load(name).files["int8"].file
    model = load_model(path)
    assert model.inputs[0].dtype == model.outputs[0].dtype == np.int8
    operations = {operation["op_name"] for operation in Interpreter(model_path=str(path))._get_ops_details()}
    assert not operations & {"WHILE", "UNPACK", "QUANTIZE", "DEQUANTIZE"}


@pytest.mark.parametrize("name", FOLDS)
def test_fold_models_pass_their_own_checks(name: str) -> None:
    """Hash, shapes, scales and golden vector of every fold hold, and it names the people it never met."""
    card = load_card(name, directory=ARTIFACTS / "folds")
    assert card.name == name
    assert card.held_out
    open_classifier(name, task=card.task, directory=ARTIFACTS / "folds")


def test_folds_hold_each_person_out_once() -> None:
    """Five folds a shipped model, in which nobody is left out twice."""
    for shipped in ("face-cnn", "voice-lstm", "eye-state", "mouth-state"):
        folds = [name for name in FOLDS if name.startswith(f"{shipped}-fold")]
        people = [
            person for name in folds for person in load_card(name, directory=ARTIFACTS / "folds").held_out
        ]
        assert len(folds) == 5
        assert len(people) == len(set(people))


def test_shipped_models_are_small() -> None:
    """The limits of the device: 2 MB a face model, 500 kB a voice model, 150 kB what reads eyes or mouths."""
    assert load("face-cnn").files["int8"].bytes < 2_000_000
    assert load("voice-lstm").files["int8"].bytes < 500_000
    assert load("eye-state").files["int8"].bytes < 150_000
    assert load("mouth-state").files["int8"].bytes < 150_000


def test_report_face_is_the_report_s_network() -> None:
    """2,470,919 weights: three convolutions with pooling, 512, 7."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    model = keras.models.load_model(ARTIFACTS / "report-face.keras", compile=False)
    assert model.count_params() == 2_470_919


def test_report_voice_is_the_report_s_network() -> None:
    """LSTM(123) with the report's linear activation, 64, 32, 7."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    model = keras.models.load_model(ARTIFACTS / "report-voice.keras", compile=False)
    lstm = model.get_layer("lstm")
    assert (lstm.units, lstm.activation.__name__) == (123, "linear")
    units = [layer.units for layer in model.layers if type(layer).__name__ == "Dense"]
    assert units == [64, 32, 7]


@pytest.mark.parametrize("name", SMALL)
def test_card_of_a_small_model_states_the_same(name: str) -> None:
    """Use and licence of every data set, and figures of the int8 file on every set that it is measured on."""
    card = load(name)
    assert card.data
    assert all(source.use and source.licence for source in card.data)
    assert set(card.metrics) == SMALL[name]
    for variants in card.metrics.values():
        assert variants["int8"]["n"] > 0
        low, high = variants["int8"]["interval_95_people"]
        assert low <= variants["int8"]["accuracy"] <= high


@pytest.mark.parametrize("name", NAMES)
def test_card_states_data_licences_and_figures(name: str) -> None:
    """Every data set has a use and a licence; there are figures on every held-out set, clean and spoilt."""
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
    """On every set the int8 accuracy is within 1.5 points of float16, as the card states them."""
    clean = {key: figures for key, figures in load(name).metrics.items() if "float16" in figures}
    for name_of_set, figures in clean.items():
        assert abs(figures["int8"]["accuracy"] - figures["float16"]["accuracy"]) <= 0.015, name_of_set


@pytest.mark.parametrize("name", NAMES)
def test_readme_states_the_card_s_figures(name: str) -> None:
    """models/README.md has the line of every set and variant, number for number."""
    readme = re.sub(r" +", " ", (Path(__file__).parents[2] / "models" / "README.md").read_text())
    for data_set, variants in load(name).metrics.items():
        for variant, figures in variants.items():
            low, high = (100 * bound for bound in figures["interval_95"])
            line = (
                f"{data_set} {variant} {figures['n']} {100 * figures['accuracy']:.1f} {low:.1f}-{high:.1f} "
                f"{100 * figures['uar']:.1f} {100 * figures['macro_f1']:.1f} {figures['ece']:.3f}"
            )
            assert line in readme, line


def test_readme_states_what_fusion_reaches() -> None:
    """models/README.md has the shipped network's accuracy in every condition, and the first ECE."""
    readme = (Path(__file__).parents[2] / "models" / "README.md").read_text()
    stated = [
        [float(number) for number in re.findall(r"\d+\.\d+", line)]
        for line in readme.splitlines()
        if line.startswith("  network ")
    ]
    stated_ece = re.search(r"^  network, ECE +(.*)$", readme, re.MULTILINE)
    metrics = load("multimodal").metrics
    found = [
        [100 * metrics[f"{data_set}, {condition.name}"]["int8"]["accuracy"] for condition in CONDITIONS]
        for data_set in ("fer2013 PrivateTest-ferplus", "ckplus48")
    ]
    # The card has rounded once already.
    assert stated == [pytest.approx(row, abs=0.051) for row in found]
    first = [metrics[f"fer2013 PrivateTest-ferplus, {c.name}"]["int8"]["ece"] for c in CONDITIONS if c.agree]
    assert stated_ece is not None
    assert [float(number) for number in stated_ece[1].split()[:-1]] == pytest.approx(first, abs=0.00051)


def test_first_readme_rounds_the_cards() -> None:
    """README.md has whole percents of what the cards say, in its order."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    found = re.search(r"On unseen people the face model has(.*?)Another model replaces", readme, re.DOTALL)
    assert found is not None
    fused = "fer2013 PrivateTest-ferplus, "
    wanted = {
        "face-cnn": ("fer2013-private", "fer2013-private-ferplus", "ckplus48-six", "jaffe-detected"),
        "voice-lstm": ("tess-folds", "ravdess-folds", "nemo-folds"),
        "multimodal": (f"{fused}both clean", f"{fused}no voice", f"{fused}no face"),
        "eye-state": ("cew", "mrl"),
    }
    figures = [
        round(100 * load(name).metrics[data_set]["int8"]["accuracy"])
        for name, data_sets in wanted.items()
        for data_set in data_sets
    ]
    assert [int(number) for number in re.findall(r"(\d+) %", found[1])] == figures


def test_cards_hold_no_path_of_a_machine() -> None:
    """Cards name files, never directories."""
    for path in ARTIFACTS.glob("*.json"):
        for file in json.loads(path.read_text())["files"].values():
            assert "/" not in file["file"]
