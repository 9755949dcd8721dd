"""`lint --target edgetpu` compiles if Coral's compiler is on PATH; a script replaces the compiler here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from converter.__main__ import main
from converter.edgetpu import read_log
from converter.lint import lint
from edge.errors import ModelError
from edge.inference.card import artifacts_directory, load_card
from edge.inference.weights import sha256

LOG = """Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 812 ms.

Input model: {source}
Input size: 2.39MiB
Output model: {target}
Output size: 2.42MiB
On-chip memory used for caching model parameters: 2.37MiB
On-chip memory remaining for caching model parameters: 5.27MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 10
Operation log: {target}.log

Operator                       Count      Status

CONV_2D                        3          Mapped to Edge TPU
MAX_POOL_2D                    3          Mapped to Edge TPU
RESHAPE                        1          Mapped to Edge TPU
FULLY_CONNECTED                2          Mapped to Edge TPU
SOFTMAX                        1          {softmax}
Compilation child process completed within timeout period.
Compilation succeeded!
"""
FALLBACK = "Operation is otherwise supported, but not mapped due to some unspecified limitation"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Copy of report-face's int8 file with its card."""
    for name in ("report-face.int8.tflite", "report-face.json"):
        shutil.copy(artifacts_directory() / name, tmp_path / name)
    return tmp_path / "report-face.int8.tflite"


def put_compiler(monkeypatch: pytest.MonkeyPatch, directory: Path, body: str) -> None:
    """Put a script edgetpu_compiler first on PATH; `body` may use `out` and `source`."""
    directory.mkdir()
    script = directory / "edgetpu_compiler"
    head = "import pathlib, sys\nout, source = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])\n"
    script.write_text(f"#!{sys.executable}\n{head}{body}", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")


def successful(softmax: str) -> str:
    """Return the body of a script that succeeds."""
    log = LOG.format(source="in.tflite", target="out.tflite", softmax=softmax)
    return (
        "assert sys.argv[1:3] == ['--show_operations', '--out_dir'], sys.argv\n"
        "(out / f'{source.stem}_edgetpu.tflite').write_bytes(source.read_bytes() + b'compiled')\n"
        f"print({log!r})\n"
    )


def test_compiled_file_is_written_and_listed_in_the_card(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file appears when it is complete; the card has its hash and the golden output of the int8 file."""
    put_compiler(monkeypatch, tmp_path / "bin", successful("Mapped to Edge TPU"))
    assert main(["lint", str(source), "--target", "edgetpu", "--json"]) == 0
    compiled = json.loads(capsys.readouterr().out)["compiled"]
    target = tmp_path / "report-face.int8_edgetpu.tflite"
    assert target.read_bytes().endswith(b"compiled")
    assert compiled["file"] == target.name
    assert (compiled["version"], compiled["subgraphs"], compiled["on_chip"]) == (
        "16.0.384591198",
        1,
        "2.37MiB",
    )
    assert (compiled["on_edgetpu"], compiled["on_cpu"]) == (10, 0)
    card = load_card("report-face", directory=tmp_path)
    assert card.files["edgetpu"].file == target.name
    assert card.files["edgetpu"].sha256 == sha256(target)
    assert card.golden.output["edgetpu"] == card.golden.output["int8"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_result_of_the_compiler_takes_precedence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operation that the compiler leaves on the CPU gives exit code 1, and the table has its reason."""
    put_compiler(monkeypatch, tmp_path / "bin", successful(FALLBACK))
    assert main(["lint", str(source), "--target", "edgetpu"]) == 1
    out = capsys.readouterr().out
    assert "10 of 10 operations on edgetpu" in out
    assert FALLBACK in out


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "print('Invalid model: x'); print('Model not quantized'); sys.exit(1)",
            "refuses it (Model not quantized)",
        ),
        ("print('Internal compiler error. Aborting!', file=sys.stderr); sys.exit(1)", "Aborting!"),
        ("print('done')", "wrote no file (done)"),
    ],
)
def test_failing_compiler_is_one_message(
    body: str, message: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line of the compiler is the reason; no file is left and the card does not change."""
    put_compiler(monkeypatch, tmp_path / "bin", body)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(ModelError) as caught:
        lint(source, "edgetpu")
    assert message in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_without_compiler_nothing_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a compiler on PATH the result comes from the list of operations alone."""
    monkeypatch.setenv("PATH", str(tmp_path))
    result = lint(source, "edgetpu")
    assert result["maps"]
    assert result["compiled"] is None
    assert not (tmp_path / "report-face.int8_edgetpu.tflite").exists()


def test_log_without_figures_has_nulls() -> None:
    """A log in an unknown format gives None for its figures and raises no error."""
    figures = read_log("Edge TPU Compiler, some later version")
    assert figures["version"] is None
    assert figures["operations"] == []
