"""Lists which operations of a TFLite file run on an accelerator, which fall back to the CPU, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from converter import edgetpu
from converter.graph import DAMAGE, Graph, Operation, read_graph
from converter.targets import TARGETS
from edge.errors import EdgeError, ModelError
from models.evaluation.show import show_table

VERDICTS = ("operation", "count", "runs on", "why")


def lint(path: Path, target: str) -> dict[str, Any]:
    """Map every operation of `path` to `target`; for the Edge TPU also compile it if a compiler is installed.

    Returns `{"file", "target", "maps", "mapped", "fallback", "counts", "operations", "compiled"}`. `maps` is
    true when nothing falls back; the result of the compiler takes precedence over the list of operations.
    `counts` has one entry per operation name and reason, `operations` one per operation. Raises `ModelError`
    for a file that is not a model, `EdgeError` for an unknown target.
    """
    if target not in TARGETS:
        raise EdgeError(f"--target {target}: unknown; use one of {', '.join(TARGETS)}")
    graph = read_graph(path)
    try:
        reasons = _reasons(graph, target)
    except DAMAGE:
        raise ModelError(f"{path}: a damaged TFLite file; convert the model again") from None
    fallback = sum(reason is not None for reason in reasons)
    compiled = edgetpu.compile_beside(path) if target == "edgetpu" and fallback < len(reasons) else None
    counts = Counter(zip((operation.name for operation in graph.operations), reasons, strict=True))
    return {
        "file": str(path),
        "target": target,
        "maps": (compiled["on_cpu"] if compiled else fallback) == 0,
        "mapped": len(reasons) - fallback,
        "fallback": fallback,
        "counts": [
            {"operation": name, "count": count, "reason": reason} for (name, reason), count in counts.items()
        ],
        "operations": [
            _describe(operation, reason) for operation, reason in zip(graph.operations, reasons, strict=True)
        ],
        "compiled": compiled,
    }


def _reasons(graph: Graph, target: str) -> list[str | None]:
    """Return the reason for each operation that falls back, None for each that is mapped."""
    reasons: list[str | None] = []
    cut: Operation | None = None
    for operation in graph.operations:
        reason = TARGETS[target](operation)
        if target != "cpu" and operation.subgraph:
            reason = "inside a loop or a branch"
        if target == "edgetpu":
            if reason is None and cut is not None:
                reason = f"comes after {cut.name} (operation {cut.index}), which falls back"
            # The compiler makes one subgraph, which ends at the first operation that it cannot map. The
            # QUANTIZE of a float input comes before that subgraph and does not end it.
            elif reason is not None and not (operation.name == "QUANTIZE" and None not in reasons):
                cut = cut or operation
        reasons.append(reason)
    return reasons


def _describe(operation: Operation, reason: str | None) -> dict[str, Any]:
    outputs = [
        {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
        for tensor in operation.outputs
    ]
    return {
        "index": operation.index,
        "operation": operation.name,
        "maps": reason is None,
        "reason": reason,
        "outputs": outputs,
    }


def show_lint(result: dict[str, Any]) -> None:
    """Print a table to a terminal, plain lines to a pipe: operations that fall back first, in file order."""
    target = result["target"]
    ordered = sorted(result["counts"], key=lambda entry: entry["reason"] is None)
    rows = [
        (
            entry["operation"],
            str(entry["count"]),
            target if entry["reason"] is None else "cpu" if target != "cpu" else "nothing",
            entry["reason"] or "",
        )
        for entry in ordered
    ]
    total = result["mapped"] + result["fallback"]
    show_table(f"{result['file']}: {result['mapped']} of {total} operations on {target}", VERDICTS, rows)
    if result["compiled"]:
        edgetpu.show_compiled(result["compiled"])
