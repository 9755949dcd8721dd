"""Measures are reported as figures, as tables and on the page."""

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
    """Return one figure, which misses its target."""
    row = Target("rightness", "%", ">=", 85).compare([("here", 80.0)])
    table = Table("by place", ("data set", "right %"), (("here <b>", "80.0"),))
    cards = {"visual": {"here": {"int8": {"n": 5, "accuracy": 0.8}}}}
    return Measured({"right": 0.8}, [table], [row], ["one place only"], cards)


@pytest.fixture
def _measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measures.MEASURES, "made", f"{__name__}:measure_nothing")


@pytest.mark.usefixtures("_measure")
def test_json_has_figures_tables_and_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has the figures, the comparison with the target, and the notes."""
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
    """`--write-cards` adds sets to the card of the measured model, and `list` prints them."""
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
def test_tables_are_printed_and_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table and its target are printed, and are on the page with escaped markup."""
    page = tmp_path / "page.html"
    assert main(["evaluate", "made", "--data", str(tmp_path), "--html", str(page)]) == 0
    out = capsys.readouterr().out
    assert "made: by place" in out
    assert "missed by 5 points" in out
    assert "here &lt;b&gt;" in page.read_text(encoding="utf-8")


def test_multimodal_model_names_its_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error for the multimodal model names the measure `fusion`."""
    assert main(["evaluate", "multimodal", "--data", str(tmp_path)]) == 1
    assert "`emotion-models evaluate fusion`" in capsys.readouterr().err
