"""Prints the results of `emotion-edge analyze`: one line for each file or step."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from edge.commands.analyze import Analyzer
from edge.errors import EXIT_FAILURE, EXIT_OK, MediaError


def print_results(analyzer: Analyzer, files: Sequence[Path], *, every_s: float | None, as_json: bool) -> int:
    """Analyze the files in order and print each result at once; return 1 if a file cannot be read."""
    code = EXIT_OK
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("analyze", total=len(files))
        for path in files:
            progress.update(task, description=path.name)
            try:
                for line in analyzer.analyze(path, every_s=every_s):
                    print(json.dumps(line) if as_json else _sentence(line), flush=True)
            except MediaError as error:
                code = EXIT_FAILURE
                if as_json:
                    print(json.dumps({"file": str(path), "error": str(error)}), flush=True)
                else:
                    print(f"emotion-edge: {error}", file=sys.stderr)
            progress.advance(task)
    return code


def _sentence(line: dict[str, Any]) -> str:
    """Return a result as one line for people, such as `a.jpg: happiness 0.93 (1 face, no speech)`."""
    fused, faces = line["fused"], len(line["faces"])
    time = f" at {line['t_s']:.1f} s" if line["kind"] == "video" else ""
    voice = "speech" if line["voice"] else "no speech"
    count = f"{faces} face{'' if faces == 1 else 's'}"
    return f"{line['file']}{time}: {fused['emotion']} {fused['confidence']:.2f} ({count}, {voice})"
