"""The `emotion-models` command: fetch, train, evaluate, list."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import Progress as RichProgress

from edge.errors import EXIT_OK, EXIT_USAGE, EdgeError
from edge.inference.card import Card, artifacts_directory, load_card
from edge.inference.weights import weights_directory
from models.console import positive, print_note, run_command, screen
from models.data.datasets import DataError
from models.data.report_examples import Options
from models.evaluation.evaluate import evaluate_model
from models.evaluation.measures import MEASURED_BY, MEASURES, run_measure
from models.evaluation.page.page import write_page
from models.evaluation.show import show_evaluation, show_figures, show_measure
from models.evaluation.targets import TARGETS
from models.family import list_models
from models.fetch import fetch_weights
from models.recipes.catalog import RECIPES, run_recipe
from models.recipes.report import REPORTS, train_report
from models.run import Run

MIN_SIDE_PX, MAX_SIDE_PX = 32, 224  # minimum of VGG16, and the size that it was trained with


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on a terminal; nothing in a pipe."""
    if not screen.is_terminal:
        yield lambda _done, _total: None
        return
    with RichProgress(console=screen, transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_command(_parser(), argv, stopped="stopped")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emotion-models", description="Fetch, train, evaluate and list models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="download the face detector weights (pinned by SHA-256)")
    fetch.set_defaults(command=_fetch)

    train = commands.add_parser(
        "train",
        help="train a model from its recipe (needs the [train] extra)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_recipes_help(),
    )
    train.add_argument("name", metavar="NAME", help="one of the recipes below")
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="directory of the data sets")
    train.add_argument("--out", type=Path, default=Path("trained"), metavar="DIR", help="default: trained")
    train.add_argument("--epochs", type=positive, metavar="N", help="default: the number of the recipe")
    train.add_argument("--resume", action="store_true", help="continue after the last finished epoch")
    train.add_argument("--size", type=positive, metavar="N", help="side of the input image in pixels")
    train.add_argument("--weights", type=Path, metavar="FILE", help="ImageNet weights of VGG16 without top")
    train.add_argument("--json", action="store_true", help="print the result as stable JSON")
    train.set_defaults(command=_train)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure the TFLite files on held-out people",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="NAME is a model or one of the measures: " + ", ".join(MEASURES),
    )
    evaluate.add_argument("name", nargs="?", metavar="NAME", help="default: all models and measures")
    evaluate.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="directory of the data sets"
    )
    evaluate.add_argument("--write-cards", action="store_true", help="save the figures in the cards")
    evaluate.add_argument("--html", type=Path, metavar="OUT", help="also write a self-contained HTML page")
    evaluate.set_defaults(command=_evaluate)

    listing = commands.add_parser("list", help="list the models with their figures")
    listing.set_defaults(command=_list)
    for command in (evaluate, listing):
        command.add_argument("--json", action="store_true", help="print stable JSON")
        command.add_argument(
            "--models",
            type=Path,
            metavar="DIR",
            help="directory of the models; default: those of the package",
        )
    return parser


def _recipes_help() -> str:
    """List the recipes and their additional options."""
    lines = [f"  {name:<20} a shipped model" for name in RECIPES]
    for name, report in REPORTS.items():
        takes = [
            "--json",
            *(["--size"] if report.takes_size else []),
            *(["--weights"] if report.takes_weights else []),
        ]
        lines.append(f"  {name:<20} {report.about}; takes {', '.join(takes)}")
    return "recipes:\n" + "\n".join(lines)


def _fetch(_args: argparse.Namespace) -> int:
    with screen.status("downloading the detector weights") if screen.is_terminal else bar(""):
        written = fetch_weights(report=print_note)
    if not written:
        print_note(f"all weights are already in {weights_directory()}")
    return EXIT_OK


def _train(args: argparse.Namespace) -> int:
    if args.name not in (*RECIPES, *REPORTS):
        print_note(
            f"emotion-models: {args.name}: unknown recipe; use one of {', '.join((*RECIPES, *REPORTS))}"
        )
        return EXIT_USAGE
    if wrong := _misplaced(args):
        print_note(f"emotion-models: {wrong}")
        return EXIT_USAGE
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras  # noqa: F401  # for one clear error if it is missing
        import matplotlib  # noqa: F401
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise EdgeError(f"{error.name}: not installed; in a clone, type `pip install '.[train]'`") from None
    run = Run(args.data, args.out, epochs=args.epochs, resume=args.resume, report=print_note, bar=bar)
    if args.name in REPORTS:
        return _repeat_report(args, run)
    print_note(
        f"wrote {run_recipe(args.name, run)}; next: emotion-convert convert {args.out / args.name}.keras"
    )
    return EXIT_OK


def _repeat_report(args: argparse.Namespace, run: Run) -> int:
    from models.recipes.report_results import print_result

    options = Options(args.size or REPORTS[args.name].side_px, args.weights)
    result = train_report(args.name, run, options)
    if args.json:
        print(json.dumps(result))
    else:
        print_result(result)
    print_note(f"wrote {args.out / args.name}.result.json and plots")
    return EXIT_OK


def _misplaced(args: argparse.Namespace) -> str | None:
    """Return the error for an option that the recipe does not take or a size out of range, else None."""
    report = REPORTS.get(args.name)
    if args.size is not None and not (report and report.takes_size):
        return f"--size {args.size}: {args.name} has a fixed size; leave it out"
    if args.size is not None and not MIN_SIDE_PX <= args.size <= MAX_SIDE_PX:
        return f"--size {args.size}: not between {MIN_SIDE_PX} and {MAX_SIDE_PX}; the report uses 48 and 88"
    if args.weights is not None and not (report and report.takes_weights):
        return f"--weights {args.weights}: {args.name} takes no weights; leave it out"
    if args.json and not report:
        return f"--json: {args.name} writes a model and a card and has no JSON result; leave it out"
    return None


def _evaluate(args: argparse.Namespace) -> int:
    emotions = [card.name for card in list_models(args.models) if card.task in TARGETS]
    names = [args.name] if args.name else [*emotions, *MEASURES]
    if args.name and args.name not in MEASURES:
        task = load_card(args.name, directory=args.models).task
        if task in MEASURED_BY:
            raise EdgeError(
                f"{args.name}: for {task} models use `emotion-models evaluate {MEASURED_BY[task]}`"
            )
    if not names:
        raise EdgeError(f"{args.models}: no model card in it; choose another directory")
    results, measured, unmeasured = [], list[dict[str, Any]](), list[str]()
    for name in names:
        try:
            if name in MEASURES:
                directory = args.models or artifacts_directory()
                measured.append(
                    run_measure(name, args.data, directory=directory, bar=bar, write_cards=args.write_cards)
                )
                continue
            results.append(
                evaluate_model(name, args.data, directory=args.models, bar=bar, write_card=args.write_cards)
            )
        except DataError as error:
            unmeasured.append(str(error))
    if not results and not measured:
        raise DataError("; ".join(unmeasured))
    for sentence in unmeasured:
        print_note(f"note: {sentence}")
    for result in (*results, *measured):
        for note in result["notes"]:
            print_note(f"note: {note}")
    if args.json:
        print(json.dumps({"version": 1, "evaluations": results, "measures": measured}))
    else:
        for result in results:
            show_evaluation(result)
        for result in measured:
            show_measure(result)
    if args.html:
        print_note(f"wrote {write_page(args.html, results, measured)}")
    return EXIT_OK


def _list(args: argparse.Namespace) -> int:
    cards = list_models(args.models)
    if args.json:
        print(json.dumps({"version": 1, "models": [_summary(card) for card in cards]}))
        return EXIT_OK
    for card in cards:
        sizes = ", ".join(f"{variant} {file.bytes // 1000} kB" for variant, file in card.files.items())
        show_figures(f"{card.name} {card.version} ({card.task}; {sizes})", card.metrics)
    return EXIT_OK


def _summary(card: Card) -> dict[str, Any]:
    full = card.model_dump(mode="json")
    return {key: full[key] for key in ("name", "version", "task", "files", "data", "temperature", "metrics")}


if __name__ == "__main__":
    sys.exit(main())
