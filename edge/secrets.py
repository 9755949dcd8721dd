"""Files with a secret in them: who else may read them, and what is in them.

The rule: nobody but owner and group may read the file, and its group must be one of this process's own, or
root's. Root checks files for a service that runs under another name, so whatever group these have is right
for root.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge.errors import ConfigError

ROOT_GROUP = 0


def check_secret_file(path: Path, *, key: str) -> None:
    """Raise `ConfigError` unless `path` exists and nobody but its owner and our own groups can read it."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigError(f"{key} {path}: {_words(error)}; create it, or remove the key") from None
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise ConfigError(f"{key} {path}: everybody may read or write it; `chmod 600 {path}`")
    # Root's group reads no more than root does; systemd gives credentials to it, and us an access list, whose
    # mask then shows as what the group may.
    ours = {os.getegid(), *os.getgroups(), ROOT_GROUP}
    if status.st_mode & stat.S_IRGRP and status.st_gid not in ours and os.geteuid() != 0:
        raise ConfigError(
            f"{key} {path}: group {status.st_gid}, which is not ours, may read it; `chmod 600 {path}`"
        )


def read_secret(path: Path, *, key: str) -> str:
    """Return what a secret file says, checked; raise `ConfigError`, which never shows what is in it."""
    check_secret_file(path, key=key)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{key} {path}: {_words(error)}; check owner and permissions") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key} {path}: not UTF-8; write the secret as plain text") from None
    return text.rstrip("\r\n")


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
