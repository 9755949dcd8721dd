"""The `emotion-convert` command: converts trained models, checks and measures converted ones."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import Progress

from converter.cards import card_name, card_of_file, draft_card_like, find_card, update_card
from converter.expose import expose_file
from converter.jobs import IO, KINDS, RANGES, RECURRENT, Job, Report, Stage, convert
from converter.lint import lint, show_lint
from converter.memory import limited_memory
from converter.report import Inputs, report
from converter.tables import show_bench, show_report, show_verified, write_report
from converter.targets import TARGETS
from converter.verify import verify
from edge.errors import EXIT_FAILURE, EXIT_OK
from edge.inference.card import load_card
from models.console import positive, print_note, run_command, screen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_command(_parser(), argv, stopped="stopped, nothing was written")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emotion-convert", description="Turn a trained Keras model into a verified TFLite one."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    to = commands.add_parser(
        "convert", help="convert a trained model to TFLite; recurrent layers become plain operations"
    )
    to.add_argument("model", type=Path, metavar="MODEL", help=".keras, .h5 or a SavedModel directory")
    to.add_argument("--to", choices=KINDS, default="int8", help="number format; default: int8")
    to.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR",
        help="images or audio files to calibrate int8 and int16x8 with, or an .npy file of inputs",
    )
    to.add_argument(
        "--calibrate-count", type=positive, default=200, metavar="N", help="examples to use; default: 200"
    )
    to.add_argument(
        "--ranges", choices=RANGES, default="minmax", help="range of activations; default: minmax"
    )
    to.add_argument(
        "--recurrent",
        choices=RECURRENT,
        help="form of recurrent layers: all steps unrolled, one step with its states as inputs and outputs, "
        "or TFLite's fused LSTM; default: unroll, above 400 steps fused",
    )
    to.add_argument(
        "--io", choices=IO, help="type of input and output; default: integer for int8 and int16x8"
    )
    to.add_argument(
        "--like",
        metavar="NAME",
        help="draft a card from the card of this shipped model, which has the same input",
    )
    to.add_argument("-o", "--output", type=Path, metavar="OUT.tflite", help="default: MODEL.KIND.tflite")
    to.set_defaults(command=_convert)

    exposing = commands.add_parser(
        "expose", help="add the embedding as a second output; probabilities and weights do not change"
    )
    exposing.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="OUT.tflite",
        help="a file whose card is in the same directory",
    )
    exposing.set_defaults(command=_expose)

    check = commands.add_parser(
        "verify", help="check card, hash and golden vector, and compare with the float file"
    )
    check.add_argument("model", type=Path, metavar="OUT.tflite")
    check.add_argument("--json", action="store_true", help="stable JSON on stdout")
    check.set_defaults(command=_verify)

    costs = commands.add_parser(
        "report", help="compare with the float file: size, noise per layer, accuracy and speed"
    )
    costs.add_argument("model", type=Path, metavar="OUT.tflite")
    costs.add_argument(
        "--calibrate", type=Path, metavar="DIR", help="examples to compare on; default: generated inputs"
    )
    costs.add_argument(
        "--calibrate-count", type=positive, default=100, metavar="N", help="examples to use; default: 100"
    )
    costs.add_argument("--data", type=Path, metavar="DIR", help="labelled data set: DIR/LABEL/FILE")
    costs.add_argument(
        "--labels", metavar="A,B,...", help="labels in the order of the output; default: from the card"
    )
    costs.add_argument("--html", type=Path, metavar="OUT.html", help="also write a self-contained HTML page")
    costs.add_argument("--json", action="store_true", help="stable JSON on stdout")
    costs.set_defaults(command=_report)

    speed = commands.add_parser("bench", help="compare the speed of the forms of a network on this machine")
    speed.add_argument("--json", action="store_true", help="stable JSON on stdout")
    speed.set_defaults(command=_bench)

    mapping = commands.add_parser(
        "lint", help="list the operations that an accelerator runs, and why it does not run the others"
    )
    mapping.add_argument("model", type=Path, metavar="OUT.tflite")
    mapping.add_argument("--target", choices=tuple(TARGETS), required=True, help="accelerator to check for")
    mapping.add_argument("--json", action="store_true", help="stable JSON on stdout")
    mapping.set_defaults(command=_lint)
    return parser


def _convert(args: argparse.Namespace) -> int:
    form = "step." if args.recurrent == "step" else ""
    target = args.output or args.model.with_name(f"{args.model.stem}.{form}{args.to}.tflite")
    card = find_card(target, args.model)
    features = card.input.features if card else load_card(args.like).input.features if args.like else None
    job = Job(
        source=args.model,
        target=target,
        kind=args.to,
        calibrate=args.calibrate,
        count=args.calibrate_count,
        features=features,
        recurrent=args.recurrent,
        ranges=args.ranges,
        io=args.io,
    )
    start = time.monotonic()
    with _shown_stages() as report:
        convert(job, report=report)
    if card is not None and card.embedding is not None:
        expose_file(target)
    print_note(f"wrote {target} ({target.stat().st_size / 1000:.0f} kB, {time.monotonic() - start:.0f} s)")
    if args.recurrent == "step":
        print_note(
            "no card: feed this file one step and its states at a time; start every state_... with zeros"
        )
        return EXIT_OK
    if card is None and args.like:
        card = draft_card_like(load_card(args.like), target)
    if card is None:
        print_note(
            f"no card in this directory: the daemon needs {card_name(target)}.json, which training writes; "
            "--like voice-lstm drafts one for a model with the input of voice-lstm"
        )
    else:
        print_note(f"updated {update_card(card, target, args.to)}")
    return EXIT_OK


@contextmanager
def _shown_stages() -> Iterator[Report]:
    """Show the stages of a conversion: a progress bar on a terminal, one line per stage in a pipe."""
    if screen.is_terminal:
        with Progress(console=screen, transient=True) as progress:
            task = progress.add_task("starting TensorFlow", total=1.0)
            yield lambda stage: progress.update(task, description=stage.text, completed=stage.done)
        return
    printed: list[str] = []

    def report(stage: Stage) -> None:
        if stage.text not in printed:
            printed.append(stage.text)
            print_note(stage.text)

    yield report


def _expose(args: argparse.Namespace) -> int:
    for path in args.models:
        card, kind = card_of_file(path)
        with limited_memory(path):
            expose_file(path)
        print_note(f"updated {path} and {update_card(card, path, kind, keep_figures=True)}")
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    with limited_memory(args.model):
        result = verify(args.model)
    if args.json:
        print(json.dumps(result))
    else:
        show_verified(result)
    return EXIT_OK


def _report(args: argparse.Namespace) -> int:
    labels = tuple(args.labels.split(",")) if args.labels else ()
    inputs = Inputs(args.calibrate, args.data, labels, args.calibrate_count)
    if screen.is_terminal:
        with limited_memory(args.model), screen.status("reading the file") as status:
            result = report(args.model, inputs, progress=status.update)
    else:
        with limited_memory(args.model):
            result = report(args.model, inputs, progress=print_note)
    if args.json:
        print(json.dumps(result))
    else:
        show_report(result)
    if args.html:
        print_note(f"wrote {write_report(args.html, result)}")
    return EXIT_OK


def _lint(args: argparse.Namespace) -> int:
    with limited_memory(args.model):
        result = lint(args.model, args.target)
    if args.json:
        print(json.dumps(result))
    else:
        show_lint(result)
    return EXIT_OK if result["maps"] else EXIT_FAILURE


def _bench(args: argparse.Namespace) -> int:
    from converter.bench import run_bench  # imports TensorFlow

    with _shown_stages() as report:
        result = run_bench(report=report)
    if args.json:
        print(json.dumps(result))
    else:
        show_bench(result)
    return EXIT_OK if all(ratio["met"] for ratio in result["ratios"]) else EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
