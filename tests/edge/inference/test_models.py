"""A configured model is found by name or by path; a user's own model needs two files and one key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.config import load_config
from edge.errors import ModelError
from edge.inference.card import Task, artifacts_directory, load_card
from edge.inference.models import find_card, open_model, open_optional_model
from edge.settings import Config, ModelSettings
from edge.sources.replay import clip_path
from tests.helpers import trees
from tests.helpers.commands import convert_here, run_edge, run_here

ARTIFACTS = artifacts_directory()


def copy_model(directory: Path, name: str, source: str = "report-face") -> Path:
    """Copy the card and the int8 file of a shipped model under another name; return the path of the card."""
    directory.mkdir(exist_ok=True)
    card = json.loads((ARTIFACTS / f"{source}.json").read_text(encoding="utf-8"))
    card["name"] = name
    card["files"] = {"int8": card["files"]["int8"]}
    shutil.copy(ARTIFACTS / card["files"]["int8"]["file"], directory)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(card), encoding="utf-8")
    return path


def config_of(**models: object) -> Config:
    """Return a config with these keys of `[models]`."""
    return Config(models=ModelSettings.model_validate(models))


def test_name_is_found_in_the_directory_first(tmp_path: Path) -> None:
    """A model of the directory hides the one of the package; any other name is found in the package."""
    own = copy_model(tmp_path, "face-cnn")
    settings = ModelSettings(directory=tmp_path)
    assert find_card(settings, "face") == own
    assert find_card(settings, "voice") == ARTIFACTS / "voice-lstm.json"
    assert find_card(ModelSettings(), "face") == ARTIFACTS / "face-cnn.json"


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("face", "face"),
        ("voice", "voice"),
        ("video", "video"),
        ("eyes", "eyes"),
        ("mouth", "mouth"),
        ("multimodal", "fusion"),
    ],
)
def test_one_rule_for_every_model(task: Task, key: str, tmp_path: Path) -> None:
    """Each key takes a name of the directory and the path of a card, with or without a directory."""
    shipped = find_card(ModelSettings(), task).stem
    path = copy_model(tmp_path / "own", "own", shipped)
    assert open_model(config_of(**{key: "own", "directory": path.parent}), task).card.name == "own"
    assert open_model(config_of(**{key: str(path)}), task).card.name == "own"
    assert open_model(config_of(**{key: str(path), "directory": tmp_path}), task).card.name == "own"


def test_network_of_the_face_is_found_like_the_others(tmp_path: Path) -> None:
    """The network of `fusion.visual` has a fixed name, which a directory may replace."""
    assert find_card(ModelSettings(directory=tmp_path), "visual") == ARTIFACTS / "visual.json"
    own = copy_model(tmp_path, "visual", "visual")
    assert find_card(ModelSettings(directory=tmp_path), "visual") == own


def test_none_opens_no_model() -> None:
    """`none` leaves a model out where the device can do without it; the emotion of a face needs one."""
    config = config_of(eyes="none", face="none")
    assert open_optional_model(config, "eyes") is None
    assert open_optional_model(config, "mouth") is not None
    with pytest.raises(ModelError, match=r"models\.face none: no none\.json in the package"):
        open_model(config, "face")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("nope", r"models\.face nope: no nope\.json in the package; `emotion-models list`"),
        ("/nowhere/own.json", r"models\.face /nowhere/own\.json: no such model card; check the path"),
        ("./own.int8.tflite", r"models\.face \./own\.int8\.tflite: not a model card; give the path of"),
        ("voice-lstm", r"models\.face voice-lstm: is a voice model; choose a face model"),
    ],
)
def test_wrong_model_is_refused(value: str, sentence: str) -> None:
    """The error names the key, its value and the remedy."""
    with pytest.raises(ModelError, match=sentence):
        open_model(config_of(face=value), "face")


def test_missing_directory_is_refused(tmp_path: Path) -> None:
    """A misspelled directory is an error; the models of the package do not replace it silently."""
    config = config_of(directory=tmp_path / "modles")
    with pytest.raises(ModelError, match=r"models\.directory .*/modles: no such directory"):
        open_model(config, "face")


def test_relative_path_starts_at_the_config_file(tmp_path: Path) -> None:
    """The path of a card is relative to the file that names it; a name stays a name."""
    (tmp_path / "edge.toml").write_text('[models]\nface = "own/lab.json"\nvoice = "lab.v2"\n')
    config = load_config(tmp_path / "edge.toml", environ={"EMOTION_EDGE__MODELS__EYES": "none"})
    assert config.models.face == str(tmp_path / "own/lab.json")
    assert config.models.voice == "lab.v2"
    assert config.models.eyes == "none"


def test_wrong_model_ends_a_command_with_code_4(tmp_path: Path) -> None:
    """`analyze` prints one sentence and exits with 4."""
    (tmp_path / "edge.toml").write_text('[models]\nface = "nope"\n')
    done = run_edge("analyze", "--json", "--config", tmp_path / "edge.toml", clip_path())
    assert done.returncode == 4
    assert "models.face nope: no nope.json in the package" in done.stderr
    assert "Traceback" not in done.stderr


# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_converted_model_needs_two_files_and_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, converted with a shipped card as the pattern, classifies the faces of a clip."""
    keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
    from converter.__main__ import main

    keras.utils.set_random_seed(3)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            layers.MaxPooling2D(8),
            layers.Flatten(),
            layers.Dense(7, activation="softmax"),
        ]
    )
    network.save(tmp_path / "lab.keras")
    convert_here(monkeypatch)
    words = ("--like", "report-face", "--calibrate", trees.write_fer2013(tmp_path / "data"))
    own = tmp_path / "own" / "lab.int8.tflite"
    done = run_here(main, "convert", tmp_path / "lab.keras", *words, "--calibrate-count", "20", "-o", own)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in own.parent.iterdir()) == ["lab.int8.tflite", "lab.json"]
    lines = []
    for keys in ('face = "own/lab.json"\n', 'face = "lab"\ndirectory = "own"\n'):
        (tmp_path / "edge.toml").write_text(f"[models]\n{keys}")
        arguments = ("--json", "--modality", "face", "--config", tmp_path / "edge.toml")
        done = run_edge("analyze", *arguments, clip_path())
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("models.video video-lstm: trained on the embeddings of face-cnn") == 1
        lines.append(json.loads(done.stdout))
    assert lines[0] == lines[1]
    model = open_model(load_config(tmp_path / "edge.toml", environ={}), "face")
    assert model.name == load_card("lab", directory=own.parent).identity("int8")
