"""HTML building blocks of a self-contained page: document, sections and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

from models.evaluation import show

WORDS = ("class", "variant")
SENTENCES = ("note", "use", "terms", "SHA-256", "reason", "layer")


def document(title: str, header: str, main: str) -> str:
    """Return a complete page with the shared style, which loads no external resource."""
    style = (resources.files("models.evaluation.page") / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>{header}</header>\n<main>\n{main}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str) -> str:
    """Return a section under a heading; `content` is markup."""
    return f"<section><h3>{escape(title)}</h3>{content}</section>"


def details(title: str, content: str) -> str:
    """Return a collapsible section; `content` is markup."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def figure(title: str, content: str) -> str:
    """Return a chart with its caption."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{content}</figure>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text cells."""
    return raw_table(headings, [table_row(headings, tuple(map(escape, row))) for row in rows])


def raw_table(headings: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table whose rows are markup."""
    head = "".join(f"<th{_kind(heading)}>{escape(heading)}</th>" for heading in headings)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def table_row(headings: Sequence[str], cells: Sequence[str], *, kind: str = "") -> str:
    """Return a row whose cells are markup; `kind` is its CSS class."""
    columns = (f"<td{_kind(h)}>{cell}</td>" for h, cell in zip(headings, cells, strict=True))
    return f'<tr class="{kind}">{"".join(columns)}</tr>' if kind else f"<tr>{''.join(columns)}</tr>"


def _kind(heading: str) -> str:
    """Return the class of a column: words are left-aligned, sentences wrap, numbers are right-aligned."""
    if heading in SENTENCES:
        return ' class="sentence"'
    return ' class="word"' if heading in (*show.WORDS, *WORDS) else ""
