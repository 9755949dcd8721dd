"""Prints what the doctor found: a line as soon as each stage is done for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from edge.commands.doctor.stages import Finding, report
from edge.commands.report import working

STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Print each finding as it comes, or all at the end, and return them."""
    if as_json:
        with working("examining this device"):
            done = list(findings)
        print(json.dumps(report(done), indent=2))
        return done
    console = Console(soft_wrap=True, highlight=False)
    done = []
    for finding in findings:
        done.append(finding)
        style, about = STYLES[finding.state], f"{finding.stage} {finding.subject}".strip()
        console.print(f"[{style}]{finding.state:7}[/]  {escape(about)}: {escape(finding.detail)}")
        if finding.remedy:
            console.print(f"         -> {escape(finding.remedy)}")
    states = [finding.state for finding in done]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("ok", "failed", "skipped"))
    console.print(counts)
    return done
