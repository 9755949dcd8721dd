"""What is measured beside single faces and voices is told in numbers, in tables and on the page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.inference.card import artifacts_directory, load_card
from models.__main__ import main
from models.evaluation import measures
from models.evaluation.measures import Measured, Table
from models.evaluation.targets import Target
from models.run import Bar


def measure_nothing(_data: Path, _directory: Path, _bar: Bar) -> Measured:
    """Find one figure, which is missed."""
    row = Target("rightness", "%", ">=", 85).judge([("here", 80.0)])
    table = Table("by place", ("data set", "right %"), (("here <b>", "80.0"),))
    cards = {"visual": {"here": {"int8": {"n": 5, "accuracy": 0.8}}}}
    return Measured({"right": 0.8}, [table], [row], ["one place only"], cards)


@pytest.fixture
def _measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measures.MEASURES, "made", f"{__name__}:measure_nothing")


@pytest.mark.usefixtures("_measure")
def test_json_has_figures_tables_and_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read the numbers, whether the target is met, and the notes."""
    assert main(["evaluate", "made", "--data", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["evaluations"] == []
    (found,) = printed["measures"]
    assert found["measure"] == "made"
    assert found["figures"] == {"right": 0.8}
    assert found["targets"][0]["missed_by"] == 5
    assert found["notes"] == ["one place only"]


@pytest.mark.usefixtures("_measure")
def test_cards_get_the_figures_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--write-cards` adds sets to the card of the model that was measured, and `list` shows them."""
    before = load_card("visual")
    shutil.copy(artifacts_directory() / "visual.json", tmp_path)
    where = ["--data", str(tmp_path), "--models", str(tmp_path)]
    assert main(["evaluate", "made", *where]) == 0
    assert load_card("visual", directory=tmp_path) == before
    assert main(["evaluate", "made", *where, "--write-cards"]) == 0
    assert load_card("visual", directory=tmp_path).metrics == {
        **before.metrics,
        "here": {"int8": {"n": 5, "accuracy": 0.8}},
    }
    capsys.readouterr()
    assert main(["list", "--models", str(tmp_path)]) == 0
    assert "80.0" in capsys.readouterr().out


@pytest.mark.usefixtures("_measure")
def test_people_read_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table and its target are printed, and stand on the page with their markup made harmless."""
    page = tmp_path / "page.html"
    assert main(["evaluate", "made", "--data", str(tmp_path), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "made: by place" in out
    assert "missed by 5 points" in out
    assert "here &lt;b&gt;" in page.read_text(encoding="utf-8")


def test_a_model_without_a_measure_of_its_name_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The multimodal network is measured beside the rules that it competes with."""
    assert main(["evaluate", "multimodal", "--data", str(tmp_path)]) == 1
    assert "`evaluate fusion`" in capsys.readouterr().err
