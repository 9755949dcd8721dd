"""Parses the address of a broker, a name and a port, as written in the configuration."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

# At most 253 characters, at most 63 between two dots: the resolver raises an error for others.
NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class Address:
    """One broker: a name or an IP address without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return whether traffic to the address stays on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.rstrip(".").lower() == "localhost"


def parse_address(text: str, *, default_port: int) -> Address:
    """Parse `broker.local`, `broker.local:1884`, `192.168.1.5`, `::1` or `[::1]:1883`; raise `ValueError`."""
    if _is_ip(text):
        return Address(text, default_port)
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(default_port)
    if host.startswith("[") and host.endswith("]") and _is_ip(host[1:-1]):
        host = host[1:-1]
    elif not NAME.fullmatch(host):
        raise ValueError(
            "not a host name; write broker.local, broker.local:1884 or [::1]:1883, without mqtt:// and "
            "without a path"
        )
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError("the port is not a number from 1 to 65535; write broker.local:1884")
    return Address(host, int(port))


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
