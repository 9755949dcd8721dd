"""The result of one check, and the report of all results that `doctor --json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from edge import __version__
from edge.errors import EdgeError
from edge.values import rfc3339

MAX_EXIT_CODE = 100

State = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one stage for one `subject`: a file, a backend, a broker; a failure has a `remedy`."""

    stage: str
    subject: str
    state: State
    detail: str
    remedy: str = ""


def failed(stage: str, subject: str, error: EdgeError) -> Finding:
    """Return the finding for an error, whose sentence is thing and value, then `; ` and the remedy."""
    detail, _, remedy = without_subject(stage, subject, error).partition("; ")
    return Finding(
        stage, subject, "failed", detail, remedy or "`emotion-edge --verbose doctor` prints the details"
    )


def without_subject(stage: str, subject: str, error: EdgeError) -> str:
    """Return the error's sentence without the subject, which the finding names already."""
    return str(error).removeprefix(f"{stage} {subject}: ").removeprefix(f"{subject}: ")


def count_failed(findings: Sequence[Finding]) -> int:
    """Return the number of failures, at most `MAX_EXIT_CODE`: it is the exit code."""
    return min(MAX_EXIT_CODE, sum(finding.state == "failed" for finding in findings))


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what `doctor --json` prints."""
    return {
        "version": __version__,
        "time": rfc3339(datetime.now(UTC)),
        "failed": count_failed(findings),
        "findings": [asdict(finding) for finding in findings],
    }
