"""Runs the checks and prints the findings: a line as soon as each stage is done, or JSON at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from edge.commands.console import show_working
from edge.commands.doctor.checks import check_everything
from edge.commands.doctor.finding import Finding, count_failed, report
from edge.commands.doctor.service import adopt_service

STYLES = {"ok": "green", "failed": "bold red", "skipped": "dim"}


def run_doctor(config_path: Path | None, *, as_json: bool, bundle: Path | None) -> int:
    """Check this device, write `bundle` if a path is given, and return the number of failures."""
    adopt_service()
    findings = print_findings(check_everything(config_path), as_json=as_json)
    if bundle is not None:
        from edge.commands.doctor.bundle import write_bundle

        write_bundle(bundle, config_path, findings)
        print(f"{bundle}: written; read it before you send it", file=sys.stderr)
    return count_failed(findings)


def print_findings(findings: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    """Print each finding as it comes, or all as JSON at the end, and return them."""
    if as_json:
        with show_working("checking this device"):
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
    console.print(", ".join(f"{states.count(state)} {state}" for state in ("ok", "failed", "skipped")))
    return done
