"""Masks credentials in texts that leave the process: errors, logs, status, `config show`, the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterator

MASK = "***"
MAX_SHOWN = 80  # characters of a value in an error

# A quoted text is one word, because a password may contain spaces; the apostrophe in "can't" quotes nothing.
_WORD = re.compile(r"""(?:(?<!\w)"(?:\\.|[^"\\])*"(?!\w)|(?<!\w)'(?:\\.|[^'\\])*'(?!\w)|\S)+""")
_PUNCTUATION = "\"'),:;.]>"  # after a URL in a sentence
# Before a login without `//`: a mistyped scheme such as that of `rtsp:/me:pw@host`, or nothing.
_BEFORE_LOGIN = re.compile(
    r"[\"'(<\[]*+(?:[\w-]+=[\"']?)?+(?:gstreamer:)?+(?P<path>(?:file|v4l2):(?!.*[a-z]:/))?+(?P<scheme>[a-z][a-z0-9+.-]*[:;][/\\]+)?",
    re.IGNORECASE,
)
# `?` and `@` belong to the name of a file.
_FILE = re.compile(r"[\"'(<\[]*+(?:[\w-]+=[\"']?)?+file:(?!//|.*[a-z]:/)", re.IGNORECASE)
# A host with its port; anything else with a colon is a login whose host is missing.
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
# Of name=value, in the query or, with some cameras, in the path; and a part of the query without a name.
_URL_VALUE = re.compile(r"(?<==)[^&]+|(?<=[?&])[^=&]+(?=&|$)")
# Before the `//` of a password without a scheme, such as `me:p//w@host`.
_LOGIN_BEFORE = re.compile(r":.+\Z")
_VALUE_BEFORE = re.compile(r"\?|/[^/]*=")
_TO_END_OF_VALUE = re.compile(r"[^&]*")
_QUOTED = r"\"(?:\\.|[^\"\\])*(?:\"|$)|'[^']*(?:'|$)"
# Properties of GStreamer elements, such as `user-pw=x` or `extra-headers="..."`, or quoted with their value.
# A `..._file` is only a path.
_PROPERTY = re.compile(
    r"(?<![\w.-])(?=[\w-]*+\s*=)(?P<quote>(?<=[\"']))?[\w-]*"
    r"(?:user-?(?:id|name)|proxy-id|passw|passphrase|pwd|(?<![a-z])(?:user|pw|key)(?=\s*=)|secret|token"
    r"|credential|api-?key|auth|cookie|extra-headers)(?![\w-]*_file)[\w-]*\s*=\s*"
    rf"(?P<value>(?(quote)[^\"']+|(?:\\.|{_QUOTED}|[^\s\"'\\])+))",
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


def printable(text: str) -> str:
    """Return `text` with escapes for the characters that a terminal would act on or cannot show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, *, limit: int = MAX_SHOWN) -> str:
    """Return `text` in printable characters without credentials, cut to `limit`."""
    # Masked before it is cut: without its `@` a login is not recognised. And after a line break is an escape.
    text = mask_credentials(printable(text))
    if len(text) <= limit:
        return text
    quote = text[0] if text[0] in "'\"" else ""
    return f"{text[:limit]}...{quote} ({len(text)} characters)"


def _spans(text: str) -> list[tuple[int, int]]:
    """Return where credentials stand, in order and without overlaps."""
    urls: list[tuple[int, int]] = []
    spans: list[tuple[int, int]] = []
    for word in _WORD.finditer(text):
        end = word.start() + len(word[0].rstrip(_PUNCTUATION))
        slashes = -1 if _FILE.match(word[0]) else text.find("//", word.start(), end)
        if slashes >= 0:
            urls.append((slashes, end))
            spans += _in_url(text, slashes + 2, end)
        if slashes < 0 or _LOGIN_BEFORE.search(text, word.start(), slashes):
            spans += _login(text, word.start(), end)
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


def _login(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where a login stands in a word without `//`; addresses of mail and paths have none."""
    if (at := text.rfind("@", start, end)) < 0 or not (before := _BEFORE_LOGIN.match(text, start, at)):
        return
    if not before["path"] and (before["scheme"] or ":" in text[before.end() : at]):
        yield before.end(), at


def _in_url(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where credentials stand in the URL whose user info or host begins at `start`."""
    # A password may contain `@` and `/`, so the user info ends at the last `@`.
    if (at := text.rfind("@", start, end)) >= 0:
        yield start, at
        # Either a password with these characters or a value with `@`, whose end is in the next part.
        if _VALUE_BEFORE.search(text, start, at) and (part := _TO_END_OF_VALUE.match(text, at + 1, end)):
            yield part.span()
        start = at + 1
    elif not _HOST.fullmatch(host := re.split(r"[/?#]", text[start:end])[0]):
        yield start, start + len(host)
    for value in _URL_VALUE.finditer(text[:end], start):
        yield value.span()
