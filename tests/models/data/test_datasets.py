"""The loaders read every published layout, keep test people out of training, and report unused files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.values import LABELS
from models.data.datasets import (
    DataError,
    counts,
    find_set,
    load_ckplus48,
    load_fer2013,
    load_jaffe,
    need_every_class,
)
from models.data.speech import HELD_OUT, VALIDATION, list_clips, load_speech
from tests.helpers import trees


def test_fer2013_splits_are_the_official_ones(tmp_path: Path) -> None:
    """Each usage of labels.csv has its own images, with labels and votes in the order of LABELS."""
    trees.write_fer2013(tmp_path)
    for usage in ("Training", "PublicTest", "PrivateTest"):
        faces = load_fer2013(tmp_path, usage)
        assert counts(faces.labels) == dict.fromkeys(LABELS, 2)
        np.testing.assert_array_equal(faces.votes.argmax(axis=1), faces.labels)
    first = load_fer2013(tmp_path, "Training").images[0]
    np.testing.assert_array_equal(first, trees.face(0))


@pytest.mark.parametrize("layout", ["labels.csv", "fer2013.csv"])
def test_exact_copies_of_test_images_leave_training(tmp_path: Path, layout: str) -> None:
    """A training image with the pixels of a test image is left out; the test splits stay complete."""
    rows = trees.fer_rows()
    public = next(row for row in rows if row[0] == "PublicTest")
    private = next(row for row in rows if row[0] == "PrivateTest")
    rows += [("Training", "sadness", public[2], {}), ("Training", "fear", private[2], {})]
    (trees.write_fer2013 if layout == "labels.csv" else trees.write_kaggle)(tmp_path, rows)
    training = load_fer2013(tmp_path, "Training")
    assert len(training) == 14
    assert training.notes == ("fer2013: 2 exact copies of test images left out of Training",)
    assert len(load_fer2013(tmp_path, "PublicTest")) == 14


@pytest.mark.parametrize(("votes", "kept"), [(4, 15), (5, 14), (6, 14)])
def test_training_leaves_out_images_voted_not_a_face(tmp_path: Path, votes: int, kept: int) -> None:
    """5 of 10 NF votes exclude a training image, 4 do not."""
    rows = [*trees.fer_rows(), ("Training", "fear", trees.face(9999), {"NF": votes})]
    trees.write_fer2013(tmp_path, rows)
    assert len(load_fer2013(tmp_path, "Training")) == kept


def test_no_face_votes_leave_test_splits_whole(tmp_path: Path) -> None:
    """Test splits keep images with NF votes."""
    rows = [*trees.fer_rows(), ("PrivateTest", "fear", trees.face(9999), {"NF": 10})]
    trees.write_fer2013(tmp_path, rows)
    assert len(load_fer2013(tmp_path, "PrivateTest")) == 15


def test_kaggle_csv_equals_the_tree(tmp_path: Path) -> None:
    """The two published CSV files give the same images, labels and votes as the directory tree."""
    rows = trees.fer_rows()
    tree = load_fer2013(trees.write_fer2013(tmp_path / "tree", rows), "PrivateTest")
    table = load_fer2013(trees.write_kaggle(tmp_path / "csv", rows), "PrivateTest")
    np.testing.assert_array_equal(tree.stacked(), table.stacked())
    np.testing.assert_array_equal(tree.labels, table.labels)
    np.testing.assert_array_equal(tree.votes, table.votes)


def test_kaggle_folders_are_read(tmp_path: Path) -> None:
    """train/angry and test/angry are read; file names distinguish PublicTest and PrivateTest."""
    for folder, name in (("train", "Training_1"), ("test", "PublicTest_2"), ("test", "PrivateTest_3")):
        for seed, word in enumerate(("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")):
            path = tmp_path / folder / word / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), trees.face(100 * len(folder + name) + seed))
    for usage in ("Training", "PublicTest", "PrivateTest"):
        assert counts(load_fer2013(tmp_path, usage).labels) == dict.fromkeys(LABELS, 1)


def test_fer_plus_of_another_length_is_refused(tmp_path: Path) -> None:
    """Votes are joined by row, so a table of another length is an error with both counts."""
    trees.write_kaggle(tmp_path, trees.fer_rows())
    lines = (tmp_path / "fer2013new.csv").read_text().splitlines(keepends=True)
    (tmp_path / "fer2013new.csv").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match=r"41 rows, but fer2013\.csv has 42"):
        load_fer2013(tmp_path, "Training")


def test_unreadable_pictures_are_counted(tmp_path: Path) -> None:
    """A note has number and name of empty and missing files; the others are used."""
    trees.write_fer2013(tmp_path)
    files = sorted((tmp_path / "private_test").rglob("*.png"))
    files[0].write_bytes(b"")
    files[5].unlink()
    faces = load_fer2013(tmp_path, "PrivateTest")
    assert len(faces) == 12
    assert faces.notes == (f"fer2013 PrivateTest: 2 of 14 images cannot be read (first {files[0].name})",)


def test_unusable_rows_are_counted(tmp_path: Path) -> None:
    """An unknown class, an invalid number and a truncated line are left out and counted in a note."""
    trees.write_fer2013(tmp_path)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    lines[1] = lines[1].replace(",anger,", ",boredom,")
    lines[2] = lines[2].replace(",6,", ",many,")
    lines[-1] = lines[-1][:20]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert len(load_fer2013(tmp_path, "Training")) == 12
    faces = load_fer2013(tmp_path, "PrivateTest")
    assert len(faces) == 13
    assert faces.notes[0].startswith("labels.csv: 3 of 42 rows cannot be used (first line 2: ")


@pytest.mark.parametrize("content", [b"", b"path,usage\na.png,PrivateTest\n", b"\xff\xfe\x00binary"])
def test_invalid_table_is_an_error(tmp_path: Path, content: bytes) -> None:
    """The error for an empty table, other columns or binary content names the file."""
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"^labels\.csv: "):
        load_fer2013(tmp_path, "PrivateTest")


def test_unknown_folders_and_names_are_counted(tmp_path: Path) -> None:
    """Unknown folders of ckplus48, except contempt, and unknown names of jaffe are counted in notes."""
    trees.write_ckplus48(tmp_path / "ck")
    (tmp_path / "ck" / "anger").rename(tmp_path / "ck" / "rage")
    assert load_ckplus48(tmp_path / "ck").notes == (
        "ckplus48: 2 images are in folders that are not an emotion (first S010_004_00000010.png)",
    )
    trees.write_jaffe(tmp_path / "jaffe")
    (tmp_path / "jaffe" / "KA.AN1.0.tiff").rename(tmp_path / "jaffe" / "holiday.tiff")
    assert load_jaffe(tmp_path / "jaffe").notes == (
        "jaffe: 1 images have names without an emotion (first holiday.tiff)",
    )


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    """A table without its images is an error with the number of tried files."""
    trees.write_fer2013(tmp_path)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="no image can be read, 14 tried"):
        load_fer2013(tmp_path, "PrivateTest")


def test_missing_set_and_class_are_named(tmp_path: Path) -> None:
    """The error names the missing data set, or the classes without an example."""
    with pytest.raises(DataError, match="data set jaffe: not in"):
        find_set(tmp_path, "jaffe")
    labels = np.array([0, 1, 2, 3, 6], dtype=np.int64)
    with pytest.raises(DataError, match="tiny: no example of neutral, sadness"):
        need_every_class("tiny", labels)


def test_ckplus_leaves_contempt_out(tmp_path: Path) -> None:
    """Six classes of two subjects are read, without contempt and neutral."""
    faces = load_ckplus48(trees.write_ckplus48(tmp_path))
    found = counts(faces.labels)
    assert found.pop("neutral") == 0
    assert set(found.values()) == {2}
    assert set(faces.subjects) == {"S010", "S011"}


@pytest.mark.parametrize("suffix", [".tiff", ".webp", ".png"])
def test_jaffe_is_read_by_its_names(tmp_path: Path, suffix: str) -> None:
    """Names such as KA.AN1.39.tiff give subject and label; images keep their 256 pixels."""
    faces = load_jaffe(trees.write_jaffe(tmp_path, suffix=suffix))
    assert counts(faces.labels) == dict.fromkeys(LABELS, 1)
    assert set(faces.subjects) == {"KA"}
    assert {image.shape for image in faces.images} == {(256, 256)}


def test_corpora_give_speaker_and_label(tmp_path: Path) -> None:
    """All three naming patterns are parsed; calm is neutral, pleasant_surprise is surprise."""
    trees.write_speech(tmp_path)
    tess, _ = list_clips(tmp_path, "tess")
    ravdess, _ = list_clips(tmp_path, "ravdess")
    nemo, _ = list_clips(tmp_path, "nemo")
    assert {(clip.speaker, clip.label) for clip in tess} == {
        (speaker, label) for speaker in ("tess:OAF", "tess:YAF") for label in LABELS
    }
    assert sorted(clip.label for clip in ravdess if clip.speaker == "ravdess:01") == sorted(
        [*LABELS, "neutral"]
    )
    assert {clip.label for clip in nemo} == set(LABELS) - {"disgust"}


@pytest.mark.parametrize("name", ["OA_bite_neutral.wav", "YAF_date_ps.wav", "OAF_back_angry.wav"])
def test_published_names_of_tess(tmp_path: Path, name: str) -> None:
    """ps, angry and the misnamed OA file have the right speaker and label."""
    trees.write_wav(tmp_path / "tess" / name, trees.buzz(0, 0.1))
    (clip,), notes = list_clips(tmp_path, "tess")
    assert (clip.speaker, clip.label) == {
        "OA": ("tess:OAF", "neutral"), "YAF": ("tess:YAF", "surprise"), "OAF": ("tess:OAF", "anger"),
    }[name.split("_")[0]]  # fmt: skip
    assert notes == []


def test_ravdess_twin_counts_once(tmp_path: Path) -> None:
    """03-01-03-01-02-01-07 and -02-02-07 are the same recording; one is left out."""
    for name in ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07"):
        trees.write_wav(tmp_path / "ravdess" / "Actor_07" / f"{name}.wav", trees.buzz(0, 0.1))
    clips, _ = list_clips(tmp_path, "ravdess")
    assert [clip.path.stem for clip in clips] == ["03-01-03-01-02-01-07"]


def test_strange_names_and_broken_clips_are_counted(tmp_path: Path) -> None:
    """Notes count a name without an emotion and an unreadable file; the others are used."""
    trees.write_speech(tmp_path)
    trees.write_wav(tmp_path / "speech/nemo/holiday.wav", trees.buzz(0, 0.1))
    broken = tmp_path / "speech/nemo/EB0_anger_1.wav"
    broken.write_bytes(b"RIFF nothing")
    clips, notes = list_clips(tmp_path, "nemo")
    assert notes == ["nemo: 1 files with names without an emotion (first holiday.wav)"]
    speech = load_speech("nemo", clips, notes=notes)
    assert len(speech) == 17
    assert speech.notes[-1] == "nemo: 1 of 18 clips cannot be read (first EB0_anger_1.wav)"


def test_stereo_at_another_rate_is_the_same_clip(tmp_path: Path) -> None:
    """48 kHz stereo gives the same number of frames and level as 16 kHz mono."""
    trees.write_wav(tmp_path / "nemo/EB0_anger_1.wav", trees.buzz(3, 1.0))
    trees.write_wav(tmp_path / "nemo/EB0_anger_2.wav", trees.buzz(3, 1.0, 48_000), rate_hz=48_000, channels=2)
    clips, _ = list_clips(tmp_path, "nemo")
    mono, stereo = (window.mfcc for window in load_speech("nemo", clips).windows)
    assert abs(len(mono) - len(stereo)) <= 2
    # Only the log energy: the fine spectrum depends on the resampling filter.
    np.testing.assert_allclose(mono[:, 0].mean(), stereo[:, 0].mean(), atol=1.5)


def test_held_out_and_validation_speakers_are_disjoint() -> None:
    """No held-out speaker is a validation speaker."""
    assert not set(HELD_OUT) & set(VALIDATION)
