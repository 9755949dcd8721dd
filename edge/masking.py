"""Masks credentials in texts that leave the process: errors, logs, status, `config show`, the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterator

MASK = "***"

_URL = re.compile(r"(?<![\w/])(?:[a-z][a-z0-9+.-]*:)?//\S+", re.IGNORECASE)
# Of name=value: in the query or, with some cameras, in the path.
_URL_VALUE = re.compile(r"(?<==)[^&;\s\"']+")
_TO_END_OF_PART = re.compile(r"[^&;/\s]*")
# Properties of GStreamer elements, such as `user-pw=x` or `extra-headers="..."`. A `..._file` is only a path.
_PROPERTY = re.compile(
    r"(?<![\w-])[\w-]*(?:user-id|proxy-id|user-pw|proxy-pw|passw|passphrase|secret|token|credential|api-?key"
    r"|auth|cookie|extra-headers)(?![\w-]*_file)[\w-]*\s*=\s*"
    r"(?P<value>\"(?:\\.|[^\"\\])*\"|'[^']*'|[^\s\"'](?:\\.|\S)*)",
    re.IGNORECASE,
)


def mask_credentials(text: str) -> str:
    """Replace user info and query values of URLs, and secret properties of pipelines, by `***`."""
    masked, at = [], 0
    for start, end in _spans(text):
        masked += [text[at:start], MASK]
        at = end
    return "".join(masked) + text[at:]


def credentials_in(text: str) -> list[str]:
    """Return what `mask_credentials` replaces, and each part of a `user:password`."""
    found = [text[start:end] for start, end in _spans(text)]
    return [*found, *(part for value in found if ":" in value for part in value.split(":"))]


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where credentials stand, in order and without overlaps."""
    urls = [url.span() for url in _URL.finditer(text)]
    spans = [span for start, end in urls for span in _in_url(text, text.index("//", start) + 2, end)]
    for match in _PROPERTY.finditer(text):
        if not any(start <= match.start() < end for start, end in urls):
            spans.append(match.span("value"))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _in_url(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where credentials stand in the URL whose user info or host begins at `start`."""
    # A password may contain `@` and `/`, so the user info ends at the last `@`.
    if (at := text.rfind("@", start, end)) >= 0:
        yield start, at
        # Either a password with `?` or a query with `@`: the next part may be the end of a value.
        if "?" in text[start:at] and (part := _TO_END_OF_PART.match(text, at + 1)):
            yield part.span()
        start = at + 1
    for value in _URL_VALUE.finditer(text, start, end):
        yield value.span()
