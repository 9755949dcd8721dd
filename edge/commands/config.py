"""`emotion-edge config`: prints the effective configuration or its JSON Schema, or checks the file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Literal

from edge.config import config_schema, load_config, to_toml


def run_config(action: Literal["show", "schema", "check"], path: Path | None) -> None:
    """Print the answer to `action`; raise `ConfigError` for a configuration that is not valid."""
    if action == "schema":
        print(json.dumps(config_schema(), indent=2))
        return
    config = load_config(path)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # TOML is UTF-8, whatever the locale is
    sys.stdout.write(to_toml(config) if action == "show" else "config: ok\n")
