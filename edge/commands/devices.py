"""`emotion-edge devices`: cameras, microphones and accelerators with the token for the config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from edge.commands.console import print_table
from edge.sources.devices import Device


def print_devices(devices: Sequence[Device], *, as_json: bool) -> None:
    """Print one row for each device, with the token that selects it in the config."""
    if as_json:
        print(json.dumps([dataclasses.asdict(device) for device in devices], indent=2))
        return
    rows = [
        (device.kind, device.name, device.token, "yes" if device.usable else "no", device.detail)
        for device in devices
    ]
    print_table(("kind", "name", "token", "usable", "detail"), rows)
