"""The documents name files, functions and headings that exist, and keep their length."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "edge/README.md",
    "converter/README.md",
    "models/README.md",
    "systemd/README.md",
)
MAX_LINES = {"README.md": 150, "CONTRIBUTING.md": 60}
# `people/fusion.py`, `people/fusion.py:Fusion.update`, `edge/delivery/schemas/`; not `/etc/mosquitto/x.conf`.
NAMED_FILE = re.compile(
    r"(?<![\w/.*-])((?:[\w-]+/)+(?:[\w-]+\.(?:py|md|toml|json|sh|conf|acl|service))?|[\w-]+\.py)(?::([A-Za-z_][\w.]*))?"
)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def read(document: str) -> str:
    """Return the text of a document."""
    return (ROOT / document).read_text(encoding="utf-8")


def find(name: str, document: str) -> Path | None:
    """Return the file or directory that a document names, relative to the repository or to itself."""
    candidates = (ROOT / name, (ROOT / document).parent / name)
    return next((path for path in candidates if path.exists()), None)


def named_files(document: str) -> Iterator[tuple[str, str]]:
    """Yield each file in the code spans of a document, with the name behind its colon, if any."""
    folders = {path.name for path in (*ROOT.iterdir(), *(ROOT / document).parent.iterdir()) if path.is_dir()}
    for span in CODE.findall(read(document)):
        for name, member in NAMED_FILE.findall(span):
            if (name.split("/")[0] in folders or member) and "NAME" not in name:
                yield name, member


def members(path: Path) -> set[str]:
    """Return the names that a module defines: `f`, `CONSTANT`, `Class`, `Class.method`, `Class.attribute`."""
    found: set[str] = set()

    def add(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(f"{prefix}{node.name}")
            if isinstance(node, ast.ClassDef):
                add(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            found.update(f"{prefix}{target.id}" for target in targets if isinstance(target, ast.Name))

    add(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_and_functions_exist(document: str) -> None:
    """Every file that a document names exists, and defines the function or class behind the colon."""
    missing = []
    for name, member in named_files(document):
        path = find(name, document)
        if path is None or (member and member not in members(path)):
            missing.append(f"{name}:{member}" if member else name)
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_have_targets(document: str) -> None:
    """Every relative link leads to a file, and to a heading in it."""
    broken = []
    for name, anchor in LINK.findall(read(document)):
        path = (ROOT / document).parent / name if name else ROOT / document
        if not path.exists() or (anchor and anchor not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(f"{name}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("document", MAX_LINES)
def test_first_documents_are_short(document: str) -> None:
    """README.md takes three minutes to read, CONTRIBUTING.md one."""
    assert len(read(document).splitlines()) <= MAX_LINES[document]
