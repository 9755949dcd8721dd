"""The benchmark of the converter compares forms in one run, and marks the ratios below their target."""

from __future__ import annotations

from pathlib import Path

import pytest

keras = pytest.importorskip("keras", reason="the [train] extra is not installed")
pytest.importorskip("tensorflow", reason="the [train] extra is not installed")

from converter import bench  # noqa: E402
from converter.jobs import Job, Stage  # noqa: E402
from converter.tables import show_bench  # noqa: E402

# Keras 3.15 converts variables in a way that NumPy 2 means to forbid; it can go with a Keras that does not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def save_net(path: Path, *, width: int) -> Path:
    """Save a model of two dense layers of this width."""
    x = keras.Input((width,))
    keras.Model(x, keras.layers.Dense(width)(keras.layers.Dense(width)(x))).save(path)
    return path


@pytest.mark.usefixtures("here")
def test_smaller_network_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every form is converted and timed; the time of a form that runs ten times a second counts ten times."""
    jobs = {
        form: Job(save_net(tmp_path / f"{form}.keras", width=width), tmp_path / f"{form}.tflite", "float32")
        for form, width in (("large", 1500), ("small", 15))
    }
    monkeypatch.setattr(bench, "_jobs", lambda _scratch, _report: jobs)
    monkeypatch.setattr(bench, "SHIPPED", ("small",))
    monkeypatch.setattr(bench, "TIMES", {"large": 10})
    wanted = (bench.Ratio("small", "large", "small", 20.0), bench.Ratio("reverse", "small", "large", 1.0))
    monkeypatch.setattr(bench, "RATIOS", wanted)
    stages: list[Stage] = []
    result = bench.run_bench(report=stages.append)
    faster, slower, conversion = result["ratios"]
    assert faster["met"]
    assert faster["ratio"] == pytest.approx(10 * result["ms"]["large"] / result["ms"]["small"], rel=0.1)
    assert not slower["met"]
    assert conversion["ratio"] == pytest.approx(60 / result["convert_s"]["small"], abs=0.01)
    assert [stage.done for stage in stages] == sorted(stage.done for stage in stages)
    show_bench(result)
    assert "missed" in capsys.readouterr().out
