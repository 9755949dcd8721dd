"""Accuracy of other emotion recognisers on the same images, measured once, for comparison."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.errors import ModelError
from edge.inference.card import load_card

REFERENCE = "report-face"
METHOD = (
    "measured: the same images, given crops, no detector (this model on JAFFE: crops of its detector), "
    "one core of one x86-64 machine; published: PrivateTest in their papers; stated: on other data"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """Accuracies in %, time per face, size of the weights; None if not measured."""

    name: str
    how: str  # ours, measured, published, stated
    fer2013_private: float | None = None
    ckplus48_six: float | None = None
    jaffe: float | None = None
    ms: float | None = None
    weights_kb: float | None = None
    note: str = ""


PEERS = (
    Peer("fer 25.10.3 (mini-Xception)", "measured", 65.9, 68.8, 43.7, 0.4, 93),
    Peer("face-api 1.7.15", "measured", 59.0, 88.6, 70.9, 8.6, 330,
         "UAR 84.7 on CK+48; JAFFE 68.5 with its own detector's crop"),
    Peer("human-models 3.0.4", "measured", 66.7, 58.8, 42.7, 5.5, 820,
         "64.6 on PrivateTest without the images that lie in Training too: it very likely saw them"),
    Peer("facex 1.1.0", "measured", 42.7, 88.7, 49.8, 12.9, 2600, "UAR 87.0 on CK+48"),
    Peer("VGG19", "published", 70.8),
    Peer("ResNet152", "published", 73.2),
    Peer("Residual Masking", "published", 74.1),
    Peer("the university report", "stated", note="66.91 on its own random split of JAFFE+CK+48+CFE"),
)  # fmt: skip


def compare(result: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return `{"method", "rows"}`: the measured model, the report's model by its card, and the peers."""
    ours = _peer(result["model"], result["sets"], result["files"])
    rows = [Peer(**{**asdict(ours), "ms": result["latency_ms"].get("int8")})]
    if result["model"] != REFERENCE:
        try:
            card = load_card(REFERENCE, directory=directory)
            rows.append(_peer(REFERENCE, card.metrics, card.model_dump()["files"]))
        except ModelError:
            pass  # a custom directory need not contain the report's model
    return {"method": METHOD, "rows": [asdict(row) for row in (*rows, *PEERS)]}


def _peer(name: str, sets: dict[str, dict[str, dict[str, Any]]], files: dict[str, Any]) -> Peer:
    def percent(name_of_set: str) -> float | None:
        figures = sets.get(name_of_set, {}).get("int8")
        return None if figures is None else round(100 * figures["accuracy"], 1)

    return Peer(
        name,
        "ours",
        percent("fer2013-private"),
        percent("ckplus48-six"),
        percent("jaffe-detected"),
        weights_kb=round(files["int8"]["bytes"] / 1000) if "int8" in files else None,
    )
