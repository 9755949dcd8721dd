"""Delegate libraries, good and bad, each a real shared object: what works, and why the rest does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DeviceError
from edge.inference.backends import load_model
from edge.inference.card import artifacts_directory, golden_input, load_card
from edge.inference.classifier import open_classifier
from edge.inference.delegates import parse_delegate
from edge.inference.trial import try_backend
from tests.helpers.libraries import (
    CRASHES_ON_LOAD,
    DELEGATE,
    LACKS_A_SYMBOL,
    NOT_A_DELEGATE,
    build,
    for_another_machine,
)

ROOT = Path(__file__).parents[3]
CARD = load_card("report-voice")
MODEL = artifacts_directory() / CARD.files["int8"].file
NOBODY = 65534


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A delegate that loads and takes no operation."""
    return build(tmp_path_factory.mktemp("good") / "good.so", DELEGATE)


def refusal(backend: str) -> DeviceError:
    """Return what opening a shipped model on `backend` raises."""
    with pytest.raises(DeviceError) as caught:
        load_model(MODEL, backend=backend)
    message = str(caught.value)
    assert backend in message
    assert message.endswith("or use cpu") or message.endswith("use cpu"), message
    assert "\n" not in message
    return caught.value


def test_token_has_a_library_and_options() -> None:
    """The part after the question mark is decoded and passed to the library."""
    token = "delegate:/opt/npu.so?device=usb&cache=/var/my%20cache&empty="
    options = {"device": "usb", "cache": "/var/my cache", "empty": ""}
    assert parse_delegate(token) == ("/opt/npu.so", options)


def test_good_delegate_runs_the_model(good: Path) -> None:
    """A model on a delegate reports it as its backend and returns the output of the CPU."""
    classifier = open_classifier("report-voice", task="voice", backend=f"delegate:{good}")
    assert classifier.backend == f"delegate:{good}"
    cpu = open_classifier("report-voice", task="voice")
    x = golden_input(CARD)
    np.testing.assert_allclose(classifier.classify(x), cpu.classify(x), atol=1e-6)


def test_missing_library() -> None:
    """No such file: no_device."""
    assert refusal("delegate:/nowhere/npu.so").reason == "no_device"


@pytest.mark.parametrize(
    ("source", "message"),
    [(NOT_A_DELEGATE, "is not a TFLite delegate"), (LACKS_A_SYMBOL, "nobody_has_this")],
    ids=["not a delegate", "lacks a symbol"],
)
def test_library_with_other_symbols(tmp_path: Path, source: str, message: str) -> None:
    """A library that lacks a function, or whose own library lacks one: abi_mismatch, with its name."""
    library = build(tmp_path / "other.so", source)
    error = refusal(f"delegate:{library}")
    assert error.reason == "abi_mismatch"
    assert message in str(error)


def test_library_for_another_machine(tmp_path: Path, good: Path) -> None:
    """A library for another processor: abi_mismatch."""
    library = for_another_machine(tmp_path / "mips.so", good)
    assert refusal(f"delegate:{library}").reason == "abi_mismatch"


def test_file_without_a_library(tmp_path: Path) -> None:
    """A text file with the name of a library: abi_mismatch."""
    (tmp_path / "text.so").write_text("not an ELF file, and long enough for its header to be read " * 4)
    assert refusal(f"delegate:{tmp_path / 'text.so'}").reason == "abi_mismatch"


def test_library_that_crashes_on_load_does_not_end_this_process(tmp_path: Path) -> None:
    """The error names the signal that ended the child process."""
    library = build(tmp_path / "crash.so", CRASHES_ON_LOAD)
    error = refusal(f"delegate:{library}")
    assert error.reason == "abi_mismatch"
    assert "loading report-voice.int8.tflite crashed (SIGABRT)" in str(error)


@pytest.mark.parametrize(
    ("mode", "reason", "message"),
    [
        ("absent", "no_device", "nothing on the bus"),
        ("refuse", "op_unsupported", "cannot run report-voice.int8.tflite"),
        ("crash", "abi_mismatch", "crashed (SIGABRT)"),
    ],
)
def test_delegate_that_fails(good: Path, mode: str, reason: str, message: str) -> None:
    """No device, a refused model and a crash while running: each has its reason and message."""
    error = refusal(f"delegate:{good}?mode={mode}")
    assert error.reason == reason
    assert message in str(error)


def test_delegate_that_hangs(good: Path) -> None:
    """A library that does not return is ended after the given time."""
    with pytest.raises(DeviceError, match="was not done after 2 s") as caught:
        try_backend(MODEL, f"delegate:{good}?mode=hang", seconds=2)
    assert caught.value.reason == "no_device"


@pytest.fixture(params=["file", "directory"])
def closed(request: pytest.FixtureRequest, good: Path) -> Iterator[Path]:
    """A library that only its owner may read: the file, or the directory it lies in."""
    with tempfile.TemporaryDirectory() as name:
        library = Path(name) / "closed.so"
        library.write_bytes(good.read_bytes())
        library.chmod(0o600 if request.param == "file" else 0o644)
        Path(name).chmod(0o755 if request.param == "file" else 0o700)
        yield library


def on_edge_tpu(directory: Path, library: Path) -> subprocess.CompletedProcess[str]:
    """Open the card in `directory` on an Edge TPU, where `library` has the directory of libedgetpu.so.1."""
    code = (
        "import sys, edge.inference.delegates\n"
        "from pathlib import Path\nfrom edge.inference.classifier import open_classifier\n"
        "edge.inference.delegates.edge_tpu_nodes = lambda: [Path('/dev/null')]\n"
        "from edge.errors import DeviceError\ntry:\n"
        "    opened = open_classifier('report-voice', task='voice', directory=Path(sys.argv[1]), "
        "backend='edgetpu')\n    print(opened.backend, opened.name)\n"
        "except DeviceError as error:\n    print(error.reason, error)\n"
    )
    command = [sys.executable, "-c", code, str(directory)]
    env = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=env, timeout=60)


def compiled_card(directory: Path) -> None:
    """Write a card with an edgetpu variant, whose file is the int8 one under another name."""
    shutil.copy(MODEL, directory / "report-voice.int8.tflite")
    shutil.copy(MODEL, directory / "report-voice.int8_edgetpu.tflite")
    card = json.loads((artifacts_directory() / "report-voice.json").read_text())
    card["files"]["edgetpu"] = {**card["files"]["int8"], "file": "report-voice.int8_edgetpu.tflite"}
    card["golden"]["output"]["edgetpu"] = card["golden"]["output"]["int8"]
    (directory / "report-voice.json").write_text(json.dumps(card))


def test_edge_tpu_runs_the_compiled_variant(tmp_path: Path, good: Path) -> None:
    """The loader finds libedgetpu.so.1, which gets the edgetpu file of the card."""
    compiled_card(tmp_path)
    shutil.copy(good, tmp_path / "libedgetpu.so.1")
    done = on_edge_tpu(tmp_path, tmp_path)
    assert done.stdout.split() == ["edgetpu", CARD.identity("int8")]


def test_edge_tpu_without_its_library(tmp_path: Path) -> None:
    """A Coral without libedgetpu: no_device, and the library is named."""
    compiled_card(tmp_path)
    output = on_edge_tpu(tmp_path, tmp_path).stdout
    assert output.startswith("no_device ")
    assert "libedgetpu.so.1 does not load" in output


def test_edge_tpu_without_a_compiled_variant(good: Path, tmp_path: Path) -> None:
    """A card without an edgetpu file is refused; it does not silently run on the CPU."""
    shutil.copy(good, tmp_path / "libedgetpu.so.1")
    output = on_edge_tpu(artifacts_directory(), tmp_path).stdout
    assert output.startswith("op_unsupported ")
    assert "report-voice has no edgetpu variant" in output


def as_nobody(prepare: str, backend: str) -> str:
    """Return reason and message of opening a model on `backend` in a process of the user nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: run the tests as root")
    code = (
        "import os, sys, edge.inference.delegates\n"
        "from pathlib import Path\nfrom edge.errors import DeviceError\n"
        f"from edge.inference.backends import load_model\n{prepare}\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try:\n    load_model(Path(sys.argv[1]), backend=sys.argv[2])\n"
        "except DeviceError as error:\n    print(error.reason, error)\n"
    )
    command = [sys.executable, "-c", code, str(MODEL), backend]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout


def test_library_without_read_permission(closed: Path) -> None:
    """Another user than its owner: no_permission, with the chmod command."""
    output = as_nobody("", f"delegate:{closed}")
    assert output.startswith("no_permission ")
    assert f"chmod a+r {closed}" in output


def test_edge_tpu_without_permission(closed: Path) -> None:
    """A Coral whose node belongs to another user: no_permission, with the groups to join."""
    output = as_nobody(
        f"edge.inference.delegates.edge_tpu_nodes = lambda: [Path({str(closed)!r})]", "edgetpu"
    )
    assert output.startswith("no_permission ")
    assert "usermod -aG plugdev,apex" in output
