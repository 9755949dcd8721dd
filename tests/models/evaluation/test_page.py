"""The page and the printed tables have all results, and the page loads no external resource."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EdgeError
from models.evaluation.evaluate import evaluate_model
from models.evaluation.page.page import render_page, write_page
from models.evaluation.show import show_evaluation
from tests.helpers import trees

VOID = {"meta", "link", "br", "img", "input"}


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the evaluation of report-face on tiny data."""
    directory = tmp_path_factory.mktemp("data")
    trees.write_fer2013(directory / "fer2013")
    trees.write_ckplus48(directory / "ckplus48")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTION_EDGE_WEIGHTS", str(directory / "nothing"))
        return evaluate_model("report-face", directory, bar=trees.no_bar)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the evaluation of report-voice on tiny data."""
    directory = trees.write_speech(tmp_path_factory.mktemp("data"), actors=("17",), seconds=0.3)
    return evaluate_model("report-voice", directory, bar=trees.no_bar)


class Tags(HTMLParser):
    """Counts open elements and keeps every attribute that could load a resource."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_well_formed_and_self_contained(face: dict[str, Any], voice: dict[str, Any]) -> None:
    """Every element is closed, there is no script, and every link is internal."""
    page = render_page([face, voice])
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(link.startswith("#") for link in tags.links)
    assert not re.search(r"<script|url\(|@import|https?://", page)


def test_page_has_every_set_chart_and_licence(face: dict[str, Any], voice: dict[str, Any]) -> None:
    """The page has names, hash, licences, peers and notes of both models, and charts of every clean set."""
    page = render_page([face, voice])
    for result in (face, voice):
        assert result["files"]["int8"]["sha256"] in page
        assert all(name in page for name in result["sets"])
        assert all(source["licence"] in page for source in result["data"])
    clean = [n for r in (face, voice) for n, v in r["sets"].items() if "loss_points" not in v["int8"]]
    assert page.count('aria-label="confusion matrix"') == len(clean)
    assert page.count('aria-label="reliability diagram"') == len(clean)
    assert all(row["name"] in page for row in face["peers"]["rows"])
    assert "voices in babble are not measured" in page


def test_names_are_escaped(face: dict[str, Any]) -> None:
    """Names from a card are escaped."""
    result = copy.deepcopy(face)
    result["data"][0]["name"] = "<script>alert(1)</script>"
    result["notes"].append("a & b < c")
    page = render_page([result])
    assert "<script>" not in page
    assert "a &amp; b &lt; c" in page


def test_page_is_written_atomically_into_a_new_directory(face: dict[str, Any], tmp_path: Path) -> None:
    """The directory is created, an old page is replaced, and no temporary file is left."""
    path = tmp_path / "runs" / "page.html"
    write_page(path, [face])
    assert write_page(path, [face]).read_text().endswith("</html>\n")
    assert list(path.parent.iterdir()) == [path]


def test_page_that_cannot_be_written_is_an_error(face: dict[str, Any], tmp_path: Path) -> None:
    """If the directory cannot be created, the error has the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeError, match=r"page\.html: cannot be written"):
        write_page(tmp_path / "file" / "page.html", [face])


def test_every_table_is_printed_in_a_pipe(
    face: dict[str, Any], voice: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures, intervals, losses, quantization, classes, targets, peers and speakers are plain lines."""
    for result in (face, voice):
        show_evaluation(result)
    printed = capsys.readouterr().out
    for title in (
        "intervals over examples", "speakers and folds", "corrupted input", "int8 minus float16",
        "recall % per class", "precision % per class", "targets", "comparison with other recognisers",
    ):  # fmt: skip
        assert f"\n{title}" in printed
    assert re.search(r"accuracy on fer2013-private +fer2013-private .* (met|missed by)", printed)
    assert re.search(r"UAR on ravdess-folds .*not measured", printed)
    assert "\x1b" not in printed


def test_float16_alone_is_shown_without_charts(
    face: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without an int8 file has its figures on the page and in the tables."""
    result = copy.deepcopy(face)
    result["sets"] = {
        name: {"float16": variants["float16"]}
        for name, variants in result["sets"].items()
        if "float16" in variants
    }
    del result["files"]["int8"], result["latency_ms"]["int8"]
    result["int8_minus_float"] = {}
    show_evaluation(result)
    assert "fer2013-private" in capsys.readouterr().out
    assert "fer2013-private" in render_page([result])
