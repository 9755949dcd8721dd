"""TLS towards the broker: always verified, authority and host name, with or without a client certificate."""

from __future__ import annotations

import ssl

from edge.errors import ConfigError
from edge.settings import MqttSettings


def tls_context(settings: MqttSettings) -> ssl.SSLContext | None:
    """Return the context for `mqtt.tls`; None without TLS. There is no way to turn verification off.

    Authorities are those of `mqtt.ca_file`, else the system's; `mqtt.cert_file` and `mqtt.key_file` identify
    this device. Raises `ConfigError` for a file that is missing, is no PEM, or does not fit the other.
    """
    if not settings.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(
            f"mqtt.ca_file {settings.ca_file}: {error}; give a PEM file, or unset the key"
        ) from None
    if settings.cert_file is not None:
        try:
            # A passphrase that nobody can type must be no prompt on a terminal.
            context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"mqtt.cert_file {settings.cert_file}, mqtt.key_file {settings.key_file}: {error}; "
                "give a certificate and its own key, both PEM, the key not encrypted"
            ) from None
    context.sslsocket_class = _TlsSocket
    return context


class _TlsSocket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho-mqtt 2.2 leaves such a socket open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise
