"""Compiles a TFLite file for the Edge TPU with Coral's `edgetpu_compiler`, if it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from converter.cards import compiled_path, find_card
from edge.errors import EdgeError, ModelError
from models.cards import file_entry, save_card
from models.evaluation.show import show_table

COMPILER = "edgetpu_compiler"
TIMEOUT_S = 600  # the compiler itself stops after 180 s
VARIANT = "edgetpu"
SOURCE_VARIANT = "int8"
ROWS = ("operation", "count", "status")
# `CONV_2D                        14         Mapped to Edge TPU`, as `--show_operations` prints it.
_ROW = re.compile(r"^(\S+) +(\d+) +(\S.*)$")
_MAPPED = "Mapped to Edge TPU"
_COUNTS = {
    "version": re.compile(r"^Edge TPU Compiler version (\S+)", re.MULTILINE),
    "subgraphs": re.compile(r"^Number of Edge TPU subgraphs: (\d+)", re.MULTILINE),
    "on_chip": re.compile(r"^On-chip memory used for caching model parameters: (\S+)", re.MULTILINE),
    "off_chip": re.compile(
        r"^Off-chip memory used for streaming uncached model parameters: (\S+)", re.MULTILINE
    ),
}


def compile_beside(source: Path) -> dict[str, Any] | None:
    """Write `NAME_edgetpu.tflite` next to `NAME.tflite` and into the card; return None without a compiler.

    Returns `{"file", "version", "subgraphs", "on_chip", "off_chip", "on_edgetpu", "on_cpu", "operations"}`.
    Raises `ModelError` with the compiler's reason when it refuses the file, `EdgeError` when the directory is
    not writable. On an error no file is left behind.
    """
    compiler = shutil.which(COMPILER)
    if compiler is None:
        return None
    target = compiled_path(source)
    try:
        with tempfile.TemporaryDirectory(dir=source.parent, prefix=".compile-") as scratch:
            log = _run(compiler, source, Path(scratch))
            part = Path(scratch) / target.name
            if not part.is_file():
                raise ModelError(
                    f"{source}: {COMPILER} wrote no file ({_reason(log)}); convert it again with --to int8"
                )
            part.replace(target)
    except OSError as error:
        raise EdgeError(
            f"{target}: cannot be written ({error.strerror}); check space and permissions"
        ) from None
    _add_to_card(source, target)
    return {"file": target.name, **read_log(log)}


def read_log(log: str) -> dict[str, Any]:
    """Parse the output of the compiler; a figure that is missing there is None."""
    found = {key: pattern.search(log) for key, pattern in _COUNTS.items()}
    figures: dict[str, Any] = {key: match[1] if match else None for key, match in found.items()}
    figures["subgraphs"] = int(figures["subgraphs"]) if figures["subgraphs"] else None
    table = log.partition("Operator ")[2]
    operations: list[dict[str, Any]] = [
        {"operation": match[1], "count": int(match[2]), "status": match[3].strip()}
        for line in table.splitlines()
        if (match := _ROW.match(line.strip()))
    ]
    on_edgetpu = sum(row["count"] for row in operations if row["status"] == _MAPPED)
    on_cpu = sum(row["count"] for row in operations) - on_edgetpu
    return {**figures, "on_edgetpu": on_edgetpu, "on_cpu": on_cpu, "operations": operations}


def show_compiled(compiled: dict[str, Any]) -> None:
    """Print where the compiler mapped each operation."""
    title = (
        f"{compiled['file']}: compiler {compiled['version']}, {compiled['subgraphs']} subgraph(s), "
        f"{compiled['on_chip']} on the chip, {compiled['off_chip']} streamed"
    )
    show_table(title, ROWS, [tuple(str(row[key]) for key in ROWS) for row in compiled["operations"]])


def _run(compiler: str, source: Path, directory: Path) -> str:
    """Run the compiler and return its output; raise `ModelError` with its last line when it fails."""
    command = [compiler, "--show_operations", "--out_dir", str(directory), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{source}: {COMPILER} took over {TIMEOUT_S} s; make the model smaller") from None
    if done.returncode:
        raise ModelError(
            f"{source}: {COMPILER} refuses it ({_reason(done.stderr + done.stdout)}); "
            "convert the model again with --to int8, or simplify it"
        )
    return done.stdout


def _reason(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def _add_to_card(source: Path, target: Path) -> None:
    """Enter the compiled file into the card of its source, with the golden output of the source."""
    card = find_card(source, source)
    if card is None or SOURCE_VARIANT not in card.golden.output:
        return
    output = {**card.golden.output, VARIANT: card.golden.output[SOURCE_VARIANT]}
    update = {
        "files": {**card.files, VARIANT: file_entry(target)},
        "golden": card.golden.model_copy(update={"output": output}),
    }
    save_card(card.model_copy(update=update), source.parent)
