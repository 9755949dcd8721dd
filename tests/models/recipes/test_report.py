"""Every system of the report trains on tiny made data, leaves its figures and plots, and resumes exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from edge.errors import EdgeError, ModelError
from edge.values import LABELS
from models.__main__ import main
from models.data.datasets import DataError
from models.data.report_examples import VGG16_FILE, Options, read_cfe, read_mixed
from models.data.report_pictures import CKPLUS_LABELS, list_pictures, move_pictures, read_pictures
from models.data.splits import random_split, split_notes, subject_folds
from models.recipes.report import REPORTS, train_report
from models.recipes.report_results import protocol_figures
from models.run import Run
from models.training.folds import prepare_checkpoints
from tests.helpers import trees

# Half a minute of one core when nothing else runs; a machine that also trains gives it a tenth of one.
TIMEOUT_S = 600
pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "models", "train"]
# One process for all of them: to import TensorFlow takes longer than to train on so little.
MANY = "import sys, json; from models.__main__ import main; [print(main(a)) for a in json.loads(sys.argv[1])]"
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


def run_of(data: Path, out: Path, *, resume: bool = False) -> Run:
    """Return a run without bars that prints nowhere."""

    @contextmanager
    def bar(_title: str) -> Any:
        yield lambda _done, _total: None

    return Run(data, out, epochs=1, resume=resume, report=lambda _text: None, bar=bar)


def result_of(out: Path, name: str) -> dict[str, Any]:
    """Read what a recipe left."""
    result: dict[str, Any] = json.loads((out / f"{name}.result.json").read_text(encoding="utf-8"))
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All sets of the report, without CFE, which has a directory of its own."""
    directory = tmp_path_factory.mktemp("data")
    trees.write_jaffe(directory / "faces/jaffe", subjects=("KA", "KL"))
    trees.write_ckplus48(directory / "faces/ckplus48", subjects=("S010", "S011"))
    trees.write_speech(directory, actors=(), seconds=0.3)
    return directory


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories in which every recipe was trained for two epochs; `stdout` is what they printed."""
    base = tmp_path_factory.mktemp("trained")
    cfe, weights = base / "data", write_vgg16(base / VGG16_FILE)
    trees.write_cfe(cfe / "cfe")
    common = {name: ["--data", str(data)] for name in REPORTS}
    common["report-face-cfe"] = ["--data", str(cfe), "--weights", str(weights)]
    common["report-face-mixed"] += ["--size", "40"]
    calls = [
        ["train", name, *more, "--out", str(base / name), "--epochs", "2"] for name, more in common.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", MANY, json.dumps(calls)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (base / "stdout").write_text(done.stdout)
    return {"stdout": base / "stdout", **{name: base / name for name in REPORTS}}


@pytest.mark.parametrize("name", REPORTS)
def test_every_recipe_leaves_figures(trained: dict[str, Path], name: str) -> None:
    """The result has data, licences and seed, and for each protocol figures that agree with its confusion."""
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
        assert [[entry["epoch"] for entry in fold] for fold in figures["history"]] == [[1, 2]] * len(
            figures["folds"]
        )
        if protocol.endswith(PEOPLE[name]):
            assert figures["n"] == result["data"]["n"]
            assert 2 <= len(figures["folds"]) <= 4


@pytest.mark.parametrize("name", REPORTS)
def test_every_protocol_has_its_plots(trained: dict[str, Path], name: str) -> None:
    """Three pictures a protocol, and none that is half written."""
    protocols = result_of(trained[name], name)["protocols"]
    assert {key.removeprefix("vgg16-").removeprefix("cnn-") for key in protocols} == {
        "random-80-20",
        PEOPLE[name],
    }
    for key in protocols:
        for kind in ("history", "confusion", "precision-recall"):
            assert cv2.imread(str(trained[name] / f"{name}.{key}.{kind}.png")) is not None
    assert not list(trained[name].glob(".*"))


def test_ckplus_keeps_contempt_and_says_that_it_leaks(trained: dict[str, Path]) -> None:
    """Its seven classes are its own, and the note about three frames a sequence is in the result."""
    result = result_of(trained["report-face-ckplus"], "report-face-ckplus")
    assert tuple(result["labels"]) == CKPLUS_LABELS
    assert result["data"]["sets"]["ckplus48"]["classes"]["contempt"] == 2
    assert any("three frames of each sequence" in note for note in result["notes"])


def test_mix_is_named_as_it_is(trained: dict[str, Path]) -> None:
    """Without CFE it is JAFFE + CK+48, beside the report's figure for all three, and the notes say so."""
    result = result_of(trained["report-face-mixed"], "report-face-mixed")
    assert result["data"]["mix"] == "JAFFE + CK+48"
    assert result["reported"] == {
        "accuracy": 0.6691,
        "data": "JAFFE + CK+48 + CFE",
        "protocol": "random-80-20",
    }
    assert result["input_shape"] == [40, 40, 3]
    notes = "; ".join(result["notes"])
    for part in ("CFE is not public", "neutral is from JAFFE alone", "2 pictures of contempt left out"):
        assert part in notes


def test_voices_are_asked_the_one_whom_the_other_taught(trained: dict[str, Path]) -> None:
    """Leave-one-speaker-out has a figure for OAF and one for YAF."""
    result = result_of(trained["report-voice-tess"], "report-voice-tess")
    folds = result["protocols"]["leave-one-speaker-out"]["folds"]
    assert sorted(fold["people"] for fold in folds) == [["tess:OAF"], ["tess:YAF"]]
    assert result["reported"]["accuracy"] == 0.98


def test_cfe_measures_both_networks(trained: dict[str, Path]) -> None:
    """VGG16's head and the CNN each have both protocols."""
    result = result_of(trained["report-face-cfe"], "report-face-cfe")
    assert list(result["protocols"]) == [
        "vgg16-random-80-20",
        "vgg16-leave-subjects-out",
        "cnn-random-80-20",
        "cnn-leave-subjects-out",
    ]


def test_figures_stand_in_plain_lines(trained: dict[str, Path]) -> None:
    """In a pipe every protocol is a line, with the report's figure beside the one it belongs to."""
    lines = trained["stdout"].read_text().splitlines()
    mixed = lines.index("# report-face-mixed: JAFFE + CK+48, 26 examples, 2 epochs")
    assert lines[mixed + 2].startswith("random-80-20")
    assert lines[mixed + 2].endswith("66.91")
    assert lines[mixed + 3].startswith("leave-subjects-out")
    assert lines[mixed + 3].endswith("-")
    assert any(line.startswith("  asked tess:YAF") for line in lines)


def test_killed_run_ends_as_the_unbroken_one(data: Path, trained: dict[str, Path], tmp_path: Path) -> None:
    """Killed with SIGKILL in the second fold and resumed, every number of the result is the same."""
    arguments = ["report-face-jaffe", "--data", str(data), "--out", str(tmp_path), "--epochs", "2"]
    with subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "leave-subjects-out.fold-1: epoch 1/2" in line:
                process.kill()
                break
    assert not (tmp_path / "report-face-jaffe.result.json").exists()
    done = subprocess.run(
        [*COMMAND, *arguments, "--resume", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "random-80-20.fold-1: epoch" not in done.stderr
    unbroken = result_of(trained["report-face-jaffe"], "report-face-jaffe")
    assert result_of(tmp_path, "report-face-jaffe") == unbroken
    assert json.loads(done.stdout) == unbroken


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """A file that is not VGG16's weights is exit 4 with its name and the name of the right one."""
    trees.write_cfe(tmp_path / "cfe")
    (tmp_path / "wrong.h5").write_bytes(b"no HDF5")
    with h5py.File(tmp_path / "empty.weights.h5", "w"):
        pass
    calls = [
        ["train", "report-face-cfe", "--data", str(tmp_path), "--out", str(tmp_path), "--weights", str(path)]
        for path in (tmp_path / "wrong.h5", tmp_path / "empty.weights.h5")
    ]
    done = subprocess.run(
        [sys.executable, "-c", MANY, json.dumps(calls)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout == "4\n4\n", done.stderr
    assert "wrong.h5: not VGG16's weights without top" in done.stderr
    assert f"give {VGG16_FILE}" in done.stderr
    assert "Traceback" not in done.stderr


def test_absent_weights_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    """A path of --weights with nothing there is one sentence."""
    with pytest.raises(ModelError, match=r"--weights .*none\.h5: no such file"):
        train_report("report-face-cfe", run_of(tmp_path, tmp_path), Options(48, tmp_path / "none.h5"))


def test_cfe_says_all_that_is_missing_in_one_sentence(tmp_path: Path) -> None:
    """Data and weights are both named; with the data there, what is not measured is a note."""
    with pytest.raises(DataError, match=rf"missing: CFE, .* not public; .*--weights FILE.*{VGG16_FILE}"):
        read_cfe(run_of(tmp_path, tmp_path), Options(48))
    trees.write_cfe(tmp_path / "cfe")
    examples = read_cfe(run_of(tmp_path, tmp_path), Options(48))
    assert len(examples.labels) == 14
    assert any(note.startswith("vgg16 not measured; missing: --weights") for note in examples.notes)


def test_cfe_joins_the_mix_where_it_is(data: Path, tmp_path: Path) -> None:
    """With CFE in the directory the mix is the report's."""
    for name in ("jaffe", "ckplus48"):
        (tmp_path / name).symlink_to(data / "faces" / name)
    trees.write_cfe(tmp_path / "cfe")
    examples = read_mixed(run_of(tmp_path, tmp_path), Options(48))
    assert set(examples.sources) == {"jaffe", "ckplus48", "cfe"}
    assert not any("CFE" in note for note in examples.notes)


@pytest.mark.parametrize(("name", "source"), [("report-face-jaffe", "jaffe"), ("report-voice-tess", "tess")])
def test_absent_data_set_is_named(tmp_path: Path, name: str, source: str) -> None:
    """The set and the place where it was looked for."""
    with pytest.raises(DataError, match=f"data set {source}: not in"):
        train_report(name, run_of(tmp_path, tmp_path), Options(48))


def test_absent_class_is_named(tmp_path: Path) -> None:
    """A class without a single example ends the run before it trains."""
    trees.write_jaffe(tmp_path / "jaffe")
    for path in tmp_path.rglob("KA.FE*"):
        path.unlink()
    with pytest.raises(DataError, match="JAFFE: no example of fear; complete the data set"):
        train_report("report-face-jaffe", run_of(tmp_path, tmp_path), Options(48))


def test_one_picture_a_class_of_one_person_cannot_be_split(tmp_path: Path) -> None:
    """Nothing to ask and nobody to leave out: one error that says both."""
    trees.write_jaffe(tmp_path / "jaffe")
    with pytest.raises(DataError, match=r"no class has two examples.*jaffe:KA is the only person"):
        train_report("report-face-jaffe", run_of(tmp_path, tmp_path), Options(48))


def test_resume_of_another_run_is_refused(tmp_path: Path) -> None:
    """A checkpoint of other epochs or data is no place to go on from; without --resume it is removed."""
    prepare_checkpoints(tmp_path, {"epochs": 2, "data": "a"}, resume=False)
    checkpoint = tmp_path / "random-80-20.fold-1.npz"
    checkpoint.write_bytes(b"")
    with pytest.raises(EdgeError, match="had epochs 2, this one has 3; begin again without --resume"):
        prepare_checkpoints(tmp_path, {"epochs": 3, "data": "a"}, resume=True)
    prepare_checkpoints(tmp_path, {"epochs": 2, "data": "a"}, resume=True)
    assert checkpoint.exists()
    prepare_checkpoints(tmp_path, {"epochs": 3, "data": "a"}, resume=False)
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["report-face-jaffe", "--size", "88"], "--size 88: report-face-jaffe has a size of its own"),
        (["report-face-mixed", "--size", "31"], "--size 31: not from 32 to 224"),
        (["report-face-mixed", "--weights", "w.h5"], "--weights w.h5: report-face-mixed takes no weights"),
        (["report-face", "--json"], "--json: report-face leaves a model and its card"),
        (
            ["report-nose"],
            "report-nose: no such recipe; there are ",
        ),
    ],
)
def test_misplaced_option_is_usage(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2 and a sentence that names option, value and recipe."""
    assert main(["train", *arguments, "--data", "nowhere"]) == 2
    assert sentence in capsys.readouterr().err


def test_help_names_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Names stand unbroken in `train --help`."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = capsys.readouterr().out
    for name in ("report-face", "report-voice", *REPORTS):
        assert f"  {name} " in printed


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("jaffe", "KA.AN1.39.tiff", "holiday.tiff"),
        ("jaffe", "anger/KA.AN1.39.webp", "anger/KA.XX1.39.webp"),
        ("ckplus48", "anger/S010_004_00000017.png", "anger/face.png"),
        ("ckplus48", "anger/S010_004_00000017.png", "bored/S010_004_00000017.png"),
        ("cfe", "Angry/subject12_3.jpg", "bored/subject1.jpg"),
    ],
)
def test_strange_names_are_said_and_the_rest_is_used(
    tmp_path: Path, source: str, good: str, bad: str
) -> None:
    """A picture whose name or folder says no person or emotion is counted by name."""
    for name in (good, bad):
        path = tmp_path / source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (picture,), (note,) = list_pictures(tmp_path, source)
    assert (picture.path, picture.label) == (tmp_path / source / good, "anger")
    assert note.startswith(f"{source}: 1 files with names that say no person or emotion (first {bad},")


@pytest.mark.parametrize(
    ("name", "subject"),
    [("subject1.jpg", "cfe:subject1"), ("subject12_3.jpg", "cfe:subject12"), ("anna_1.jpg", "cfe:anna")],
)
def test_cfe_subject_is_the_name_up_to_its_number(tmp_path: Path, name: str, subject: str) -> None:
    """Several pictures of one person stay together."""
    (tmp_path / "cfe/fear").mkdir(parents=True)
    (tmp_path / "cfe/fear" / name).write_bytes(b"")
    (picture,), _ = list_pictures(tmp_path, "cfe")
    assert picture.subject == subject


def test_no_name_of_the_pattern_is_an_error(tmp_path: Path) -> None:
    """It says which names were expected."""
    (tmp_path / "jaffe").mkdir()
    (tmp_path / "jaffe/cat.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture with a name of its pattern \(KA\.AN1\.39\.tiff\)"):
        list_pictures(tmp_path, "jaffe")


def test_unreadable_pictures_are_said_per_set(data: Path, tmp_path: Path) -> None:
    """Count and first name of each set; an empty file and a cut one; the others are read."""
    trees.write_cfe(tmp_path / "cfe")
    (tmp_path / "cfe/anger/subject1.jpg").write_bytes(b"")
    pictures = [*list_pictures(tmp_path, "cfe")[0], *list_pictures(data, "jaffe")[0]]
    good, pixels, notes = read_pictures(pictures, side_px=40, colour=True)
    assert len(good) == len(pixels) == len(pictures) - 1
    assert pixels.shape[1:] == (40, 40, 3)
    assert notes == ["cfe: 1 of 14 pictures cannot be read (first subject1.jpg)"]


def test_colour_is_rgb(tmp_path: Path) -> None:
    """OpenCV reads blue first; the network gets red first."""
    path = tmp_path / "cfe/anger/subject1.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((60, 60, 3), (0, 0, 200), np.uint8))
    _, pixels, _ = read_pictures(list_pictures(tmp_path, "cfe")[0], side_px=48, colour=True)
    assert pixels[0, 0, 0].tolist() == [200, 0, 0]


def test_moved_pictures_repeat_and_differ() -> None:
    """The same seed moves alike; size and type stay, grey or colour."""
    images = np.stack([np.repeat(trees.face(seed)[..., np.newaxis], 3, axis=2) for seed in range(8)])
    first = move_pictures(images, np.random.default_rng(3))
    np.testing.assert_array_equal(first, move_pictures(images, np.random.default_rng(3)))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert all((a != b).mean() > 0.5 for a, b in zip(first, images, strict=True))
    assert move_pictures(images[..., :1], np.random.default_rng(3)).shape == (8, 48, 48, 1)


def test_random_split_takes_a_fifth_of_every_class() -> None:
    """Of 10 two are asked, of 2 one, of 1 none; nothing is on both sides."""
    labels = np.array([0] * 10 + [1] * 2 + [2])
    (fold,) = random_split(labels, seed=1)
    assert np.bincount(labels[fold.test], minlength=3).tolist() == [2, 1, 0]
    assert sorted([*fold.train, *fold.test]) == list(range(13))


def test_nobody_is_learnt_from_and_asked() -> None:
    """23 people in five folds: no person on both sides, every example asked once, no class missing."""
    random = np.random.default_rng(0)
    subjects = [f"p{i}" for i in random.integers(0, 23, 400)]
    labels = random.integers(0, 7, 400)
    folds = subject_folds(labels, subjects, seed=1)
    assert len(folds) == 5
    for fold in folds:
        assert not {subjects[i] for i in fold.train} & {subjects[i] for i in fold.test}
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(400))
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) < 1.3 * min(sizes)
    assert split_notes(folds, labels, LABELS, protocol="x") == []


def test_fold_without_a_class_is_named() -> None:
    """A class that one person alone shows cannot be learnt when that person is asked."""
    folds = subject_folds(np.array([0, 0, 1]), ["a", "b", "b"], seed=0)
    notes = split_notes(folds, np.array([0, 0, 1]), ("anger", "fear"), protocol="leave-subjects-out")
    assert sorted(note.partition(" of 2 ")[2] for note in notes) == [
        "is asked for no fear",
        "learns from no fear",
    ]


def test_figures_are_those_of_the_confusion() -> None:
    """Precision and recall of a hand-made case; a class never told has none; two people, no interval."""
    p = np.eye(3, dtype=np.float32)[[0, 0, 1, 0]]
    figures = protocol_figures(
        p,
        np.array([0, 0, 1, 2]),
        names=("a", "b", "c"),
        subjects=("x", "x", "y", "y"),
        sources=("s", "s", "s", "t"),
        counts=(2, 2),
        histories=[[], []],
    )
    assert figures["precision"] == {"a": 0.6667, "b": 1.0, "c": None, "macro": 0.5556}
    assert figures["recall"] == {"a": 1.0, "b": 1.0, "c": 0.0, "macro": 0.6667}
    assert figures["interval_95_people"] is None
    assert figures["sets"] == {"s": {"n": 3, "accuracy": 1.0}, "t": {"n": 1, "accuracy": 0.0}}
    assert [fold["accuracy"] for fold in figures["folds"]] == [1.0, 0.5]
