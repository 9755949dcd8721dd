"""Updates the tables of figures in Markdown files from the cards: `python -m models.readme FILE...`.

A table is the text between `<!-- generated: NAME -->` and `<!-- /generated -->`, with NAME one of `BLOCKS`.
`--check` changes nothing and exits with 1 if a table is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.errors import EXIT_FAILURE, EXIT_OK, EdgeError
from edge.files import write_text
from edge.inference.card import Card
from models.console import print_note, run_command
from models.evaluation.show import main_cells, percent
from models.family import list_models
from models.files import writable

BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
# What each model classifies, and the sets of its card with the names that readers know.
SUMMARY: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "face-cnn": (
        "emotion of a face",
        {
            "fer2013-private": "FER2013 test",
            "fer2013-private-ferplus": "its FER+ majority",
            "ckplus48-six": "CK+ (posed)",
            "jaffe-detected": "JAFFE",
        },
    ),
    "voice-lstm": (
        "emotion of a voice",
        {"tess-folds": "TESS", "ravdess-folds": "RAVDESS", "nemo-folds": "nEMO (Polish)"},
    ),
    "multimodal": (
        "fusion of face and voice",
        {
            "fer2013 PrivateTest-ferplus, both clean": "face and voice, paired by label",
            "fer2013 PrivateTest-ferplus, no voice": "face alone",
            "fer2013 PrivateTest-ferplus, no face": "voice alone",
        },
    ),
    "video-lstm": (
        "emotion of a face over 1.5 s",
        {"ckplus-sequences": "CK+ sequences", "jaffe-ramps": "JAFFE ramps"},
    ),
    "visual": (
        "image and video combined (optional)",
        {"ckplus-sequences": "CK+ sequences", "jaffe-ramps": "JAFFE ramps"},
    ),
    "eye-state": ("eye closed, open or hidden", {"cew": "CEW", "mrl": "MRL (infrared)"}),
    "mouth-state": ("mouth still or yawning", {"yawn": "yawns", "ckplus": "CK+ (no yawns)"}),
    "report-face": (
        "baseline: CNN of the report",
        {"fer2013-private": "FER2013 test", "ckplus48-six": "CK+ (posed)", "jaffe-detected": "JAFFE"},
    ),
    "report-voice": (
        "baseline: LSTM of the report",
        {"tess-unseen": "TESS", "ravdess-unseen": "RAVDESS", "nemo-unseen": "nEMO (Polish)"},
    ),
}
FIGURES = ("data set", "variant", "n", "acc %", "95 %", "UAR %", "F1 %", "ECE")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models.readme", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="Markdown file with generated tables"
    )
    parser.add_argument("--check", action="store_true", help="only check that the tables are up to date")
    parser.set_defaults(command=_run)
    return run_command(parser, argv, stopped="stopped")


def updated(text: str) -> str:
    """Return `text` with every generated table replaced; raise `EdgeError` for an unknown one."""

    def replacement(match: re.Match[str]) -> str:
        if match["name"] not in BLOCKS:
            raise EdgeError(f"generated: {match['name']}: unknown table; use one of {', '.join(BLOCKS)}")
        return f"{match[1]}{BLOCKS[match['name']]()}{match[3]}"

    return BLOCK.sub(replacement, text)


def models_table() -> str:
    """Return one row for each shipped model: task, size, accuracy of the int8 file on held-out people."""
    rows = []
    for card in _cards():
        task, sets = SUMMARY[card.name]
        figures = (f"{name} {percent(card.metrics[key]['int8']['accuracy'])} %" for key, name in sets.items())
        rows.append((f"`{card.name}`", task, f"{card.files['int8'].bytes / 1000:.0f} kB", "; ".join(figures)))
    return _table(("model", "classifies", "int8", "accuracy on held-out people"), rows)


def figures_table() -> str:
    """Return every figure of the models that are evaluated on faces or voices, as text."""
    lines: list[tuple[str, ...]] = [FIGURES]
    for card in _cards():
        if card.task in ("face", "voice"):
            lines.append((f"{card.name}:",))
            lines += _figure_rows(card)
    widths = [
        max(len(line[i]) for line in lines if len(line) > i and len(line) > 1) for i in range(len(FIGURES))
    ]
    text = []
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line[:2], widths, strict=False)]
        cells += [f"{cell:>{width}}" for cell, width in zip(line[2:], widths[2:], strict=False)]
        text.append("  ".join(cells).rstrip())
    return "```\n" + "\n".join(text) + "\n```\n"


def fusion_table() -> str:
    """Return accuracy and calibration error of the multimodal model in every condition."""
    (card,) = (card for card in _cards() if card.task == "multimodal")
    sets: dict[str, dict[str, Mapping[str, Any]]] = {}
    for key, variants in card.metrics.items():
        data_set, _, condition = key.partition(", ")
        sets.setdefault(condition, {})[data_set] = variants["int8"]
    names = list(next(iter(sets.values())))
    rows = [
        (
            condition,
            *(
                f"{percent(figures[name]['accuracy'])} %"
                + ("" if figures[name]["ece"] is None else f" (ECE {figures[name]['ece']:.3f})")
                for name in names
            ),
        )
        for condition, figures in sets.items()
    ]
    return _table(("condition", *names), rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "models": models_table,
    "figures": figures_table,
    "fusion": fusion_table,
}


def _run(args: argparse.Namespace) -> int:
    code = EXIT_OK
    for path in args.files:
        text = path.read_text(encoding="utf-8")
        if (new := updated(text)) == text:
            continue
        if args.check:
            print_note(f"{path}: tables are out of date; run python -m models.readme {path}")
            code = EXIT_FAILURE
        else:
            with writable(path):
                write_text(path, new)
            print_note(f"wrote {path}")
    return code


def _cards() -> list[Card]:
    """Return the cards of the package in the order of `SUMMARY`."""
    return sorted(list_models(), key=lambda card: list(SUMMARY).index(card.name))


def _figure_rows(card: Card) -> Iterator[tuple[str, ...]]:
    """Yield the main figures of each set and variant, uncorrupted sets first."""
    for is_corrupted in (False, True):
        for name, variants in card.metrics.items():
            if ("loss_points" in variants["int8"]) == is_corrupted:
                for variant, figures in variants.items():
                    yield (name, variant, *main_cells(figures))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (heads, *rows)]
    lines.insert(1, "|" + "---|" * len(heads))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
