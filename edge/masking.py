"""Masks credentials in every text that leaves the process: logs, errors, status, `config show`."""

from __future__ import annotations

import re


def mask_token(token: str) -> str:
    """Return the token of a source without user and password."""
    return re.sub(r"\b(user-id|user-pw)=\S+", r"\1=***", re.sub(r"//[^/@\s]*@", "//***@", token))
