"""`emotion-convert verify` holds a file against its card on every backend that is here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import converter.verify
from converter.__main__ import main
from converter.verify import verify
from edge.errors import DeviceError, ModelError
from edge.inference.backends import Model, load_model
from edge.inference.card import artifacts_directory

# ai-edge-litert's Delegate fails in __del__ when its library cannot be opened.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <function Delegate.__del__")

ARTIFACTS = artifacts_directory()


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    """Copy of voice-lstm with its float16 file and its card; returns the int8 file."""
    for name in ("voice-lstm.int8.tflite", "voice-lstm.float16.tflite", "voice-lstm.json"):
        shutil.copy(ARTIFACTS / name, tmp_path / name)
    return tmp_path / "voice-lstm.int8.tflite"


def put_backend(monkeypatch: pytest.MonkeyPatch, backend: str, path: Path | None) -> list[str]:
    """Let `backend` run the file at `path` on the CPU, or be absent; return what it is asked for."""
    asked: list[str] = []

    def load(wanted: Path, **given: Any) -> Model:
        if given.get("backend") != backend:
            return load_model(wanted, **given)
        asked.append(wanted.name)
        if path is None:
            raise DeviceError("no such thing; use cpu", reason="no_permission")
        return load_model(path)

    monkeypatch.setattr(converter.verify, "load_model", load)
    return asked


def test_every_backend_is_listed(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The CPU is good to the last step; one that is not here has a code and a sentence instead of figures."""
    assert main(["verify", str(voice), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["backend"] for entry in result["backends"]] == ["cpu", "gpu", "edgetpu"]
    here, away = {"backend", "present", "file", "golden_difference", "max_difference"}, {"reason", "message"}
    for entry in result["backends"]:
        assert set(entry) == (here if entry["present"] else {"backend", "present"} | away)
    assert result["backends"][0]["max_difference"] == 0
    assert result["reference"] == "float16"


def test_absent_backend_has_the_device_s_reason(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code and sentence are those of the error that opening it raised."""
    put_backend(monkeypatch, "edgetpu", None)
    assert verify(voice)["backends"][2] == {
        "backend": "edgetpu",
        "present": False,
        "reason": "no_permission",
        "message": "no such thing; use cpu",
    }


def test_gpu_runs_the_float_file(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is asked for the float16 file, held against that file's golden output and its CPU answers."""
    asked = put_backend(monkeypatch, "gpu", voice.with_name("voice-lstm.float16.tflite"))
    entry = verify(voice)["backends"][1]
    assert asked == [entry["file"]] == ["voice-lstm.float16.tflite"]
    assert entry["golden_difference"] < 1e-5
    assert entry["max_difference"] == 0


def test_backend_that_answers_otherwise_is_exit_code_4(
    voice: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backend that computes another model's answers is named, with the difference and what is allowed."""
    put_backend(monkeypatch, "gpu", ARTIFACTS / "folds" / "voice-lstm-fold3.int8.tflite")
    assert main(["verify", str(voice)]) == 4
    error = capsys.readouterr().err
    assert "voice-lstm.float16.tflite on gpu: the golden vector differs by 0." in error
    assert "0.05 is allowed" in error


def test_backend_that_is_wrong_elsewhere_is_found(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A golden vector that happens to agree is not enough: made inputs are run as well."""
    card = json.loads(voice.with_name("voice-lstm.json").read_text())
    other = ARTIFACTS / "folds" / "voice-lstm-fold0.int8.tflite"
    fold = json.loads((ARTIFACTS / "folds" / "voice-lstm-fold0.json").read_text())
    assert card["golden"]["input"] == fold["golden"]["input"]
    card["golden"]["output"]["float16"] = fold["golden"]["output"]["int8"]
    voice.with_name("voice-lstm.json").write_text(json.dumps(card))
    put_backend(monkeypatch, "gpu", other)
    with pytest.raises(ModelError, match=r"on gpu: a made input differs by"):
        verify(voice)


def test_compiled_file_is_what_the_edge_tpu_runs(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a compiled file in the card, the Edge TPU runs that one, held against int8 on the CPU."""
    compiled = voice.with_name("voice-lstm.int8_edgetpu.tflite")
    compiled.write_bytes(voice.read_bytes())
    card = json.loads(voice.with_name("voice-lstm.json").read_text())
    card["files"]["edgetpu"] = card["files"]["int8"] | {"file": compiled.name}
    card["golden"]["output"]["edgetpu"] = card["golden"]["output"]["int8"]
    voice.with_name("voice-lstm.json").write_text(json.dumps(card))
    asked = put_backend(monkeypatch, "edgetpu", voice)
    entry = verify(voice)["backends"][2]
    assert asked == [entry["file"]] == [compiled.name]
    assert entry["max_difference"] == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no file", "no such model file"),
        ("no card", "no such model card"),
        ("empty", "SHA-256 is"),
        ("not in the card", "lists no such file"),
        ("card of text", "not a model card"),
    ],
)
def test_what_cannot_be_verified_is_exit_code_4(
    content: str, sentence: str, voice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence on stderr that names the file, nothing on stdout."""
    match content:
        case "no file":
            voice.unlink()
        case "no card":
            voice.with_name("voice-lstm.json").unlink()
        case "empty":
            voice.write_bytes(b"")
        case "not in the card":
            voice = voice.rename(voice.with_name("voice-lstm.other.tflite"))
        case "card of text":
            voice.with_name("voice-lstm.json").write_text("text")
    assert main(["verify", str(voice), "--json"]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert "voice-lstm" in err


def test_pipe_gets_plain_lines(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a fact and one a backend."""
    assert main(["verify", str(voice), "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"]
    assert main(["verify", str(voice)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "voice-lstm int8: good"
    assert f"  agreement          {agreement}" in lines
    assert any(line.split()[:2] == ["cpu", "voice-lstm.int8.tflite"] for line in lines)
