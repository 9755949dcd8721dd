"""Checks and reads files with secrets.

Only owner and group may have access to a secret file, and its group must be one of this process's groups or
root's. Root checks files for a service that runs as another user, so root accepts any group.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge.errors import ConfigError

ROOT_GROUP = 0


def check_secret_file(path: Path, *, key: str) -> None:
    """Raise `ConfigError` unless `path` exists and only its owner and this process's groups have access."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{key} {path}: {_reason(error)}; create the file, or remove the key") from None
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"{key} {path}: all users may read or write it; `chmod 600 {path}`")
    # Root's group has no other members. systemd gives credentials to it and grants access by an access list,
    # whose mask appears here as the permissions of the group.
    ours = {os.getegid(), *os.getgroups(), ROOT_GROUP}
    if status.st_mode & stat.S_IRGRP and status.st_gid not in ours and os.geteuid() != 0:
        raise ConfigError(
            f"{key} {path}: group {status.st_gid}, which is not a group of this process, may read it; "
            f"`chmod 600 {path}`"
        )


def read_secret(path: Path, *, key: str) -> str:
    """Check a secret file and return its text; raise `ConfigError`, which never contains the text."""
    check_secret_file(path, key=key)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{key} {path}: {_reason(error)}; check owner and permissions") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key} {path}: not UTF-8; write the secret as plain text") from None
    return text.rstrip("\r\n")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
