"""Every system of the report trains on tiny synthetic data, writes figures and plots, and resumes exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from edge.errors import EdgeError, ModelError
from models.__main__ import main
from models.data.datasets import DataError
from models.data.report_examples import VGG16_FILE, Options, read_cfe, read_mixed
from models.data.report_pictures import CKPLUS_LABELS
from models.recipes.report import REPORTS, train_report
from models.run import Run
from models.training.folds import prepare_checkpoints
from tests.helpers import trees
from tests.helpers.commands import run_here

# The fixture needs less than a minute of one core; a busy machine takes longer.
TIMEOUT_S = 600
pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)

ROOT = Path(__file__).parents[3]
# One process for several commands: importing TensorFlow takes longer than this training. Without graphs:
# tracing the functions of 20 networks takes longer than one step of each.
MANY = """
import json, sys, tensorflow
from models.__main__ import main
tensorflow.config.run_functions_eagerly(True)
for arguments in json.loads(sys.argv[1]):
    print(main(arguments))
"""
RESUMED = "report-face-jaffe"  # trained for two epochs, and once more killed in between
VGG16_LAYERS = (
    ("block1", (3, 64, 64)), ("block2", (64, 128, 128)), ("block3", (128, 256, 256, 256)),
    ("block4", (256, 512, 512, 512)), ("block5", (512, 512, 512, 512)),
)  # fmt: skip
PEOPLE = {name: report.people for name, report in REPORTS.items()}


def write_vgg16(path: Path) -> Path:
    """Write random weights in the layout of the published file; return its path."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        names = []
        for block, widths in VGG16_LAYERS:
            for number, (before, after) in enumerate(pairwise(widths), start=1):
                layer = f"{block}_conv{number}"
                group = file.create_group(layer)
                kernel = random.standard_normal((3, 3, before, after), dtype=np.float32)
                group[f"{layer}_W_1:0"] = kernel * np.float32(np.sqrt(2 / (9 * before)))
                group[f"{layer}_b_1:0"] = np.zeros(after, np.float32)
                group.attrs["weight_names"] = [f"{layer}_W_1:0".encode(), f"{layer}_b_1:0".encode()]
                names.append(layer.encode())
        file.attrs["layer_names"] = names
    return path


def run_of(data: Path, out: Path) -> Run:
    """Return a run of one epoch without output."""
    return Run(data, out, epochs=1, resume=False, report=lambda _text: None, bar=trees.no_bar)


def result_of(out: Path, name: str) -> dict[str, Any]:
    """Read the result of a recipe."""
    result: dict[str, Any] = json.loads((out / f"{name}.result.json").read_text(encoding="utf-8"))
    return result


def call(name: str, data: Path, out: Path, *more: str, epochs: int = 1) -> list[str]:
    """Return the arguments of a training."""
    return ["train", name, "--data", str(data), "--out", str(out), "--epochs", str(epochs), *more]


def start(calls: Sequence[Sequence[str]], **pipes: Any) -> subprocess.Popen[str]:
    """Run commands one after another in a new process, which prints their exit codes."""
    return subprocess.Popen([sys.executable, "-c", MANY, json.dumps(calls)], cwd=ROOT, text=True, **pipes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return all data sets of the report except CFE."""
    directory = tmp_path_factory.mktemp("data")
    trees.write_jaffe(directory / "faces/jaffe", subjects=("KA", "KL"))
    trees.write_ckplus48(directory / "faces/ckplus48", subjects=("S010", "S011"))
    trees.write_speech(directory, actors=(), seconds=0.3)
    return directory


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a training that was killed with SIGKILL in its second fold."""
    out = tmp_path_factory.mktemp("killed")
    with start([call(RESUMED, data, out, epochs=2)], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "leave-subjects-out.fold-1: epoch 1/2" in line:
                process.kill()
                break
    assert not (out / f"{RESUMED}.result.json").exists()
    return out


@pytest.fixture(scope="module")
def trained(data: Path, killed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the output directory of each trained recipe, and the output of all in `stdout` and `stderr`.

    The same process resumes the killed training.
    """
    base = tmp_path_factory.mktemp("trained")
    cfe, weights = base / "data", write_vgg16(base / VGG16_FILE)
    trees.write_cfe(cfe / "cfe")
    more = {"report-face-cfe": ["--weights", str(weights)], "report-face-mixed": ["--size", "40"]}
    calls = [
        call(
            name,
            cfe if name == "report-face-cfe" else data,
            base / name,
            *more.get(name, []),
            epochs=2 if name == RESUMED else 1,
        )
        for name in REPORTS
    ]
    calls.append(call(RESUMED, data, killed, "--resume", epochs=2))
    with start(calls, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    (base / "stdout").write_text(out)
    (base / "stderr").write_text(errors)
    return {
        "stdout": base / "stdout",
        "stderr": base / "stderr",
        **{name: base / name for name in REPORTS},
    }


@pytest.mark.parametrize("name", REPORTS)
def test_every_recipe_writes_figures(trained: dict[str, Path], name: str) -> None:
    """The result has data, licences and seed, and figures that agree with the confusion matrix."""
    result = result_of(trained[name], name)
    assert list(result) == [
        "version", "recipe", "data", "labels", "epochs", "batch", "seed", "input_shape", "reported",
        "protocols", "notes",
    ]  # fmt: skip
    for part in result["data"]["sets"].values():
        assert part["licence"]
        assert sum(part["classes"].values()) == part["n"]
    for protocol, figures in result["protocols"].items():
        matrix = np.array(figures["confusion"])
        assert matrix.shape == (7, 7)
        assert matrix.sum() == figures["n"]
        assert figures["accuracy"] == pytest.approx(np.trace(matrix) / figures["n"], abs=1e-4)
        assert figures["interval_95"][0] <= figures["accuracy"] <= figures["interval_95"][1]
        assert list(figures["precision"]) == list(figures["recall"]) == [*result["labels"], "macro"]
        assert figures["uar"] == figures["recall"]["macro"]
        epochs = list(range(1, result["epochs"] + 1))
        histories = [[entry["epoch"] for entry in fold] for fold in figures["history"]]
        assert histories == [epochs] * len(figures["folds"])
        if protocol.endswith(PEOPLE[name]):
            assert figures["n"] == result["data"]["n"]
            assert 2 <= len(figures["folds"]) <= 4


@pytest.mark.parametrize("name", REPORTS)
def test_every_protocol_has_its_plots(trained: dict[str, Path], name: str) -> None:
    """Each protocol has three plots, and no temporary file is left."""
    protocols = result_of(trained[name], name)["protocols"]
    assert {key.removeprefix("vgg16-").removeprefix("cnn-") for key in protocols} == {
        "random-80-20",
        PEOPLE[name],
    }
    for key in protocols:
        for kind in ("history", "confusion", "precision-recall"):
            assert cv2.imread(str(trained[name] / f"{name}.{key}.{kind}.png")) is not None
    assert not list(trained[name].glob(".*"))


def test_ckplus_keeps_contempt_and_notes_the_leak(trained: dict[str, Path]) -> None:
    """It has its own seven classes, and a note about the three frames of each sequence."""
    result = result_of(trained["report-face-ckplus"], "report-face-ckplus")
    assert tuple(result["labels"]) == CKPLUS_LABELS
    assert result["data"]["sets"]["ckplus48"]["classes"]["contempt"] == 2
    assert any("three frames of each sequence" in note for note in result["notes"])


def test_mixed_set_is_described(trained: dict[str, Path]) -> None:
    """Without CFE the mix is JAFFE + CK+48, next to the reported figure for all three, with notes."""
    result = result_of(trained["report-face-mixed"], "report-face-mixed")
    assert result["data"]["mix"] == "JAFFE + CK+48"
    assert result["reported"] == {
        "accuracy": 0.6691,
        "data": "JAFFE + CK+48 + CFE",
        "protocol": "random-80-20",
    }
    assert result["input_shape"] == [40, 40, 3]
    notes = "; ".join(result["notes"])
    for part in ("CFE is not public", "all neutral images are from JAFFE", "2 images of contempt left out"):
        assert part in notes


def test_voices_are_tested_on_the_other_speaker(trained: dict[str, Path]) -> None:
    """Leave-one-speaker-out has a fold for OAF and one for YAF."""
    result = result_of(trained["report-voice-tess"], "report-voice-tess")
    folds = result["protocols"]["leave-one-speaker-out"]["folds"]
    assert sorted(fold["people"] for fold in folds) == [["tess:OAF"], ["tess:YAF"]]
    assert result["reported"]["accuracy"] == 0.98


def test_cfe_measures_both_networks(trained: dict[str, Path]) -> None:
    """VGG16's head and the CNN have both protocols."""
    result = result_of(trained["report-face-cfe"], "report-face-cfe")
    assert list(result["protocols"]) == [
        "vgg16-random-80-20",
        "vgg16-leave-subjects-out",
        "cnn-random-80-20",
        "cnn-leave-subjects-out",
    ]


def test_figures_are_printed_in_plain_lines(trained: dict[str, Path]) -> None:
    """In a pipe every protocol is one line, with the reported figure next to its protocol."""
    lines = trained["stdout"].read_text().splitlines()
    mixed = lines.index("# report-face-mixed: JAFFE + CK+48, 26 examples, 1 epochs")
    assert lines[mixed + 2].startswith("random-80-20")
    assert lines[mixed + 2].endswith("66.91")
    assert lines[mixed + 3].startswith("leave-subjects-out")
    assert lines[mixed + 3].endswith("-")
    assert any(line.startswith("  tested on tess:YAF") for line in lines)


def test_resumed_run_equals_an_uninterrupted_one(killed: Path, trained: dict[str, Path]) -> None:
    """After SIGKILL in the second fold and `--resume`, every number of the result is the same."""
    assert result_of(killed, RESUMED) == result_of(trained[RESUMED], RESUMED)
    resumed = trained["stderr"].read_text().rpartition("fold-1: resumed after epoch")[2]
    assert "leave-subjects-out.fold-2: epoch 2/2" in resumed
    assert "random-80-20.fold-1: epoch" not in resumed


def test_json_is_the_result(data: Path, killed: Path, trained: dict[str, Path], capsys: Any) -> None:
    """`--json` prints the result that is also in the file; a finished run is not trained again."""
    assert main(call(RESUMED, data, killed, "--resume", "--json", epochs=2)) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == result_of(trained[RESUMED], RESUMED)
    assert "epoch 1/2" not in printed.err


@pytest.mark.parametrize("name", ["wrong.h5", "empty.weights.h5"])
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    """A file without VGG16's weights is exit 4; the error names the file and the right one."""
    pytest.importorskip("keras", reason="needs the [train] extra")
    trees.write_cfe(tmp_path / "cfe")
    (tmp_path / "wrong.h5").write_bytes(b"no HDF5")
    with h5py.File(tmp_path / "empty.weights.h5", "w"):
        pass
    done = run_here(main, *call("report-face-cfe", tmp_path, tmp_path, "--weights", str(tmp_path / name)))
    assert done.returncode == 4
    assert f"{name}: not VGG16's weights without top" in done.stderr
    assert f"give {VGG16_FILE}" in done.stderr


def test_absent_weights_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    """A missing file of --weights is an error."""
    with pytest.raises(ModelError, match=r"--weights .*none\.h5: no such file"):
        train_report("report-face-cfe", run_of(tmp_path, tmp_path), Options(48, tmp_path / "none.h5"))


def test_cfe_names_everything_that_is_missing(tmp_path: Path) -> None:
    """The error names data and weights; with data alone, a note names the weights."""
    with pytest.raises(DataError, match=rf"missing: CFE, .* not public; .*--weights FILE.*{VGG16_FILE}"):
        read_cfe(run_of(tmp_path, tmp_path), Options(48))
    trees.write_cfe(tmp_path / "cfe")
    examples = read_cfe(run_of(tmp_path, tmp_path), Options(48))
    assert len(examples.labels) == 14
    assert any(note.startswith("vgg16 not measured; missing: --weights") for note in examples.notes)


def test_mixed_set_includes_cfe_if_available(data: Path, tmp_path: Path) -> None:
    """With CFE in the directory the mix has all three sets."""
    for name in ("jaffe", "ckplus48"):
        (tmp_path / name).symlink_to(data / "faces" / name)
    trees.write_cfe(tmp_path / "cfe")
    examples = read_mixed(run_of(tmp_path, tmp_path), Options(48))
    assert set(examples.sources) == {"jaffe", "ckplus48", "cfe"}
    assert not any("CFE" in note for note in examples.notes)


@pytest.mark.parametrize(("name", "source"), [("report-face-jaffe", "jaffe"), ("report-voice-tess", "tess")])
def test_absent_data_set_is_named(tmp_path: Path, name: str, source: str) -> None:
    """The error names the missing data set."""
    with pytest.raises(DataError, match=f"data set {source}: not in"):
        train_report(name, run_of(tmp_path, tmp_path), Options(48))


def test_absent_class_is_named(tmp_path: Path) -> None:
    """A class without examples is an error before the training."""
    trees.write_jaffe(tmp_path / "jaffe")
    for path in tmp_path.rglob("KA.FE*"):
        path.unlink()
    with pytest.raises(DataError, match="JAFFE: no example of fear; complete the data set"):
        train_report("report-face-jaffe", run_of(tmp_path, tmp_path), Options(48))


def test_one_picture_a_class_of_one_person_cannot_be_split(tmp_path: Path) -> None:
    """Without two examples per class and two people, one error has both reasons."""
    trees.write_jaffe(tmp_path / "jaffe")
    with pytest.raises(DataError, match=r"no class has two examples.*jaffe:KA is the only person"):
        train_report("report-face-jaffe", run_of(tmp_path, tmp_path), Options(48))


def test_resume_of_another_run_is_refused(tmp_path: Path) -> None:
    """Checkpoints of other epochs or data are not resumed; without --resume they are deleted."""
    prepare_checkpoints(tmp_path, {"epochs": 2, "data": "a"}, resume=False)
    checkpoint = tmp_path / "random-80-20.fold-1.npz"
    checkpoint.write_bytes(b"")
    with pytest.raises(EdgeError, match="had epochs 2, this one has 3; start again without --resume"):
        prepare_checkpoints(tmp_path, {"epochs": 3, "data": "a"}, resume=True)
    prepare_checkpoints(tmp_path, {"epochs": 2, "data": "a"}, resume=True)
    assert checkpoint.exists()
    prepare_checkpoints(tmp_path, {"epochs": 3, "data": "a"}, resume=False)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["report-face-jaffe", "--size", "88"], "--size 88: report-face-jaffe has a fixed size"),
        (["report-face-mixed", "--size", "31"], "--size 31: not between 32 and 224"),
        (["report-face-mixed", "--weights", "w.h5"], "--weights w.h5: report-face-mixed takes no weights"),
        (["report-face", "--json"], "--json: report-face writes a model and a card"),
        (
            ["report-nose"],
            "report-nose: unknown recipe; use one of ",
        ),
    ],
)
def test_misplaced_option_is_usage(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2; the error names option, value and recipe."""
    assert main(["train", *arguments, "--data", "nowhere"]) == 2
    assert sentence in capsys.readouterr().err


def test_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """`train --help` lists every recipe."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    for name in ("report-face", "report-voice", *REPORTS):
        assert f"  {name} " in printed
