"""`emotion-convert verify` checks a file against its card on every available backend."""

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
from edge.inference.backends import load_model
from edge.inference.card import artifacts_directory
from edge.inference.tensors import Model

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
    """Make `backend` run the file at `path` on the CPU, or be unavailable; return the files that it loads."""
    loaded: list[str] = []

    def load(wanted: Path, **given: Any) -> Model:
        if given.get("backend") != backend:
            return load_model(wanted, **given)
        loaded.append(wanted.name)
        if path is None:
            raise DeviceError("no such thing; use cpu", reason="no_permission")
        return load_model(path)

    monkeypatch.setattr(converter.verify, "load_model", load)
    return loaded


def test_every_backend_is_listed(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The CPU agrees exactly; an unavailable backend has a code and a message instead of figures."""
    assert main(["verify", str(voice), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [entry["backend"] for entry in result["backends"]] == ["cpu", "gpu", "edgetpu"]
    available, unavailable = (
        {"backend", "present", "file", "golden_difference", "max_difference"},
        {"reason", "message"},
    )
    for entry in result["backends"]:
        assert set(entry) == (available if entry["present"] else {"backend", "present"} | unavailable)
    assert result["backends"][0]["max_difference"] == 0
    assert result["reference"] == "float16"


def test_unavailable_backend_has_the_reason_of_its_error(
    voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code and message are those of the error that loading raised."""
    put_backend(monkeypatch, "edgetpu", None)
    assert verify(voice)["backends"][2] == {
        "backend": "edgetpu",
        "present": False,
        "reason": "no_permission",
        "message": "no such thing; use cpu",
    }


def test_gpu_runs_the_float_file(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU runs the float16 file, compared with the golden output and the CPU outputs of that file."""
    loaded = put_backend(monkeypatch, "gpu", voice.with_name("voice-lstm.float16.tflite"))
    entry = verify(voice)["backends"][1]
    assert loaded == [entry["file"]] == ["voice-lstm.float16.tflite"]
    assert entry["golden_difference"] < 1e-5
    assert entry["max_difference"] == 0


def test_backend_with_other_outputs_gives_exit_code_4(
    voice: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names a backend with other outputs, the difference and the allowed difference."""
    put_backend(monkeypatch, "gpu", ARTIFACTS / "folds" / "voice-lstm-fold3.int8.tflite")
    assert main(["verify", str(voice)]) == 4
    error = capsys.readouterr().err
    assert "voice-lstm.float16.tflite on gpu: the golden vector differs by 0." in error
    assert "0.05 is allowed" in error


def test_backend_with_a_right_golden_vector_only_is_refused(
    voice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made inputs are compared too, because a golden vector can agree by chance."""
    card = json.loads(voice.with_name("voice-lstm.json").read_text())
    other = ARTIFACTS / "folds" / "voice-lstm-fold0.int8.tflite"
    fold = json.loads((ARTIFACTS / "folds" / "voice-lstm-fold0.json").read_text())
    assert card["golden"]["input"] == fold["golden"]["input"]
    card["golden"]["output"]["float16"] = fold["golden"]["output"]["int8"]
    voice.with_name("voice-lstm.json").write_text(json.dumps(card))
    put_backend(monkeypatch, "gpu", other)
    with pytest.raises(ModelError, match=r"on gpu: a made input differs by"):
        verify(voice)


def test_edge_tpu_runs_the_compiled_file(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Edge TPU runs the compiled file of the card, compared with int8 on the CPU."""
    compiled = voice.with_name("voice-lstm.int8_edgetpu.tflite")
    compiled.write_bytes(voice.read_bytes())
    card = json.loads(voice.with_name("voice-lstm.json").read_text())
    card["files"]["edgetpu"] = card["files"]["int8"] | {"file": compiled.name}
    card["golden"]["output"]["edgetpu"] = card["golden"]["output"]["int8"]
    voice.with_name("voice-lstm.json").write_text(json.dumps(card))
    loaded = put_backend(monkeypatch, "edgetpu", voice)
    entry = verify(voice)["backends"][2]
    assert loaded == [entry["file"]] == [compiled.name]
    assert entry["max_difference"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no file", "no such model file"),
        ("no card", "no such model card"),
        ("empty", "SHA-256 is"),
        ("not in the card", "lists no such file"),
        ("card of text", "not a model card"),
    ],
)
def test_unverifiable_file_gives_exit_code_4(
    content: str, message: str, voice: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error on stderr names the file, and stdout is empty."""
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
    assert message in err
    assert "voice-lstm" in err


def test_pipe_gets_plain_lines(voice: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe gets one line per value and one per backend."""
    assert main(["verify", str(voice), "--json"]) == 0
    agreement = json.loads(capsys.readouterr().out)["agreement"]
    assert main(["verify", str(voice)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "voice-lstm int8: passed"
    assert f"  agreement          {agreement}" in lines
    assert any(line.split()[:2] == ["cpu", "voice-lstm.int8.tflite"] for line in lines)
